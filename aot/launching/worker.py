"""The worker: processes clips one after another, retries those that run out of memory on the next rung of the ladder,
and records every failure of a clip without stopping the others."""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from aot.checkpoints import available_bytes
from aot.config import RunConfig
from aot.datasets.base import Dataset, read_ground_truth
from aot.drawing.clip import draw_clip, write_prompt_images
from aot.errors import AotError
from aot.evaluate.clip import evaluate_clip
from aot.launching.plan import RunContext, missing_drawings
from aot.launching.read_ahead import ReadAhead
from aot.paths import ClipPaths
from aot.pipeline import (
    NO_READING_AHEAD,
    ClipSummary,
    OnProgress,
    Parts,
    ReadingAhead,
    Settings,
    process_clip,
)
from aot.report.clip import report_clip
from aot.retry import CRASHED, Attempt, Rung, ladder, next_rung
from aot.runs.failure import record_failure
from aot.runs.ledger import Ledger
from aot.runs.run_json import versions
from aot.runs.taken_up import summary_of
from aot.runs.task import ClipTask, Work
from aot.system.devices import broken_cuda, release_memory
from aot.system.files import write_errors
from aot.system.hashing import sha256_of
from aot.system.os_errors import os_problem
from aot.system.processes import host
from aot.types import Clip
from aot.writing.reader import load
from aot.writing.rename import rename_objects

_log = logging.getLogger("aot.worker")

ProcessClip = Callable[[Clip, Parts, Settings, ClipPaths, OnProgress, ReadingAhead], ClipSummary]


class BrokenProcess(Exception):
    """This process cannot compute any more (its CUDA context is dead); another process can."""


@dataclass(frozen=True)
class FailedAttempt:
    """A failed attempt, without the exception, whose traceback would keep all arrays of the attempt alive."""

    attempt: Attempt
    stage: str | None
    traceback: str


class _LogFile(logging.FileHandler):
    """A log that ignores a full disk: the writers of results report it, with the clip's failure."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class Worker:
    """Builds the parts once and processes any number of clips with them.

    Args:
        run: what is the same for all clips.
        name: of its ledger and its log; None: made from host and process id.
        scheduler_task: the scheduler's id of the task that runs the worker; None: no scheduler.
        on_event: called with every event that it writes to its ledger.
        leaves_drawing: whether a clip is left as soon as its result is complete, and drawn as a task of its own.
        process: computes the result of a clip; replaced in tests, which compute nothing.
    """

    def __init__(
        self,
        run: RunContext,
        *,
        name: str | None = None,
        scheduler_task: str | None = None,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
        leaves_drawing: bool = False,
        process: ProcessClip = process_clip,
    ) -> None:
        name = name or f"{host()}-{os.getpid()}"
        self.name = name
        self._run = run
        self._leaves_drawing = leaves_drawing
        self._process_clip = process
        self._ladder = ladder(run.config.frame_interval, run.config.ladder.max_frame_interval)
        self._ledger = Ledger(run.paths, name, scheduler_task=scheduler_task, on_event=on_event)
        self._ahead = ReadAhead(self._ledger, self._ladder[0], run.config.sample_fps)
        self._parts: Parts | None = None
        self._dataset: Dataset | None = None
        self._is_written = False
        """Whether the current attempt has written its result."""
        self._provenance = {
            "config_yaml": yaml.safe_dump(run.config.as_composed(), sort_keys=False),
            "config_hash": run.config.hash,
            "versions": json.dumps(versions()),
        }
        self._ledger.require_run()
        run.paths.logs.mkdir(exist_ok=True)
        self._log_path = run.paths.log(name)
        self._handler = _LogFile(self._log_path, delay=True)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("aot").addHandler(self._handler)
        logging.getLogger("aot").setLevel(logging.INFO)

    def close(self) -> None:
        self._ahead.close()
        logging.getLogger("aot").removeHandler(self._handler)
        self._handler.close()

    def run(
        self,
        task: ClipTask,
        on_progress: OnProgress = lambda stage, fraction: None,
        following: ClipTask | None = None,
    ) -> None:
        """Do what a clip still needs; its result or failure is recorded in the run folder.

        Args:
            task: the clip.
            on_progress: called with the current stage and the fraction of it that is done.
            following: the clip to read ahead while this one is computed, because it is likely to be the next one.
        Raises:
            BrokenProcess: this process cannot compute any more; the clip can be retried in another one.
            RunDeleted: the run folder was deleted.
            WriteError: the failure could not be recorded.
            KeyboardInterrupt: or another BaseException; no part files are left.
        """
        self._ledger.require_run()
        self._ledger.follow(task.after)
        _log.info("%s: started (%s)", task.clip.clip_id, task.work.value)
        paths = self._run.paths.clip(task.clip.clip_id)
        if task.work is not Work.ALL:
            self._draw(task, paths, on_progress)
            return
        attempts = list(task.attempts)
        earlier_result = _mtime_ns(paths.result)
        last: FailedAttempt | None = None
        while (rung := next_rung(self._ladder, attempts)) is not None:
            ahead = self._reading_ahead(task, following) if not attempts else NO_READING_AHEAD
            outcome = self._try(task, paths, rung, tuple(attempts), on_progress, ahead)
            if isinstance(outcome, ClipSummary):
                if not self._leaves_drawing:
                    is_partial = bool(outcome.object_errors)
                    self._draw(task.drawing(is_partial=is_partial, after=self._ledger.latest), paths, on_progress)
                return
            is_changed = _mtime_ns(paths.result) != earlier_result
            if is_changed and not self._is_written:  # another worker has finished the same clip
                self._ledger.append("ended", clip_id=task.clip.clip_id, state="done")
                return
            last = outcome
            attempts.append(last.attempt)
            self._ahead.drop()  # further attempts need its memory, and must not be confused with it
        self._record_failure(task, paths, attempts, last)

    def touch_ledger(self) -> None:
        """Show in the run folder that this process is alive.

        Raises:
            RunDeleted: the run folder was deleted.
        """
        self._ledger.touch()

    def record_interruption(self, task: ClipTask) -> None:
        """Record that the user stopped the clip; it does not count as an attempt."""
        self._ledger.append("interrupted", clip_id=task.clip.clip_id, reason="stopped by the user", is_counted=False)

    def _reading_ahead(self, task: ClipTask, following: ClipTask | None) -> ReadingAhead:
        def start(available_bytes: int) -> None:
            if following is None or self._parts is None:
                return
            if task.allows_reading_ahead and following.allows_reading_ahead:
                self._ahead.start(following, self._parts.decoder, available_bytes)

        return ReadingAhead(take=partial(self._ahead.take, task), start=start)

    def _try(
        self,
        task: ClipTask,
        paths: ClipPaths,
        rung: Rung,
        attempts: tuple[Attempt, ...],
        on_progress: OnProgress,
        ahead: ReadingAhead,
    ) -> ClipSummary | FailedAttempt:
        """One attempt at a clip, on one rung of the ladder."""
        self._is_written = False
        self._ledger.append("started", **task.start_fields(rung))
        try:
            return self._process(task, paths, rung, attempts, on_progress, ahead)
        except Exception as error:  # noqa: BLE001 (the run loop: a clip's failure must not stop the others)
            failed = _failed_attempt(error, rung)
        # Outside the handler: inside it, the traceback still holds the arrays of the attempt.
        release_memory()
        self._record_attempt(task, failed)
        return failed

    def _process(
        self,
        task: ClipTask,
        paths: ClipPaths,
        rung: Rung,
        attempts: tuple[Attempt, ...],
        on_progress: OnProgress,
        ahead: ReadingAhead,
    ) -> ClipSummary:
        config, clip = self._run.config, task.clip
        if self._parts is None:
            self._parts = Parts(
                config.decoder.build(), config.segmenter.build(), config.query_points.build(), config.tracker.build(),
                config.detector.build(),
            )  # fmt: skip
        settings = Settings.on(
            rung,
            frame_interval_requested=config.frame_interval,
            sample_fps=config.sample_fps,
            return_check=config.output.return_check,
            points=config.points,
            provenance=self._provenance,
            attempts=attempts,
            # The estimate is an upper bound, so the last rung is tried whatever is predicted.
            available_bytes=None if rung == self._ladder[-1] else partial(available_bytes, self._parts.tracker),
        )
        summary = self._process_clip(clip, self._parts, settings, paths, on_progress, ahead)
        self._is_written = True
        # Drawings of an earlier result must not remain beside the new one.
        _remove_drawings(paths)
        for object_id, message in summary.object_errors.items():
            _log.warning("%s: object %d failed: %s", clip.clip_id, object_id, message)
        # Before the event: after it, a drawer may record a failure of its own.
        paths.failure.unlink(missing_ok=True)
        self._record_result("done", task, paths, summary)
        return summary

    def _record_result(self, event: str, task: ClipTask, paths: ClipPaths, summary: ClipSummary) -> None:
        self._ledger.append(
            event,
            clip_id=task.clip.clip_id,
            content=task.fingerprint.as_json(),
            file_bytes=paths.result.stat().st_size,
            is_partial=bool(summary.object_errors),
            summary=asdict(summary),
        )

    def _draw(self, task: ClipTask, paths: ClipPaths, on_progress: OnProgress) -> None:
        """Score a clip whose result is complete, make its missing drawings, and record its end."""
        clip_id = task.clip.clip_id
        self._ledger.append("started", **task.start_fields(self._ladder[0]))
        seconds: dict[str, float] = {}
        failed, is_scored, is_partial = None, task.is_scored, task.is_partial
        try:
            if not task.is_recorded or task.is_renamed:
                result = load(paths.result, masks=False)
                # Names of objects that a detector has found are part of what was computed.
                is_renamed = not task.clip.words and result.object_name != task.clip.object_names
                if is_renamed:
                    on_progress("rename", 0.0)
                    rename_objects(paths.result, task.clip)
                    result = load(paths.result, masks=False)
                summary = summary_of(result)
                is_partial, is_scored = bool(summary.object_errors), is_scored and not is_renamed
                self._record_result("renamed" if task.is_renamed else "taken up", task, paths, summary)
            if not is_scored:
                with _timed(seconds, "score"):
                    on_progress("score", 0.0)
                    self._record_scores(task, paths)
                is_scored = True
            missing = missing_drawings(self._run.config, task.clip, paths)
            if missing:
                _remove(paths.report.data)  # it shows the other drawings
            for drawing in missing:
                self._ledger.require_run()
                with _timed(seconds, drawing):
                    on_progress(drawing, 0.0)
                    _make_drawing(drawing, task.clip, paths, self._run.config, seconds)
        except Exception as error:  # noqa: BLE001 (as above)
            failed = _failed_attempt(error, self._ladder[0])
        if failed is not None:
            self._record_attempt(task, failed)
            # Otherwise, another worker has drawn the clip meanwhile.
            if not is_scored or missing_drawings(self._run.config, task.clip, paths):
                self._record_failure(task, paths, [failed.attempt], failed)
                return
        paths.failure.unlink(missing_ok=True)
        state = "partial" if is_partial else "done"
        _log.info("%s: %s", clip_id, state)
        output, config = self._run.config.output, self._run.config
        style = {"overlay": config.overlay.mark} if output.overlay else {}
        self._ledger.append("ended", clip_id=clip_id, state=state, seconds=seconds, **style)

    def _record_scores(self, task: ClipTask, paths: ClipPaths) -> None:
        scores = self._score(task, paths) if self._run.config.output.evaluate else {}
        self._ledger.append("scored", clip_id=task.clip.clip_id, file_sha256=sha256_of(paths.result), scores=scores)

    def _score(self, task: ClipTask, paths: ClipPaths) -> dict[str, float | str | None]:
        """Scores against the ground truth, if there is any; an error in scoring does not fail the clip."""
        clip_id = task.clip.clip_id
        try:
            if self._dataset is None:
                self._dataset = self._run.config.dataset.build()
            truth = read_ground_truth(self._dataset, clip_id)
            if truth is None:
                return {}
            score = evaluate_clip(paths.result, truth)
        except Exception as error:  # noqa: BLE001 (the clip's result is complete, whatever its annotations are)
            _log.warning("%s: cannot be scored: %s", clip_id, str(error))
            return {"error": f"cannot be scored: {error}"}
        return dict(score.as_row())

    def _record_attempt(self, task: ClipTask, failed: FailedAttempt) -> None:
        """Record a failed attempt in the log and the ledger.

        Raises:
            BrokenProcess: the CUDA context is dead, so that no further attempt in this process can succeed.
        """
        clip_id, attempt = task.clip.clip_id, failed.attempt
        _log.error(
            "%s: rung %d failed in stage %s: %s\n%s", clip_id, attempt.rung.number, failed.stage, attempt.error,
            failed.traceback,
        )  # fmt: skip
        reason = broken_cuda()
        if reason is not None:
            broken = f"the CUDA context of the process is dead ({reason}) after: {attempt.error}"
            self._ledger.append("attempt failed", clip_id=clip_id, **{"class": CRASHED, "error": broken})
            raise BrokenProcess(broken)
        self._ledger.append("attempt failed", clip_id=clip_id, **{"class": attempt.kind, "error": attempt.error})

    def _record_failure(
        self, task: ClipTask, paths: ClipPaths, attempts: Sequence[Attempt], last: FailedAttempt | None
    ) -> None:
        record_failure(
            task,
            attempts,
            paths,
            self._ledger,
            frame_interval=self._run.config.frame_interval,
            log=self._log_path,
            stage=last.stage if last else None,
            traceback=last.traceback if last else "",
        )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Record the time of a stage."""
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 4)


def _remove_drawings(paths: ClipPaths) -> None:
    for drawing in (paths.report.data, paths.overlay, *paths.pictures.glob("*.png")):
        _remove(drawing)


def _remove(path: Path) -> None:
    with write_errors(path):
        path.unlink(missing_ok=True)


def _make_drawing(
    drawing: str, clip: Clip, paths: ClipPaths, config: RunConfig, earlier_seconds: Mapping[str, float]
) -> None:
    if drawing == "overlay":
        draw_clip(clip, paths, config.overlay)
    elif drawing == "pictures":
        write_prompt_images(clip, paths)
    else:
        report_clip(paths, earlier_seconds)


def _failed_attempt(error: Exception, rung: Rung) -> FailedAttempt:
    kind = error.kind if isinstance(error, AotError) else "unexpected"
    text = f"{error.filename or 'a file'}: {os_problem(error)}" if isinstance(error, OSError) else str(error)
    attempt = Attempt(rung, kind, text or type(error).__name__)
    return FailedAttempt(attempt, getattr(error, "stage", None), "".join(traceback.format_exception(error)))


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
