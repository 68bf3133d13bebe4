"""The plan: which clips a command means, and which of them are still to be done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from aot.config import RunConfig
from aot.datasets.base import Dataset, check_clip_ids, select_clips
from aot.decoding.size import ClipSize
from aot.errors import ConfigError, ResultError
from aot.launching.costs import estimate_costs, find_sizes, size_as_json, size_from_json
from aot.launching.shards import pack
from aot.manifest.serialize import prompts_as_json
from aot.paths import ClipPaths, RunPaths
from aot.report.clip import is_reported
from aot.runs.failure import CANCELLED, read_failure
from aot.runs.fingerprint import Fingerprint
from aot.runs.history import attempts_so_far
from aot.runs.ledger import last_done
from aot.runs.run_json import SCHEMA, read_run_json, versions, write_run_json
from aot.runs.task import ClipTask, Work
from aot.system.hashing import sha256_of
from aot.types import Clip
from aot.writing.reader import load


@dataclass(frozen=True)
class RunContext:
    """What holds for all clips of a run, wherever their workers are."""

    config: RunConfig
    paths: RunPaths
    planned_at: str
    """UTC, ISO 8601; what has failed since then is not taken again."""

    def sort_out(self, clips: Iterable[tuple[Clip, Fingerprint]], *, task: str | None = None) -> list[ClipTask]:
        """What every clip still needs, judged by what lies on the disk.

        Args:
            clips: with the contents they had when they were planned.
            task: see `attempts_so_far`.
        """
        clips = list(clips)
        done = last_done(self.paths, "content")
        works = [(clip, content, self._work_for(clip, content, done.get(clip.clip_id))) for clip, content in clips]
        unfinished = {clip.clip_id: content.digest for clip, content, work in works if work is Work.ALL}
        attempts = attempts_so_far(self.paths, unfinished, is_forgotten=self._is_asked_for, task=task)
        return [ClipTask(clip, work, content, attempts.get(clip.clip_id, ())) for clip, content, work in works]

    def _work_for(self, clip: Clip, content: Fingerprint, done: dict[str, Any] | None) -> Work:
        paths = self.paths.clip(clip.clip_id)
        if paths.result.exists() and _is_current(paths, clip, content, done):
            undrawn = to_draw(self.config, clip, paths)
            return Work.OVERLAY if undrawn else Work.NOTHING
        failure = read_failure(paths)
        if failure and content.looks_like(failure.get("content", {})) and not self._is_to_retry(clip, failure):
            return Work.FAILED_BEFORE
        return Work.ALL

    def _is_to_retry(self, clip: Clip, failure: dict[str, Any]) -> bool:
        at = failure.get("at", "")
        # What was cancelled has not failed: the same command takes it again by itself.
        return (failure["class"] == CANCELLED and at < self.planned_at) or self._is_asked_for(
            clip.clip_id, failure["class"], at
        )

    def _is_asked_for(self, clip_id: str, kind: str, at: str) -> bool:
        """Whether `retry` means what ended so; nothing that has failed since the run was planned."""
        return at < self.planned_at and bool({clip_id, kind, "all"} & set(self.config.retry))


@dataclass(frozen=True)
class Plan:
    """One run: its clips, its folder, and what an earlier run of the same command left there."""

    config: RunConfig
    paths: RunPaths
    dataset: Dataset
    clips: tuple[Clip, ...]
    """Sorted by id; all have prompts."""
    without_prompt: tuple[str, ...]
    """Clips of the dataset that no prompt speaks of."""
    planned_at: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat())

    @property
    def context(self) -> RunContext:
        return RunContext(self.config, self.paths, self.planned_at)

    @cached_property
    def contents(self) -> dict[str, Fingerprint]:
        return {clip.clip_id: Fingerprint.of(clip) for clip in self.clips}

    @cached_property
    def previous(self) -> dict[str, Any]:
        """The run.json that is there already; empty without one."""
        return read_run_json(self.paths) if self.paths.run_json.exists() else {}

    @cached_property
    def sizes(self) -> dict[str, ClipSize]:
        """What headers say of the clips; reads those that run.json does not know yet."""
        return find_sizes(self.clips, self.contents, self.previous.get("clips", {}))

    @cached_property
    def costs(self) -> dict[str, float]:
        """What each clip takes, in frames × pixels × objects."""
        return estimate_costs(self.clips, self.contents, self.sizes, self.config.frame_interval)

    @cached_property
    def own(self) -> tuple[Clip, ...]:
        """The clips of this command: all of them, or those of its shard."""
        shard = self.config.shard
        if shard is None:
            return self.clips
        # Over all clips, finished or not, so that every shard's command comes to the same division.
        chosen = set(pack(self.costs, shard.count)[shard.number - 1])
        return tuple(clip for clip in self.clips if clip.clip_id in chosen)

    @property
    def listed(self) -> dict[str, Any]:
        """What run.json says of every clip: this command's, and those that earlier ones left there."""
        sizes = self.__dict__.get("sizes", {})  # those alone that something has asked for
        earlier = self.previous.get("clips", {})
        own = {}
        for clip_id, content in self.contents.items():
            size = sizes.get(clip_id)
            known = earlier.get(clip_id, {})
            if size is None and "num_frames" in known and content.has_same_source(known):
                size = size_from_json(known)
            own[clip_id] = content.as_json() | (size_as_json(size) if size else {})
        return dict(sorted((earlier | own).items()))

    def work(self) -> list[ClipTask]:
        """What every clip of this command still needs."""
        return self.context.sort_out((clip, self.contents[clip.clip_id]) for clip in self.own)

    def write(self, command: Sequence[str] = ()) -> None:
        """Write run.json; clips of earlier commands with the same settings stay listed.

        Args:
            command: the command line that people can say again, program and all.
        Raises:
            WriteError: the run folder cannot be written.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        run = {
            "schema": SCHEMA,
            "created": self.previous.get("created", now),
            "updated": now,
            "command": list(command),
            "config_hash": self.config.hash,
            "choices": self.config.choices(),
            "config": self.config.as_composed(),
            "versions": versions(),
            "clips": self.listed,
        }
        write_run_json(self.paths, run)


def make_plan(config: RunConfig, root: Path | None = None) -> Plan:
    """List the clips a command means; nothing is started and no video is opened.

    Args:
        config: checked.
        root: the run folder; None: the configuration's own.
    Raises:
        ConfigError, DatasetError: the dataset, the manifest or an earlier run in the folder forbids it.
    """
    dataset: Dataset = config.dataset.build()
    clips = dataset.clips()
    check_clip_ids(clips)
    chosen = select_clips(clips, **config.selection.model_dump())
    prompted = tuple(clip for clip in chosen if clip.prompts)
    if not prompted:
        raise ConfigError(
            f"none of the {len(chosen)} chosen clips (of {len(clips)} in the dataset) has a prompt; "
            f"check dataset.include, dataset.exclude and the manifest"
        )
    without = tuple(clip.clip_id for clip in chosen if not clip.prompts)
    plan = Plan(config, RunPaths(root or config.run_folder), dataset, prompted, without)
    _refuse_foreign_results(plan)
    _refuse_unknown_retries(plan)
    return plan


def to_draw(config: RunConfig, clip: Clip, paths: ClipPaths) -> list[str]:
    """Which of the wanted drawings of a clip are not there, or are not as they are wanted now."""
    output = config.output
    missing = ["overlay"] if output.overlay and not config.overlay.matches(paths.overlay) else []
    if output.pictures and any(prompt.is_visual for prompt in clip.prompts):
        missing += [] if any(paths.pictures.glob("*.png")) else ["pictures"]
    # Last: the report takes in the overlay.
    return missing + (["report"] if output.report and (missing or not is_reported(paths)) else [])


def _is_current(paths: ClipPaths, clip: Clip, content: Fingerprint, done: dict[str, Any] | None) -> bool:
    """Whether a clip's file was made of what is there now: by size and time, and where these differ by SHA-256."""
    if done is not None and content.looks_like(done["content"]):
        return True
    try:
        result = load(paths.result, masks=False)
        same_prompts = (
            content.prompts_sha256 == done["content"]["prompts_sha256"]
            if done is not None
            else [item for prompts in result.object_prompts for item in prompts] == prompts_as_json(clip.prompts)
        )
        return same_prompts and result.attributes["source_sha256"] == sha256_of(clip.source)
    except (ResultError, OSError):
        return False


def _refuse_foreign_results(plan: Plan) -> None:
    """Results of another video with the same id would be overwritten, which the user cannot have meant."""
    known = plan.previous.get("clips", {})
    for clip_id, content in plan.contents.items():
        other = known.get(clip_id)
        if other is None or other["source"] == content.source or content.has_same_source(other):
            continue
        source, result = Path(other["source"]), plan.paths.clip(clip_id).result
        is_same = (
            content.size == other["size"] and source.exists() and sha256_of(source) == sha256_of(Path(content.source))
        )
        if source.exists() and result.exists() and not is_same:
            raise ConfigError(
                f"{plan.paths.root} holds results of {other['source']}, which is another video than {content.source} "
                f"with the same clip id {clip_id!r}; keep them apart with output.root=FOLDER"
            )


def _refuse_unknown_retries(plan: Plan) -> None:
    failed = (
        {clip.clip_id: read_failure(plan.paths.clip(clip.clip_id)) for clip in plan.clips} if plan.config.retry else {}
    )
    known = {"all"} | set(failed) | {failure["class"] for failure in failed.values() if failure}
    unknown = sorted(set(plan.config.retry) - known)
    if unknown:
        classes = sorted({failure["class"] for failure in failed.values() if failure})
        raise ConfigError(
            f"retry: {', '.join(unknown)} is neither a clip id nor a class of failure here; "
            f"the failed clips have the classes: {', '.join(classes) or '(none failed)'}"
        )
