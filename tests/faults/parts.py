"""Parts for tests of processes: Lucas-Kanade, preceded by a scripted fault, and a dataset that records its readers."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from aot.datasets.videos import Videos
from aot.decoding.base import FrameSource
from aot.decoding.pyav import PyAVDecoder
from aot.errors import TrackingError, WriteError
from aot.tracking.lucas_kanade import LucasKanadeTracker
from aot.types import QueryPoints, Tracks


class ScriptedTracker:
    """Performs the scripted action of a clip before it tracks.

    Args:
        script: a folder. `<number of source frames>.json` lists the actions of the first, second, … attempt at the clip
            of that length, whichever process makes it. Attempts without a listed action track normally.
    """

    def __init__(self, script: Path) -> None:
        self.script = script
        self._tracker = LucasKanadeTracker()

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        self._perform_next(frames.num_source_frames)
        return self._tracker.track(frames, queries, lean=lean)

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        return 0

    def _perform_next(self, num_frames: int) -> None:
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

    def _import_torch(self, num_frames: int) -> None:
        import torch  # noqa: F401 (as a network does)

    def _memory_error(self, num_frames: int) -> None:
        raise MemoryError("scripted by the test")

    def _tracking_error(self, num_frames: int) -> None:
        raise TrackingError("scripted by the test")

    def _write_error(self, num_frames: int) -> None:
        raise WriteError("scripted by the test")

    def _kill(self, num_frames: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _segfault(self, num_frames: int) -> None:
        ctypes.string_at(0)

    def _hang(self, num_frames: int) -> None:
        """Hang in C with the GIL held, as a decoder can: no other Python thread runs."""
        ctypes.PyDLL(None).sleep(3600)

    def _sleep(self, num_frames: int) -> None:
        """Hang with the GIL released."""
        time.sleep(3600)

    def _compute(self, num_frames: int) -> None:
        """Use the CPU for a few seconds without reporting progress."""
        begun = time.process_time()
        while time.process_time() < begun + 4:
            pass

    def _exhaust_memory(self, num_frames: int) -> None:
        """Allocate memory until a limit is hit."""
        chunks = []
        while True:
            chunks.append(np.ones(2**23, dtype=np.uint8))

    def _wait(self, num_frames: int) -> None:
        """Block until the test releases it; other threads keep running."""
        while not (self.script / "released").exists():
            time.sleep(0.01)


class ScriptedDecoder(PyAVDecoder):
    """Performs an action when it opens a clip.

    Args:
        clip: name of the clip's file, without the suffix.
        action: of ScriptedTracker.
        only_ahead: whether it happens only in the thread that reads ahead.
        after: in this thread, it happens when this file exists.
    """

    def __init__(self, clip: str, action: str, only_ahead: bool, after: Path) -> None:
        self.clip = clip
        self.action = action
        self.after = after
        self.only_ahead = only_ahead

    def open(self, path: Path, stream: int | None = None) -> FrameSource:
        is_ahead = threading.current_thread().name == "read ahead"
        if path.stem == self.clip and (is_ahead or not self.only_ahead):
            while is_ahead and not self.after.exists():
                time.sleep(0.01)
            getattr(ScriptedTracker, f"_{self.action}")(None, 0)
        return super().open(path, stream)


class RecordingVideos(Videos):
    """Videos without a ground truth; appends to `scored.jsonl` which process asked for it."""

    def ground_truth(self, clip_id: str) -> None:
        has_torch = "torch" in sys.modules
        record = {"clip_id": clip_id, "pid": os.getpid(), "gpu": os.environ["CUDA_VISIBLE_DEVICES"]}
        with (self.root / "scored.jsonl").open("a") as file:
            file.write(json.dumps(record | {"has_torch": has_torch}) + "\n")


class WholeClipTracker:
    """Loads all frames into memory before it tracks: as float32, or as uint8 with the lean plan."""

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
