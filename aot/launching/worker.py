"""The worker: runs clips one after another and turns whatever goes wrong with one into a record of that clip."""

from __future__ import annotations

import json
import logging
import os
import socket
import traceback
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import yaml

from aot.clip_report import report_clip
from aot.config import RunConfig
from aot.errors import AotError, DecodeError
from aot.evaluate import evaluate_clip
from aot.launching.content import sha256_of
from aot.launching.ledger import Ledger
from aot.launching.plan import Plan, Work, to_draw, versions
from aot.paths import ClipPaths, write_text
from aot.pipeline import ClipSummary, OnProgress, Parts, Settings, draw_clip, picture_clip, process_clip
from aot.types import Clip

_log = logging.getLogger("aot.worker")


@dataclass(frozen=True)
class Outcome:
    """How one clip ended."""

    clip_id: str
    state: str
    """done, partial (some objects failed; the file is whole) or failed."""
    summary: ClipSummary | None = None
    """None for a failed clip, and for one of which only the overlay was missing."""
    failure: dict[str, Any] | None = None
    """What `failures/<clip_id>.json` holds."""


class Worker:
    """Holds the parts, built once, and runs any number of clips with them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._ledger = Ledger(plan.paths.ledger(self._name))
        self._parts: Parts | None = None
        plan.paths.logs.mkdir(parents=True, exist_ok=True)
        self._log_path = plan.paths.log(self._name)
        self._handler = logging.FileHandler(self._log_path, delay=True)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("aot").addHandler(self._handler)
        logging.getLogger("aot").setLevel(logging.INFO)

    def close(self) -> None:
        logging.getLogger("aot").removeHandler(self._handler)
        self._handler.close()

    def run(self, clip: Clip, work: Work, on_progress: OnProgress = lambda stage, share: None) -> Outcome:
        """Do what a clip still needs. Its failure is an outcome, never an exception.

        Raises:
            KeyboardInterrupt: and whatever else is not an Exception; nothing half-written is left behind.
        """
        paths = self._plan.paths.clip(clip.clip_id)
        _log.info("%s: begins (%s)", clip.clip_id, work.value)
        self._ledger.append("started", clip_id=clip.clip_id)
        try:
            summary = self._process(clip, paths, on_progress) if work is Work.ALL else None
            for drawing in to_draw(self._plan.config, clip, paths):
                on_progress(drawing, 0.0)
                _draw(drawing, clip, paths, self._plan.config)
        except Exception as error:  # noqa: BLE001 (the one place: a clip's failure must not stop the others)
            return self._failed(clip, paths, error)
        except BaseException:
            self._ledger.append("interrupted", clip_id=clip.clip_id)
            raise
        paths.failure.unlink(missing_ok=True)
        _log.info("%s: done", clip.clip_id)
        errors = summary.object_errors if summary else {}
        for object_id, message in errors.items():
            _log.warning("%s: object %d failed: %s", clip.clip_id, object_id, message)
        return Outcome(clip.clip_id, "partial" if errors else "done", summary)

    def _process(self, clip: Clip, paths: ClipPaths, on_progress: OnProgress) -> ClipSummary:
        config = self._plan.config
        try:
            source_sha256 = sha256_of(clip.source)
        except OSError as exc:
            raise DecodeError(f"{clip.source} cannot be read: {exc}; check that it is there and readable") from exc
        if self._parts is None:
            self._parts = Parts(config.segmenter.build(), config.query_points.build(), config.tracker.build())
        settings = Settings(
            frame_interval=config.frame_interval,
            frame_interval_requested=config.frame_interval,
            provenance={
                "source_sha256": source_sha256,
                "config_yaml": yaml.safe_dump(config.as_composed(), sort_keys=False),
                "config_hash": config.hash,
                "versions": json.dumps(versions()),
            },
        )
        # What was drawn of an earlier result must not stand beside a new one.
        paths.overlay.unlink(missing_ok=True)
        for picture in paths.pictures.glob("*.png"):
            picture.unlink(missing_ok=True)
        summary = process_clip(clip, self._parts, settings, paths, on_progress)
        content = self._plan.contents[clip.clip_id].as_json()
        scores = self._score(clip, paths) if config.output.evaluate else {}
        self._ledger.append("done", clip_id=clip.clip_id, content=content, summary=asdict(summary), scores=scores)
        return summary

    def _score(self, clip: Clip, paths: ClipPaths) -> dict[str, float | str | None]:
        """J and PCK where the truth is known; broken annotations are said, and not held against the clip."""
        try:
            truth = self._plan.dataset.ground_truth(clip.clip_id)
            if truth is None:
                return {}
            score = evaluate_clip(paths.result, truth)
        except (AotError, ValueError) as error:
            _log.warning("%s: cannot be scored: %s", clip.clip_id, error)
            return {"error": f"cannot be scored: {error}"}
        return {"J": score.mean_region_similarity, "PCK": score.pck}

    def _failed(self, clip: Clip, paths: ClipPaths, error: Exception) -> Outcome:
        failure = {
            "clip_id": clip.clip_id,
            "class": error.kind if isinstance(error, AotError) else "unexpected",
            "stage": getattr(error, "stage", None),
            "message": str(error) or type(error).__name__,
            "frame_interval": self._plan.config.frame_interval,
            "attempts": [{"rung": 1, "frame_interval": self._plan.config.frame_interval, "error": str(error)}],
            "source": str(clip.source),
            "content": self._plan.contents[clip.clip_id].as_json(),
            "log": str(self._log_path),
            "traceback": "".join(traceback.format_exception(error)),
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        _log.error("%s: failed in stage %s: %s", clip.clip_id, failure["stage"], failure["message"], exc_info=error)
        write_text(paths.failure, json.dumps(failure, indent=1))
        self._ledger.append("failed", **{key: failure[key] for key in ("clip_id", "class", "stage", "message")})
        return Outcome(clip.clip_id, "failed", failure=failure)


def _draw(drawing: str, clip: Clip, paths: ClipPaths, config: RunConfig) -> None:
    if drawing == "overlay":
        draw_clip(clip, paths, config.overlay)
    elif drawing == "pictures":
        picture_clip(clip, paths)
    else:
        report_clip(paths)
