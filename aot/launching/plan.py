"""The plan: which clips a command means, and which of them are still to be done."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from aot.clip_report import is_reported
from aot.config import RunConfig
from aot.datasets.base import Dataset, check_clip_ids, select_clips
from aot.errors import ConfigError, WriteError
from aot.launching.content import Content, sha256_of
from aot.launching.ledger import last_done
from aot.paths import ClipPaths, RunPaths, write_text
from aot.prompts import prompts_as_json
from aot.types import Clip
from aot.writing.hdf5 import load

_REPORTED_PACKAGES = (
    "auto-objects-tracker", "torch", "torchvision", "rf-sam-2", "numpy", "opencv-python-headless", "av",
    "h5py", "hydra-core",
)  # fmt: skip


class Work(Enum):
    """What is left to do for a clip."""

    ALL = "all"
    OVERLAY = "overlay"
    NOTHING = "nothing"
    FAILED_BEFORE = "failed before"


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

    @cached_property
    def contents(self) -> dict[str, Content]:
        return {clip.clip_id: Content.of(clip) for clip in self.clips}

    @cached_property
    def previous(self) -> dict[str, Any]:
        """The run.json that is there already; empty without one."""
        return read_run_json(self.paths) if self.paths.run_json.exists() else {}

    @cached_property
    def listed(self) -> dict[str, Any]:
        """What run.json says of every clip: this command's, and those that earlier ones left there."""
        own = {clip_id: content.as_json() for clip_id, content in self.contents.items()}
        return dict(sorted((self.previous.get("clips", {}) | own).items()))

    def work(self) -> list[tuple[Clip, Work]]:
        """What every clip still needs, judged by what lies on the disk."""
        done = last_done(self.paths)
        return [(clip, self._work_for(clip, done.get(clip.clip_id))) for clip in self.clips]

    def _work_for(self, clip: Clip, done: dict[str, Any] | None) -> Work:
        paths, content = self.paths.clip(clip.clip_id), self.contents[clip.clip_id]
        if paths.result.exists() and _is_current(paths, clip, content, done):
            undrawn = to_draw(self.config, clip, paths)
            return Work.OVERLAY if undrawn else Work.NOTHING
        failure = read_failure(paths)
        if failure and content.looks_like(failure.get("content", {})) and not self._is_to_retry(clip, failure):
            return Work.FAILED_BEFORE
        return Work.ALL

    def _is_to_retry(self, clip: Clip, failure: dict[str, Any]) -> bool:
        return bool({clip.clip_id, failure["class"], "all"} & set(self.config.retry))

    def write(self) -> None:
        """Write run.json; clips of earlier commands with the same settings stay listed.

        Raises:
            WriteError: the run folder cannot be written.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        run = {
            "schema": "aot-run/1",
            "created": self.previous.get("created", now),
            "updated": now,
            "command": sys.argv,
            "config_hash": self.config.hash,
            "choices": self.config.choices(),
            "config": self.config.as_composed(),
            "versions": versions(),
            "clips": self.listed,
        }
        write_text(self.paths.run_json, json.dumps(run, indent=1))


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
    missing = ["overlay"] if output.overlay and not config.overlay.is_that_of(paths.overlay) else []
    if output.pictures and any(prompt.is_visual for prompt in clip.prompts):
        missing += [] if any(paths.pictures.glob("*.png")) else ["pictures"]
    # Last: the report takes in the overlay.
    return missing + (["report"] if output.report and (missing or not is_reported(paths)) else [])


def read_run_json(paths: RunPaths) -> dict[str, Any]:
    """Read a run folder's run.json.

    Raises:
        ConfigError: there is none, or it is not one.
    """
    try:
        run: dict[str, Any] = json.loads(paths.run_json.read_text(encoding="utf-8"))
        if not isinstance(run.get("clips"), dict):
            raise ValueError("it lists no clips")
    except (OSError, ValueError, AttributeError) as exc:
        raise ConfigError(
            f"{paths.root} is not a run folder ({exc}); expected one with a run.json, such as outputs/davis/grabcut-…"
        ) from exc
    return run


def read_failure(paths: ClipPaths) -> dict[str, Any] | None:
    """The record of a clip's failure; None without one (or with one that cannot be read: it is then tried again)."""
    try:
        failure: dict[str, Any] = json.loads(paths.failure.read_text(encoding="utf-8"))
        return failure if isinstance(failure, dict) and "class" in failure else None
    except (OSError, ValueError):
        return None


def versions() -> dict[str, str]:
    """Versions of what decides results, Python included."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _is_current(paths: ClipPaths, clip: Clip, content: Content, done: dict[str, Any] | None) -> bool:
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
    except (WriteError, OSError):
        return False


def _refuse_foreign_results(plan: Plan) -> None:
    """Results of another video with the same id would be overwritten, which the user cannot have meant."""
    known = plan.previous.get("clips", {})
    for clip_id, content in plan.contents.items():
        other = known.get(clip_id)
        if other is None or other["source"] == content.source or content.size == other["size"]:
            continue
        if Path(other["source"]).exists() and plan.paths.clip(clip_id).result.exists():
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
