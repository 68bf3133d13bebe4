"""Reading ahead: the next clip of a worker is hashed, opened and begun to be decoded while the current one is computed.

The ledger names the clip that is being read ahead, so that it is charged if the process dies of it. Any error of
reading ahead is only noted in the log: the clip is read again in its turn, and fails there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from aot.decoding.base import BLOCK_BYTES, Decoder, LoadsLibrary
from aot.decoding.probe import probe_video
from aot.errors import AotError
from aot.preparation import PreparedClip, decode_first_frames, prepare_clip
from aot.retry import Rung
from aot.runs.fingerprint import size_and_time
from aot.runs.ledger import Ledger
from aot.runs.task import ClipTask
from aot.stages import StageTimer
from aot.types import Clip

# How long the end of a worker waits for a call of a decoder; the thread cannot be interrupted in it.
_CLOSE_SECONDS = 5.0

_log = logging.getLogger("aot.worker")


class ReadAhead:
    """Reads at most one clip ahead, in a thread.

    Args:
        ledger: of the worker.
        rung: of first attempts, for which clips are read.
        sample_fps: of the run.
    """

    def __init__(self, ledger: Ledger, rung: Rung, sample_fps: float | None = None) -> None:
        self._ledger = ledger
        self._rung = rung
        self._sample_fps = sample_fps
        self._job: _Job | None = None

    def start(self, task: ClipTask, decoder: Decoder, available_bytes: int) -> None:
        """Start to read a clip.

        Args:
            task: the clip.
            decoder: of the worker.
            available_bytes: main memory for it; a clip that is predicted to need more is not read ahead.
        """
        self.drop()
        if isinstance(decoder, LoadsLibrary):
            try:
                decoder.load_library()
            except AotError:  # reported by the next clip that needs it
                return
        self._ledger.follow(task.after)
        self._ledger.append("reading ahead", **task.start_fields(self._rung))
        prepare = partial(prepare_clip, frame_interval=self._rung.frame_interval, sample_fps=self._sample_fps)
        self._job = _Job(task, decoder, available_bytes, prepare, self._ledger)

    def take(self, task: ClipTask) -> PreparedClip | None:
        """What was read of a clip, whose owner is now the caller; waits until it is complete.

        Returns:
            None if nothing was read, if reading failed, or if the source has changed since then.
        """
        job = self._job
        if job is None:
            return None
        if (job.task.clip.clip_id, job.task.fingerprint) != (task.clip.clip_id, task.fingerprint):
            self.drop()
            return None
        try:
            job.is_over.wait()
            if not job.is_current():
                self.drop()
                return None
        except BaseException:
            self.drop()
            raise
        self._job = None
        return job.prepared

    def drop(self) -> None:
        """Release what was read ahead, immediately or at the end of the call that is being made."""
        job, self._job = self._job, None
        if job is not None:
            job.drop()

    def close(self) -> None:
        """Drop what was read ahead, and wait for the thread for a short time."""
        job = self._job
        self.drop()
        if job is not None:
            job.is_over.wait(_CLOSE_SECONDS)


class _Job:
    """One clip that is read by a thread, which starts immediately."""

    def __init__(
        self,
        task: ClipTask,
        decoder: Decoder,
        available_bytes: int,
        prepare: Callable[..., PreparedClip],
        ledger: Ledger,
    ) -> None:
        self.task = task
        self.prepared: PreparedClip | None = None
        """None: it is not complete, it has failed, or it was dropped."""
        self.is_over = threading.Event()
        self._source_before = size_and_time(task.clip.source)
        self._is_dropped = False
        self._lock = threading.Lock()
        # A daemon, because a call that hangs must not keep the process from ending.
        read = partial(self._read, decoder, available_bytes, prepare, ledger)
        threading.Thread(target=read, daemon=True, name="read ahead").start()

    def is_current(self) -> bool:
        """Whether the source is the same as before it was read."""
        return size_and_time(self.task.clip.source) == self._source_before

    def drop(self) -> None:
        with self._lock:
            self._is_dropped = True
            prepared, self.prepared = self.prepared, None
        if prepared is not None:
            prepared.frames.close()

    def _read(
        self, decoder: Decoder, available_bytes: int, prepare: Callable[..., PreparedClip], ledger: Ledger
    ) -> None:
        clip = self.task.clip
        try:
            needed = _needed_bytes(clip, decoder)
            if needed > available_bytes:
                _log.info("%s: is not read ahead, which takes %.2f GB of memory", clip.clip_id, needed / 1e9)
                return
            prepared = prepare(clip, decoder, timer=StageTimer(measures_device=False))
            if isinstance(decoder, LoadsLibrary) and decoder.depends_on_others(prepared.frames):
                prepared.frames.close()
                _log.info("%s: is opened again in its turn: %s", clip.clip_id, prepared.frames.decoder_fallback)
                return
            self._keep(prepared)
        except Exception as error:  # noqa: BLE001 (the clip is read again in its turn, and the error reported there)
            _log.info("%s: could not be read ahead, and is read again in its turn: %s", clip.clip_id, str(error))
        finally:
            # A clip whose run folder is gone or full fails in its turn.
            with suppress(AotError):
                ledger.append("read ahead", clip_id=clip.clip_id)
            self.is_over.set()

    def _keep(self, prepared: PreparedClip) -> None:
        try:
            decode_first_frames(prepared)
        except BaseException:
            prepared.frames.close()
            raise
        with self._lock:
            if not self._is_dropped:
                self.prepared = prepared
                return
        prepared.frames.close()


def _needed_bytes(clip: Clip, decoder: Decoder) -> int:
    """Upper bound of the memory for the first frames of a clip, and for those that its decoder decodes ahead."""
    if not isinstance(decoder, LoadsLibrary) or clip.source.is_dir():
        return BLOCK_BYTES
    probe = probe_video(clip.source, clip.stream)  # is kept for opening the clip
    return BLOCK_BYTES + min(decoder.max_buffer_bytes, 3 * probe.num_frames * probe.width * probe.height)
