"""The worker: runs clips one after another, up the ladder where memory runs out, and turns whatever goes wrong with
one into a record of that clip."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from aot.checkpoints import available_bytes
from aot.config import RunConfig
from aot.datasets.base import Dataset
from aot.drawing.clip import draw_clip, write_prompt_images
from aot.errors import AotError, DecodeError
from aot.evaluate.clip import evaluate_clip
from aot.launching.plan import RunContext, to_draw
from aot.paths import ClipPaths
from aot.pipeline import ClipSummary, OnProgress, Parts, Settings, process_clip
from aot.report.clip import report_clip
from aot.retry import CRASHED, Attempt, Rung, ladder, next_rung
from aot.runs.failure import record_failure
from aot.runs.ledger import Ledger
from aot.runs.run_json import versions
from aot.runs.task import ClipTask, Work
from aot.system.hashing import sha256_of
from aot.system.processes import host
from aot.types import Clip

_log = logging.getLogger("aot.worker")


class BrokenProcess(Exception):
    """This process can compute nothing any more; another one can."""


@dataclass(frozen=True)
class FailedAttempt:
    """How an attempt ended badly, without the exception: its traceback would hold all arrays of the attempt."""

    attempt: Attempt
    stage: str | None
    traceback: str


class _LogFile(logging.FileHandler):
    """Where the disk is full, what needs a file says so; the log goes without."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class Worker:
    """Holds the parts, built once, and runs any number of clips with them.

    Args:
        run: what holds for all clips.
        name: of its ledger and its log; None: after this host and process.
        task: what the scheduler calls the task that it is part of.
        on_event: called with every event that it writes to its ledger.
    """

    def __init__(
        self,
        run: RunContext,
        *,
        name: str | None = None,
        task: str | None = None,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        name = name or f"{host()}-{os.getpid()}"
        self._run = run
        self._ladder = ladder(run.config.frame_interval, run.config.ladder.max_frame_interval)
        self._ledger = Ledger(run.paths.ledger(name), task=task, on_event=on_event)
        self._parts: Parts | None = None
        self._dataset: Dataset | None = None
        self._is_written = False
        """Whether this attempt has put its result in place."""
        self._provenance = {
            "config_yaml": yaml.safe_dump(run.config.as_composed(), sort_keys=False),
            "config_hash": run.config.hash,
            "versions": json.dumps(versions()),
        }
        run.paths.logs.mkdir(parents=True, exist_ok=True)
        self._log_path = run.paths.log(name)
        self._handler = _LogFile(self._log_path, delay=True)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("aot").addHandler(self._handler)
        logging.getLogger("aot").setLevel(logging.INFO)

    def close(self) -> None:
        logging.getLogger("aot").removeHandler(self._handler)
        self._handler.close()

    def run(self, todo: ClipTask, on_progress: OnProgress = lambda stage, share: None) -> None:
        """Do what a clip still needs. What came of it lies on the disk; its failure is a record, never an exception.

        Raises:
            BrokenProcess: the clip has not failed yet, but this process is of no more use.
            WriteError: not even the failure could be written down.
            KeyboardInterrupt: and whatever else is not an Exception; nothing half-written is left behind.
        """
        _log.info("%s: begins (%s)", todo.clip.clip_id, todo.work.value)
        paths = self._run.paths.clip(todo.clip.clip_id)
        if todo.work is not Work.ALL:
            self._begin(todo, self._ladder[0])
            self._finish(todo, paths, {}, on_progress)
            return
        attempts = list(todo.attempts)
        earlier_result = _time_of(paths.result)
        end: FailedAttempt | None = None
        while (rung := next_rung(self._ladder, attempts)) is not None:
            outcome = self._try(todo, paths, rung, tuple(attempts), on_progress)
            if isinstance(outcome, ClipSummary):
                self._finish(todo, paths, outcome.object_errors, on_progress)
                return
            is_changed = _time_of(paths.result) != earlier_result
            if is_changed and not self._is_written:  # a twin of this worker has finished it meanwhile
                self._ledger.append("ended", clip_id=todo.clip.clip_id, state="done")
                return
            end = outcome
            attempts.append(end.attempt)
        self._failed(todo, paths, attempts, end)

    def interrupted(self, todo: ClipTask) -> None:
        """Note that the user gave a clip up; it counts for nothing."""
        self._ledger.append("interrupted", clip_id=todo.clip.clip_id, reason="stopped by the user", is_counted=False)

    def _try(
        self, todo: ClipTask, paths: ClipPaths, rung: Rung, attempts: tuple[Attempt, ...], on_progress: OnProgress
    ) -> ClipSummary | FailedAttempt:
        """One attempt, on one rung of the ladder."""
        self._is_written = False
        self._begin(todo, rung)
        try:
            return self._process(todo, paths, rung, attempts, on_progress)
        except Exception as error:  # noqa: BLE001 (the one place: a clip's failure must not stop the others)
            end = _failed_attempt(error, rung)
        # Only here, outside the handler, nothing holds the attempt's arrays any more.
        _release_memory()
        self._note(todo, end)
        return end

    def _begin(self, todo: ClipTask, rung: Rung) -> None:
        self._ledger.append(
            "started",
            clip_id=todo.clip.clip_id,
            content=todo.content.digest,
            work=todo.work.value,
            rung=rung.number,
            frame_interval=rung.frame_interval,
            lean=rung.lean,
        )

    def _process(
        self, todo: ClipTask, paths: ClipPaths, rung: Rung, attempts: tuple[Attempt, ...], on_progress: OnProgress
    ) -> ClipSummary:
        config, clip = self._run.config, todo.clip
        try:
            source_sha256 = sha256_of(clip.source)
        except OSError as exc:
            raise DecodeError(f"{clip.source} cannot be read: {exc}; check that it is there and readable") from exc
        if self._parts is None:
            self._parts = Parts(config.segmenter.build(), config.query_points.build(), config.tracker.build())
        settings = Settings.on(
            rung,
            frame_interval_requested=config.frame_interval,
            return_check=config.output.return_check,
            provenance={"source_sha256": source_sha256, **self._provenance},
            attempts=attempts,
            # The estimate is from above: what it says of the last rung is not believed before it was tried.
            available_bytes=None if rung == self._ladder[-1] else partial(available_bytes, self._parts.tracker),
        )
        summary = process_clip(clip, self._parts, settings, paths, on_progress)
        self._is_written = True
        # What was drawn of an earlier result must not stand beside a new one.
        paths.overlay.unlink(missing_ok=True)
        for picture in paths.pictures.glob("*.png"):
            picture.unlink(missing_ok=True)
        scores = self._score(todo, paths) if config.output.evaluate else {}
        self._ledger.append(
            "done",
            clip_id=clip.clip_id,
            content=todo.content.as_json(),
            file_sha256=sha256_of(paths.result),
            summary=asdict(summary),
            scores=scores,
        )
        return summary

    def _finish(
        self, todo: ClipTask, paths: ClipPaths, object_errors: Mapping[int, str], on_progress: OnProgress
    ) -> None:
        """Draw what is to be drawn; the clip's file is whole by now."""
        clip_id = todo.clip.clip_id
        end = None
        try:
            for drawing in to_draw(self._run.config, todo.clip, paths):
                on_progress(drawing, 0.0)
                _draw(drawing, todo.clip, paths, self._run.config)
        except Exception as error:  # noqa: BLE001 (as above)
            end = _failed_attempt(error, self._ladder[0])
        if end is not None:
            self._note(todo, end)
            self._failed(todo, paths, [end.attempt], end)
            return
        paths.failure.unlink(missing_ok=True)
        for object_id, message in object_errors.items():
            _log.warning("%s: object %d failed: %s", clip_id, object_id, message)
        state = "partial" if object_errors else "done"
        _log.info("%s: %s", clip_id, state)
        self._ledger.append("ended", clip_id=clip_id, state=state)

    def _score(self, todo: ClipTask, paths: ClipPaths) -> dict[str, float | str | None]:
        """All scores where the truth is known; what hinders them is said, and not held against the clip."""
        clip_id = todo.clip.clip_id
        try:
            if self._dataset is None:
                self._dataset = self._run.config.dataset.build()
            truth = self._dataset.ground_truth(clip_id)
            if truth is None:
                return {}
            score = evaluate_clip(paths.result, truth)
        except Exception as error:  # noqa: BLE001 (the clip's file is whole, whatever its annotations are)
            _log.warning("%s: cannot be scored: %s", clip_id, error)
            return {"error": f"cannot be scored: {error}"}
        return dict(score.as_row())

    def _note(self, todo: ClipTask, end: FailedAttempt) -> None:
        """Log how an attempt ended; leave at once where nothing else can succeed here.

        Raises:
            BrokenProcess: the CUDA context is dead, which no attempt in this process survives.
        """
        clip_id, attempt = todo.clip.clip_id, end.attempt
        _log.error(
            "%s: rung %d failed in stage %s: %s\n%s", clip_id, attempt.rung.number, end.stage, attempt.error,
            end.traceback,
        )  # fmt: skip
        reason = _broken_cuda()
        if reason is not None:
            broken = f"the CUDA context of the process is dead ({reason}) after: {attempt.error}"
            self._ledger.append("attempt failed", clip_id=clip_id, **{"class": CRASHED, "error": broken})
            raise BrokenProcess(broken)
        self._ledger.append("attempt failed", clip_id=clip_id, **{"class": attempt.kind, "error": attempt.error})

    def _failed(self, todo: ClipTask, paths: ClipPaths, attempts: Sequence[Attempt], end: FailedAttempt | None) -> None:
        record_failure(
            todo,
            attempts,
            paths,
            self._ledger,
            frame_interval=self._run.config.frame_interval,
            log=self._log_path,
            stage=end.stage if end else None,
            traceback=end.traceback if end else "",
        )


def _draw(drawing: str, clip: Clip, paths: ClipPaths, config: RunConfig) -> None:
    if drawing == "overlay":
        draw_clip(clip, paths, config.overlay)
    elif drawing == "pictures":
        write_prompt_images(clip, paths)
    else:
        report_clip(paths)


def _failed_attempt(error: Exception, rung: Rung) -> FailedAttempt:
    kind = error.kind if isinstance(error, AotError) else "unexpected"
    attempt = Attempt(rung, kind, str(error) or type(error).__name__)
    return FailedAttempt(attempt, getattr(error, "stage", None), "".join(traceback.format_exception(error)))


def _release_memory() -> None:
    """Give back what an attempt held, so that the next one finds the room."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized() and _broken_cuda() is None:
        torch.cuda.empty_cache()


def _broken_cuda() -> str | None:
    """Why CUDA is of no more use in this process; None where it is, or was never used.

    Some errors (an illegal access, an assertion in a kernel) stick to the context: every later call fails.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


def _time_of(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
