"""Trackers that go wrong on demand: Lucas-Kanade, and before it whatever a script says for the clip at hand."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from pathlib import Path

import numpy as np

from aot.decoding.base import FrameSource
from aot.errors import TrackingError, WriteError
from aot.tracking.lucas_kanade import LucasKanadeTracker
from aot.types import QueryPoints, Tracks


class ScriptedTracker:
    """Does what the script says before it tracks.

    Args:
        script: a folder. `<number of source frames>.json` in it lists what happens on the first, second, … attempt at
            the clip of that length, in whatever process; afterwards, and where nothing is listed, nothing happens.
    """

    def __init__(self, script: Path) -> None:
        self.script = script
        self._tracker = LucasKanadeTracker()

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        self._act(frames.num_source_frames)
        return self._tracker.track(frames, queries, lean=lean)

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        return 0

    def _act(self, num_frames: int) -> None:
        try:
            actions = json.loads((self.script / f"{num_frames}.json").read_text())
        except FileNotFoundError:
            return
        for number, action in enumerate(actions):
            try:
                (self.script / f"{num_frames}.{number}.{action}").touch(exist_ok=False)
            except FileExistsError:
                continue
            getattr(self, f"_{action}")(num_frames)
            return

    def _nothing(self, num_frames: int) -> None:
        pass

    def _memory_error(self, num_frames: int) -> None:
        raise MemoryError("the script says so")

    def _tracking_error(self, num_frames: int) -> None:
        raise TrackingError("the script says so")

    def _write_error(self, num_frames: int) -> None:
        raise WriteError("the script says so")

    def _kill(self, num_frames: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _segfault(self, num_frames: int) -> None:
        ctypes.string_at(0)

    def _hang(self, num_frames: int) -> None:
        """Stand still in C and keep the interpreter's lock, as a decoder can: no thread of Python's runs any more."""
        ctypes.PyDLL(None).sleep(3600)

    def _sleep(self, num_frames: int) -> None:
        """Stand still and leave the lock to others."""
        time.sleep(3600)

    def _compute(self, num_frames: int) -> None:
        """Be busy for some seconds, and report nothing."""
        begun = time.process_time()
        while time.process_time() < begun + 4:
            pass

    def _eat(self, num_frames: int) -> None:
        """Take memory, and use it, until someone stops it."""
        eaten = []
        while True:
            eaten.append(np.ones(2**23, dtype=np.uint8))

    def _wait(self, num_frames: int) -> None:
        """Go on when the test says so; until then there is some life in it."""
        while not (self.script / "go").exists():
            time.sleep(0.01)


class WholeClipTracker:
    """Takes the whole clip into memory before it tracks, in float32 as models want it; lean, as the bytes they are."""

    def __init__(self) -> None:
        self._tracker = LucasKanadeTracker()

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        shape = (len(frames.index), frames.height, frames.width, 3)
        clip = np.empty(shape, dtype=np.uint8 if lean else np.float32)
        row = 0
        for block in frames.blocks():
            clip[row : row + len(block.index)] = block.rgb
            row += len(block.index)
        return self._tracker.track(frames, queries, lean=lean)

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        return 0
