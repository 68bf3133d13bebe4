"""The plan of a run: the clips that a command selects, and what each of them still needs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from aot.config import RunConfig
from aot.datasets.base import Dataset, read_clips, select_clips, skipped_paths, unusable_clips
from aot.decoding.size import ClipSize
from aot.errors import ConfigError, ResultError
from aot.launching.costs import estimate_costs, find_sizes, recorded_sizes, size_as_json
from aot.launching.shards import pack
from aot.manifest.serialize import prompts_as_json
from aot.paths import ClipPaths, RunPaths
from aot.retry import Attempt
from aot.runs.failure import CANCELLED, read_failure
from aot.runs.file_states import FileStates, state_of
from aot.runs.fingerprint import Fingerprint
from aot.runs.history import History, history_so_far
from aot.runs.ledger import Ledger, last_computed, last_states, read_events
from aot.runs.ledger_files import LedgerFile, ledgers_of_task
from aot.runs.quarantine import find_damaged
from aot.runs.run_json import SCHEMA, read_run_json, versions, write_run_json
from aot.runs.task import ClipTask, Work
from aot.system.files import names_below, write_errors
from aot.system.hashing import sha256_of
from aot.system.nearest import suggestion
from aot.system.os_errors import os_problem
from aot.system.processes import host
from aot.system.text import counted, first_names
from aot.types import Clip, ClipResult, MaskFile
from aot.writing.reader import load

_MAX_REASONS = 5


@dataclass(frozen=True)
class RunContext:
    """What is the same for all clips of a run, on every machine."""

    config: RunConfig
    paths: RunPaths

    def tasks_for(
        self,
        clips: Iterable[tuple[Clip, Fingerprint]],
        *,
        scheduler_task: str | None = None,
        retry: Collection[str] = (),
        redo: Collection[str] = (),
        files: Sequence[LedgerFile] | None = None,
        earlier: Mapping[str, Sequence[Attempt]] | None = None,
    ) -> list[ClipTask]:
        """What every clip still needs, according to the files in the run folder.

        Args:
            clips: with the fingerprints they had when they were planned.
            scheduler_task: see `history_so_far`.
            retry: clip ids and error classes of failed clips, and of failed attempts, that are retried; "all": all.
            redo: ids of finished clips that are computed again; "all": all.
            files: the ledgers that have all events of these clips since they were planned; None: all ledgers.
            earlier: clip id → failed attempts before those events.
        """
        clips = list(clips)
        computed = cache(partial(last_computed, self.paths))
        done, drawn, redo_requests = last_states(self.paths, files=files)
        states = FileStates(self.paths, clips)
        damaged = find_damaged(self.paths, done, [clip.clip_id for clip, _ in clips], states)
        tasks = [
            ClipTask(clip, Work.ALL, own, is_damaged=True)
            if clip.clip_id in damaged
            else self._task_for(
                clip,
                own,
                states,
                done.get(clip.clip_id),
                drawn.get(clip.clip_id),
                redo_requests.get(clip.clip_id),
                computed,
                retry,
                redo,
            )
            for clip, own in clips
        ]
        unfinished = {task.clip.clip_id: task.fingerprint.digest for task in tasks if task.work is Work.ALL}
        if not unfinished:
            return tasks
        history = history_so_far(self.paths, unfinished, scheduler_task=scheduler_task, files=files, earlier=earlier)
        return [_with_attempts(task, history, retry) if task.work is Work.ALL else task for task in tasks]

    def tasks_since(
        self, planned: Sequence[ClipTask], scheduler_task: str, *, is_restarted: bool = False
    ) -> list[ClipTask]:
        """What clips still need that were planned earlier, by another process.

        A run may have thousands of ledgers. Only those of earlier starts of the same task are read; all of them only if
        another worker has meanwhile done or failed some of these clips.

        Args:
            planned: the clips as they were planned.
            scheduler_task: the scheduler's task of the caller, see `history_so_far`.
            is_restarted: whether the task has been started before.
        """
        files = ledgers_of_task(self.paths, scheduler_task)
        touched = {event["clip_id"] for event in read_events(self.paths, files=files)} if files else set()
        needs_all = is_restarted and not files  # they may be part of a batch
        needs_all |= any(
            task.work is not Work.ALL if task.clip.clip_id in touched else self.has_changed(task) for task in planned
        )
        clips = [(task.clip, task.fingerprint) for task in planned if needs_all or task.clip.clip_id in touched]
        if needs_all:
            return self.tasks_for(clips, scheduler_task=scheduler_task)
        earlier = {task.clip.clip_id: task.attempts for task in planned}
        changed = {task.clip.clip_id for task in planned if self.has_changed(task)}
        again = {
            task.clip.clip_id: task
            for task in self.tasks_for(
                [each for each in clips if each[0].clip_id in changed],
                scheduler_task=scheduler_task, files=files, earlier=earlier,
            )
        }  # fmt: skip
        # A result that has not changed since is still the one that is to be replaced.
        digests = {
            task.clip.clip_id: task.fingerprint.digest for task in planned if task.clip.clip_id in touched - changed
        }
        history = history_so_far(self.paths, digests, scheduler_task=scheduler_task, files=files, earlier=earlier)
        return [
            again.get(task.clip.clip_id)
            or (_with_attempts(task, history, ()) if task.clip.clip_id in digests else task)
            for task in planned
        ]

    def has_changed(self, task: ClipTask) -> bool:
        """Whether a result or a failure of a clip has been written since it was planned."""
        paths = self.paths.clip(task.clip.clip_id)
        return state_of(paths.result) != task.result_state or paths.failure.exists()

    def _task_for(
        self,
        clip: Clip,
        fingerprint: Fingerprint,
        states: FileStates,
        done: dict[str, Any] | None,
        drawn: dict[str, Any] | None,
        redo_request: dict[str, Any] | None,
        computed: Callable[[], Collection[str]],
        retry: Collection[str],
        redo: Collection[str],
    ) -> ClipTask:
        """The task of a clip whose result is not damaged, without its attempts.

        Args:
            clip, fingerprint: as they are now.
            states: of the files of all clips.
            done: the latest record of a result; None: there is none.
            drawn: the latest record of the end of the clip, with the style of its overlay; None: there is none.
            redo_request: the latest request to compute the clip again although it is finished; None: there is none.
            computed: the ids of the clips that the ledgers know to have been computed; takes time.
            retry, redo: see `tasks_for`.
        """
        paths = self.paths.clip(clip.clip_id)
        after = done["at"] if done else ""
        state = states.result(clip.clip_id)
        if state is not None:
            # A worker may have been stopped after it replaced the result and before it recorded it.
            record = done if done is not None and done["file_bytes"] in (None, state[0]) else None
            is_outdated = redo_request is not None and (record is None or record["at"] < redo_request["at"])
            if is_outdated or {clip.clip_id, "all"} & set(redo):
                after = max(after, redo_request["at"] if redo_request else "")
                return ClipTask(clip, Work.ALL, fingerprint, after=after, result_state=state, is_redone=not is_outdated)
            if _is_current(paths, clip, fingerprint, record):
                # Of ledgers that were deleted, nothing comes back.
                is_recorded = record is not None or clip.clip_id not in computed()
                is_scored = is_recorded and _is_scored(record)
                style = drawn["overlay"] if done and drawn and drawn["at"] > done["at"] else None
                is_drawn = is_scored and not missing_drawings(self.config, clip, paths, states, style)
                work = Work.NOTHING if is_drawn else Work.OVERLAY
                is_partial = bool(record and record["is_partial"])
                is_renamed = record is not None and not fingerprint.has_same_names(record["content"])
                work = Work.OVERLAY if is_renamed else work
                return ClipTask(
                    clip, work, fingerprint, is_recorded=is_recorded, is_scored=is_scored, is_partial=is_partial,
                    after=after, result_state=state, is_renamed=is_renamed,
                )  # fmt: skip
        failure = read_failure(paths)
        if failure and fingerprint.matches(failure.get("content", {})):
            is_retried = _is_named(retry, clip.clip_id, failure["class"])
            work = Work.ALL if is_retried else Work.FAILED_BEFORE
            return ClipTask(clip, work, fingerprint, is_retried=is_retried, after=after, result_state=state)
        is_replacing = bool(state and done and not fingerprint.has_same_prompts(done["content"]))
        return ClipTask(clip, Work.ALL, fingerprint, after=after, result_state=state, is_replacing=is_replacing)


@dataclass(frozen=True)
class Plan:
    """One run: its clips, its folder, and what earlier runs of the same command left there."""

    config: RunConfig
    paths: RunPaths
    dataset: Dataset
    clips: tuple[Clip, ...]
    """Sorted by id; all have prompts."""
    without_prompt: tuple[str, ...]
    """Ids of the selected clips that have no prompt."""
    unusable: Mapping[str, str]
    """Selected clip → why it cannot be processed, according to its dataset."""

    @property
    def skipped(self) -> list[str]:
        """Lines that name the selected clips that cannot be processed, and those without a prompt."""
        lines = []
        if self.unusable:
            lines.append(f"skipped because they cannot be used: {counted(len(self.unusable), 'clip')}")
            lines += [f"  {self.unusable[clip_id]}" for clip_id in list(self.unusable)[:_MAX_REASONS]]
            lines += [f"  … and {len(self.unusable) - _MAX_REASONS} more"] if len(self.unusable) > _MAX_REASONS else []
        if paths := skipped_paths(self.dataset):
            lines.append(f"skipped because they cannot be read: {first_names(paths, at_most=_MAX_REASONS)}")
        if self.without_prompt:
            clips = counted(len(self.without_prompt), "clip")
            lines.append(f"skipped without a prompt: {clips} ({first_names(self.without_prompt)})")
        return lines

    @property
    def context(self) -> RunContext:
        return RunContext(self.config, self.paths)

    @cached_property
    def fingerprints(self) -> dict[str, Fingerprint]:
        """Clip id → fingerprint of its source and prompts; of the clips of other shards, as run.json records it."""
        if self.config.shard is None:
            return self._listed
        return self._listed | {clip.clip_id: Fingerprint.of(clip) for clip in self.shard_clips}

    @cached_property
    def _listed(self) -> dict[str, Fingerprint]:
        """The fingerprints by which clips are divided: a command for a shard does not look at all sources again."""
        known = self.previous.get("clips", {}) if self.config.shard is not None else {}
        return {
            clip.clip_id: Fingerprint.from_json(known[clip.clip_id]) if clip.clip_id in known else Fingerprint.of(clip)
            for clip in self.clips
        }

    @cached_property
    def previous(self) -> dict[str, Any]:
        """The existing run.json; empty if there is none."""
        return read_run_json(self.paths) if self.paths.run_json.exists() else {}

    @cached_property
    def recorded_sizes(self) -> dict[str, ClipSize]:
        """Clip id → size, of the clips whose size the existing run.json records."""
        return recorded_sizes(self.clips, self._listed, self.previous.get("clips", {}))

    @cached_property
    def sizes(self) -> dict[str, ClipSize]:
        """Clip id → size; opens the clips whose size the existing run.json does not record."""
        return find_sizes(self.clips, self._listed, self.recorded_sizes)

    @cached_property
    def costs(self) -> dict[str, float]:
        """Clip id → estimated cost, in frames × pixels × objects."""
        config = self.config
        return estimate_costs(self.clips, self._listed, self.sizes, config.frame_interval, config.sample_fps)

    @cached_property
    def shard_clips(self) -> tuple[Clip, ...]:
        """The clips that this command processes: those of its shard, or all."""
        shard = self.config.shard
        if shard is None:
            return self.clips
        # Finished clips are included, so that the commands of all shards compute the same division at any time.
        chosen = set(pack(self.costs, shard.count)[shard.number - 1])
        return tuple(clip for clip in self.clips if clip.clip_id in chosen)

    @property
    def all_clip_ids(self) -> list[str]:
        """Ids of this command's clips and of those that earlier commands with the same settings listed, sorted."""
        return sorted(self.previous.get("clips", {}).keys() | self.fingerprints.keys())

    @property
    def all_without_prompt(self) -> list[str]:
        """Ids of the clips without a prompt, of this command and of earlier ones with the same settings, sorted."""
        return sorted({*self.previous.get("no_prompt", ()), *self.without_prompt} - set(self.all_clip_ids))

    def tasks(self, *, retries: bool = False) -> list[ClipTask]:
        """What every clip of this command still needs.

        Args:
            retries: whether clips that the command is to retry, or to compute again, need it, too; not any more once
                `request_retries` has been called, so that clips that fail again are not retried by the same command.
        """
        clips = ((clip, self.fingerprints[clip.clip_id]) for clip in self.shard_clips)
        # A cancelled clip has not failed: the same command processes it again.
        if not retries:
            return self.context.tasks_for(clips)
        return self.context.tasks_for(clips, retry={CANCELLED, *self.config.retry}, redo=self.config.redo)

    def request_retries(self, tasks: Iterable[ClipTask]) -> None:
        """Record which clips are retried or redone, and remove their failures, so that all workers process them.

        Raises:
            WriteError: the run folder cannot be written.
        """
        ledger = Ledger(self.paths, f"{host()}-{os.getpid()}")
        for task in tasks:
            if task.is_redone:
                ledger.follow(task.after)
                ledger.append("redo requested", clip_id=task.clip.clip_id)
            if task.is_retried:
                ledger.follow(task.after)
                ledger.append("retry requested", clip_id=task.clip.clip_id)
                _remove_failure(self.paths.clip(task.clip.clip_id))

    def remove_outdated_failures(self) -> None:
        """Remove the failures of clips of which nothing is left to do, so that they are not reported for ever.

        A second worker of a clip, such as a task that SLURM runs twice, records one when it fails last.

        Raises:
            WriteError: the run folder cannot be written.
        """
        failed = names_below(self.paths.failures, ".json")
        clips = [clip for clip in self.shard_clips if clip.clip_id in failed]
        finished = [clip for clip in clips if self.paths.clip(clip.clip_id).result.exists()]
        if not finished:
            return
        for task in self.context.tasks_for((clip, self.fingerprints[clip.clip_id]) for clip in finished):
            if task.work is Work.NOTHING:
                _remove_failure(self.paths.clip(task.clip.clip_id))

    def write(self, command: Sequence[str] = (), *, with_sizes: bool) -> None:
        """Write run.json; clips that earlier commands with the same settings listed stay listed.

        The command for a shard leaves it as it is where all clips are listed as they are now.

        Args:
            command: the command line, with the program, as it can be run again.
            with_sizes: whether to record the size of every clip, which opens the clips; without, only the sizes that
                are recorded already are kept.
        Raises:
            WriteError: the run folder cannot be written.
        """
        records = self._records(self.sizes if with_sizes else self.recorded_sizes)
        if self.config.shard is not None and records == self.previous.get("clips"):
            return  # one of many commands with the same clips
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
            "no_prompt": self.all_without_prompt,
            "clips": records,
        }
        write_run_json(self.paths, run)

    def _records(self, sizes: dict[str, ClipSize]) -> dict[str, Any]:
        """Clip id → record for run.json, of `all_clip_ids`."""
        records = dict(self.previous.get("clips", {}))
        for clip_id, fingerprint in self.fingerprints.items():
            size = sizes.get(clip_id)
            records[clip_id] = fingerprint.as_json() | (size_as_json(size) if size else {})
        return dict(sorted(records.items()))


def make_plan(config: RunConfig, root: Path) -> Plan:
    """Select the clips of a command; nothing is started and no video is opened.

    Args:
        config: checked.
        root: the run folder.
    Raises:
        ConfigError, DatasetError: the dataset, the manifest or an earlier run in the folder does not allow the run.
    """
    dataset: Dataset = config.dataset.build()
    clips = read_clips(dataset)
    chosen = select_clips(clips, **config.selection.model_dump())
    prompted = tuple(clip for clip in chosen if clip.prompts)
    reasons = unusable_clips(dataset)
    unusable = {clip.clip_id: reasons[clip.clip_id] for clip in chosen if clip.clip_id in reasons}
    if not prompted and unusable:
        raise ConfigError("\n".join(list(unusable.values())[:_MAX_REASONS]))
    if not prompted:
        raise ConfigError(
            f"no prompt for any of {counted(len(chosen), 'chosen clip')} (of {len(clips)} in the dataset); "
            f"check dataset.include, dataset.exclude and the manifest, or the annotations from which prompts are made"
        )
    without = tuple(clip.clip_id for clip in chosen if not clip.prompts and clip.clip_id not in unusable)
    plan = Plan(config, RunPaths(root), dataset, prompted, without, unusable)
    _refuse_words_without_detector(plan)
    _refuse_unreadable_folder(plan.paths)
    _refuse_results_of_other_videos(plan)
    _refuse_unknown_retries(plan)
    _refuse_unknown_redos(plan)
    return plan


def missing_drawings(
    config: RunConfig,
    clip: Clip,
    paths: ClipPaths,
    states: FileStates | None = None,
    drawn_style: str | None = None,
) -> list[str]:
    """Names of the requested drawings of a clip that do not exist, or were drawn with other settings.

    Args:
        config: of the run.
        clip: its prompts.
        paths: of the clip.
        states: of its files; None: they are looked at now.
        drawn_style: mark of the style in which its overlay was drawn, as recorded; None: the video has it.
    """
    output, missing, clip_id = config.output, [], clip.clip_id
    states = states or FileStates(RunPaths(paths.root), ())
    if output.overlay:
        is_drawn = drawn_style == config.overlay.mark and states.has_overlay(clip_id)
        missing += [] if is_drawn or config.overlay.matches(paths.overlay) else ["overlay"]
    if output.pictures and any(prompt.is_visual or prompt.words for prompt in clip.prompts):
        missing += [] if any(paths.pictures.glob("*.png")) else ["pictures"]
    # The report comes last, because it includes the overlay.
    return missing + (["report"] if output.report and (missing or not states.is_reported(clip_id)) else [])


def _remove_failure(paths: ClipPaths) -> None:
    with write_errors(paths.failure):
        paths.failure.unlink(missing_ok=True)


def _with_attempts(task: ClipTask, history: History, retry: Collection[str]) -> ClipTask:
    """A task with the attempts that count; a requested retry starts from the beginning."""
    clip_id = task.clip.clip_id
    attempts = tuple(history.series.get(clip_id, ()))
    is_retried = task.is_retried or any(_is_named(retry, clip_id, attempt.kind) for attempt in attempts)
    after = max(task.after, history.latest.get(clip_id, ""))
    return replace(task, attempts=() if is_retried else attempts, is_retried=is_retried, after=after)


def _is_named(retry: Collection[str], clip_id: str, kind: str | None) -> bool:
    return bool({clip_id, kind, "all"} & set(retry))


def _is_scored(done: dict[str, Any] | None) -> bool:
    """Whether the SHA-256 of a result is recorded, or cannot be: a ledger that was deleted does not come back."""
    return done is None or done["file_sha256"] is not None


def _is_current(paths: ClipPaths, clip: Clip, fingerprint: Fingerprint, done: dict[str, Any] | None) -> bool:
    """Whether a result was computed from the current source and prompts.

    Size and modification time are compared first; where they differ, the SHA-256 of the source decides.
    """
    if done is not None and fingerprint.matches(done["content"]):
        return True
    try:
        result = load(paths.result, masks=False)
        same_prompts = done is not None and fingerprint.has_same_prompts(done["content"])
        if not same_prompts and (done is None or _lacks_unnamed(done, clip)):
            same_prompts = _unnamed(_given_prompts(result)) == _unnamed(prompts_as_json(clip.prompts))
        return same_prompts and result.attributes["source_sha256"] == sha256_of(clip.source)
    except (ResultError, OSError):
        return False


def _lacks_unnamed(done: dict[str, Any], clip: Clip) -> bool:
    """Whether a record of an earlier version does not show if only names have changed, but the result does.

    A result has the path of a mask file, not its content.
    """
    return not done["content"].get("unnamed_sha256") and not any(isinstance(p.mask, MaskFile) for p in clip.prompts)


def _unnamed(prompts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prompts without the names of the objects, except those that a detector finds, see `prompts_digest`."""
    return [{key: value for key, value in prompt.items() if key != "name" or "text" in prompt} for prompt in prompts]


def _given_prompts(result: ClipResult) -> list[dict[str, Any]]:
    """The prompts of a result as they were given, before their words were looked up."""
    if "prompts" in result.attributes:
        return list(json.loads(result.attributes["prompts"]))
    return [item for prompts in result.object_prompts for item in prompts]


def _refuse_words_without_detector(plan: Plan) -> None:
    """Raise if prompts have words, and the command has no detector that could find them."""
    if plan.config.has_detector:
        return
    found = {clip.clip_id: clip.words for clip in plan.clips if clip.words}
    if not found:
        return
    clip_id, (prompt, *_) = next(iter(found.items()))
    text = "" if prompt.words is None else prompt.words.text
    clips = f" ({counted(len(found), 'clip')} with text)" if len(found) > 1 else ""
    raise ConfigError(
        f'clip {clip_id!r}, object {prompt.object_id}: "{text}" is to be found by a detector, but there is none'
        f"{clips}; add detector=grounding_dino, or draw boxes with `python -m aot.prompt`"
    )


def _refuse_unreadable_folder(paths: RunPaths) -> None:
    """Raise if it cannot be determined what the run folder contains."""
    try:
        paths.run_json.exists()
    except OSError as exc:
        raise ConfigError(
            f"{paths.root} cannot be read: {os_problem(exc)}; or choose another folder with output.root=FOLDER"
        ) from exc


def _refuse_results_of_other_videos(plan: Plan) -> None:
    """Raise if the folder has results of another video with the same clip id: the run would overwrite them."""
    known = plan.previous.get("clips", {})
    for clip_id, fingerprint in plan.fingerprints.items():
        other = known.get(clip_id)
        if other is None or other["source"] == fingerprint.source or fingerprint.has_same_source(other):
            continue
        source, result = Path(other["source"]), plan.paths.clip(clip_id).result
        is_same = (
            fingerprint.size == other["size"]
            and source.exists()
            and sha256_of(source) == sha256_of(Path(fingerprint.source))
        )
        if source.exists() and result.exists() and not is_same:
            raise ConfigError(
                f"{plan.paths.root} holds results of {other['source']}, which is another video than "
                f"{fingerprint.source} with the same clip id {clip_id!r}; write to another folder with "
                f"output.root=FOLDER"
            )


def _refuse_unknown_redos(plan: Plan) -> None:
    """Raise if `redo` names something that is not a clip id."""
    known = ["all", *(clip.clip_id for clip in plan.clips)]
    unknown = sorted(set(plan.config.redo) - set(known))
    errors = [f"redo: {name} is not a clip id of this run; {suggestion(name, known)}" for name in unknown]
    if errors:
        raise ConfigError("\n".join(errors))


def _refuse_unknown_retries(plan: Plan) -> None:
    """Raise if `retry` names something that is neither a clip id nor the error class of a failed clip."""
    if not plan.config.retry:
        return
    failures = {clip.clip_id: read_failure(plan.paths.clip(clip.clip_id)) for clip in plan.clips}
    by_class: dict[str, list[str]] = {}
    for clip_id, failure in failures.items():
        if failure:
            by_class.setdefault(failure["class"], []).append(clip_id)
    known = ["all", *sorted(by_class), *failures]
    failed = "; ".join(f"{name} ({first_names(by_class[name])})" for name in sorted(by_class))
    otherwise = f"expected all, an error class or a clip id; failed clips by class: {failed or 'none'}"
    errors = [
        f"retry: {name} is neither a clip id nor an error class of this run; "
        f"{suggestion(name, known, otherwise=otherwise)}"
        for name in sorted(set(plan.config.retry) - set(known))
    ]
    if errors:
        raise ConfigError("\n".join(errors))
