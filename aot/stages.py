"""The wall time of the stages of a clip."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from aot.decoding.base import FrameSource
from aot.errors import error_context


class StageTimer:
    """Wall time per stage, in s; waiting for frames is a stage of its own, `wait_for_frames`.

    Stages may be nested and repeated: every moment belongs to the innermost stage only.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner_seconds = 0.0
        """Of the stages that have ended within the current one."""

    @contextmanager
    def stage(self, name: str, frames: FrameSource | None = None) -> Iterator[None]:
        """Time a stage and record its name on errors; `frames` is the source that it decodes from."""
        waited = frames.wait_seconds if frames else 0.0
        inner_seconds, self._inner_seconds = self._inner_seconds, 0.0
        started = time.perf_counter()
        with error_context(stage=name):
            yield
        spent = time.perf_counter() - started
        if frames:
            self._add("wait_for_frames", frames.wait_seconds - waited)
            self._inner_seconds += frames.wait_seconds - waited
        self._add(name, spent - self._inner_seconds)
        self._inner_seconds = inner_seconds + spent

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
