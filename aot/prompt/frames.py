"""Random access to the frames of all clips as JPEG, with a few clips open at a time.

Frames are numbered as in the manifest, into which the page writes them: those of an episode in a longer video from the
first one of the episode.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import cv2
import numpy as np

from aot.decoding import first_frame, open_source
from aot.decoding.base import FrameSource
from aot.errors import DecodeError
from aot.types import Clip, UInt8Array

_MAX_OPEN = 4
# A step backwards decodes from the previous key frame; the frames before the requested one are kept as well.
_BACKWARD_STEP = 12
_MAX_JPEGS = 96
_MAX_THUMBNAILS = 4096
_THUMBNAIL_WIDTH = 120
_FRAME_QUALITY, _THUMBNAIL_QUALITY = 92, 80


@dataclass(frozen=True)
class FrameInfo:
    """Properties of a clip that the page needs before it shows a frame."""

    width: int
    height: int
    fps: float
    first: int
    """First frame inside the clip's time range."""
    last: int
    """Last frame inside the clip's time range."""
    num_source_frames: int


@dataclass(frozen=True)
class ShownFrame:
    """One encoded frame."""

    jpeg: bytes
    time: float
    """Presentation time in s."""


class _OpenClip:
    """One open source and its encoded frames; the lock serialises access.

    Args:
        source: closed by `close`.
    """

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.lock = Lock()
        self.is_closed = False
        self.jpegs: OrderedDict[int, ShownFrame] = OrderedDict()
        self.last_requested = -1

    def close(self) -> None:
        with self.lock:
            self.is_closed = True
            self.source.close()


class ClipFrames:
    """Frames on demand; thread-safe.

    Args:
        clips: by clip id.
    """

    def __init__(self, clips: Mapping[str, Clip]) -> None:
        self._clips = clips
        self._lock = Lock()
        self._open: OrderedDict[str, _OpenClip] = OrderedDict()
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()

    def info(self, clip_id: str) -> FrameInfo:
        """Open a clip and return its properties.

        Raises:
            DecodeError: the clip cannot be read.
        """
        with self._using(clip_id) as opened:
            source, origin = opened.source, self._clips[clip_id].manifest_frame_0
            return FrameInfo(
                width=source.width,
                height=source.height,
                fps=source.fps,
                first=int(source.index[0]) - origin,
                last=int(source.index[-1]) - origin,
                num_source_frames=source.num_source_frames - origin,
            )

    def rgb(self, clip_id: str, frame: int) -> UInt8Array:
        """A frame as (H, W, 3) uint8 RGB.

        Raises:
            DecodeError: the clip has no such frame, or it cannot be read.
        """
        with self._using(clip_id) as opened:
            images, _ = self._read(opened.source, clip_id, [frame])
            return np.asarray(images[0], np.uint8)

    def shown(self, clip_id: str, frame: int, *, is_obsolete: Callable[[], bool] = lambda: False) -> ShownFrame | None:
        """A frame as JPEG, with its presentation time.

        Args:
            clip_id, frame: of the dataset.
            is_obsolete: whether the answer is not wanted any more; asked when it is the request's turn.
        Returns:
            The frame; None if the request is obsolete, for which nothing is decoded.
        Raises:
            DecodeError: as `rgb`.
        """
        with self._using(clip_id) as opened:
            if is_obsolete():
                return None
            is_step_back = opened.last_requested - frame in (1, 2)
            opened.last_requested = frame
            if frame not in opened.jpegs:
                first = int(opened.source.index[0]) - self._clips[clip_id].manifest_frame_0
                wanted = range(max(first, frame - _BACKWARD_STEP + 1), frame + 1) if is_step_back else [frame]
                missing = [number for number in wanted if number not in opened.jpegs]
                images, times = self._read(opened.source, clip_id, missing)
                for number, image, time in zip(missing, images, times):
                    opened.jpegs[number] = ShownFrame(_jpeg(image, _FRAME_QUALITY), float(time))
            opened.jpegs.move_to_end(frame)
            while len(opened.jpegs) > _MAX_JPEGS:
                opened.jpegs.popitem(last=False)
            return opened.jpegs[frame]

    def thumbnail(self, clip_id: str) -> bytes:
        """A small JPEG of the first frame; only this frame is decoded.

        Raises:
            DecodeError: the frame cannot be read.
        """
        known = self._thumbnails.get(clip_id)
        if known is not None:
            return known
        image = first_frame(self._clips[clip_id])
        height = max(1, round(image.shape[0] * _THUMBNAIL_WIDTH / image.shape[1]))
        small = cv2.resize(image, (_THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
        jpeg = _jpeg(np.asarray(small, np.uint8), _THUMBNAIL_QUALITY)
        with self._lock:
            self._thumbnails[clip_id] = jpeg
            while len(self._thumbnails) > _MAX_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return jpeg

    def close(self) -> None:
        """Close all sources."""
        with self._lock:
            opened, self._open = list(self._open.values()), OrderedDict()
        for one in opened:
            one.close()

    def _read(self, source: FrameSource, clip_id: str, frames: list[int]) -> tuple[UInt8Array, list[float]]:
        origin = self._clips[clip_id].manifest_frame_0
        try:
            block = source.read([frame + origin for frame in frames])
        except KeyError as exc:
            first, last = source.index[[0, -1]] - origin
            raise DecodeError(f"{clip_id}: no frame {frames[-1]}; expected a frame from {first} to {last}") from exc
        return block.rgb, block.time.tolist()

    @contextmanager
    def _using(self, clip_id: str) -> Iterator[_OpenClip]:
        """Hold the lock of an open clip, so that no other thread uses or closes it."""
        while True:
            opened = self._opened(clip_id)
            with opened.lock:
                if not opened.is_closed:
                    yield opened
                    return

    def _opened(self, clip_id: str) -> _OpenClip:
        with self._lock:
            if clip_id in self._open:
                self._open.move_to_end(clip_id)
                return self._open[clip_id]
        opened = _OpenClip(open_source(self._clips[clip_id]))
        with self._lock:
            existing = self._open.get(clip_id)  # opened by another thread in the meantime
            if existing is None:
                self._open[clip_id] = opened
            too_many = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - _MAX_OPEN)]
        for other in [*too_many, *([opened] if existing else [])]:
            other.close()
        return existing or opened


def _jpeg(rgb: UInt8Array, quality: int) -> bytes:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(jpeg)
