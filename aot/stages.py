"""The wall time and the device memory of the stages of a clip."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

from aot.decoding.base import FrameSource
from aot.errors import error_context
from aot.system.memory import device_peak_bytes, reset_device_peak

_T = TypeVar("_T")


class StageTimer:
    """Wall time per stage, in s, and peak memory on the GPU, in bytes, if one is used.

    Waiting for frames is a stage of its own, `wait_for_frames`. Stages may be nested and repeated: every moment belongs
    to the innermost stage only. The memory is that of the outermost stages.

    Args:
        measures_device: whether to measure the memory; not in a second thread, whose stages do not use the GPU.
    """

    def __init__(self, *, measures_device: bool = True) -> None:
        self.seconds: dict[str, float] = {}
        self._inner_seconds = 0.0
        """Of the stages that have ended within the current one."""
        self.peak_device_bytes: dict[str, int] = {}
        self._depth = 0
        self._measures_device = measures_device

    @contextmanager
    def stage(self, name: str, frames: FrameSource | None = None) -> Iterator[None]:
        """Measure a stage, which may have several parts; its name is recorded on errors.

        Args:
            name: of the stage.
            frames: the source that it decodes from.
        """
        waited = frames.wait_seconds if frames else 0.0
        inner_seconds, self._inner_seconds = self._inner_seconds, 0.0
        if self._measures_device and not self._depth:
            reset_device_peak()
        self._depth += 1
        started = time.perf_counter()
        with error_context(stage=name):
            yield
        spent = time.perf_counter() - started
        if frames:
            self._add("wait_for_frames", frames.wait_seconds - waited)
            self._inner_seconds += frames.wait_seconds - waited
        self._add(name, spent - self._inner_seconds)
        self._inner_seconds = inner_seconds + spent
        self._depth -= 1
        if self._measures_device and not self._depth:
            self._record_peak(name)

    def skip(self, name: str) -> None:
        """Record that a stage has taken no time."""
        self._add(name, 0.0)

    @contextmanager
    def closed_in(self, name: str, context: AbstractContextManager[_T]) -> Iterator[_T]:
        """Enter a context; its exit without an error is a part of a stage."""
        with ExitStack() as stack:
            yield stack.enter_context(context)
            with self.stage(name):
                stack.close()

    def _record_peak(self, name: str) -> None:
        peak = device_peak_bytes()
        if peak is not None:
            self.peak_device_bytes[name] = max(peak, self.peak_device_bytes.get(name, 0))

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
