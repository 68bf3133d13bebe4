"""The frame source (a clip as a stream of blocks of frames, at source resolution) and the decoder, which opens one."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np

from aot.errors import DecodeError
from aot.types import Float64Array, FrameBlock, Int64Array, UInt8Array

# Size of a block in bytes of RGB: 13 frames of 854x480. This is little compared with the memory of any model, and keeps
# the wait for the first block short, which no computation overlaps.
BLOCK_BYTES = 16 * 2**20

# For reading backwards, each piece is decoded from the key frame before it: the larger the piece, the fewer frames are
# decoded twice. For a group of 250 frames of 854x480, a backward pass with pieces of this size takes 1.8 times the work
# of a forward pass, with pieces of BLOCK_BYTES 5.3 times.
BACKWARD_BYTES = 8 * BLOCK_BYTES


class FrameSource(ABC):
    """The kept frames of one clip, readable forwards, backwards and in random order, any number of times.

    Attributes:
        index: (T,) int64, ascending source frame numbers of the kept frames.
        time: (T,) float64, their presentation times in the container in s, not shifted to start at 0.
        width, height: size in stored px, after the rotation in the metadata.
        pixel_aspect: width of a pixel as displayed, in heights of a pixel; 1: pixels are square.
        fps: average frames per second: (number of frames - 1) / (last time - first time).
        num_source_frames: number of frames of the source, kept or not.
        decoder: name of the decoder: "decord", "pyav" or "opencv".
        decoder_version: version of its package.
        decoder_fallback: why the configured decoder did not take the source, in words; empty if it did.
        stream: number of the video stream among those of the file; None: the source is not a video file.
        wait_seconds: wall time for which callers have waited for frames so far.
        num_decoded: number of frames decoded so far; kept ones are not decoded again, see `keep_decoded`.
    """

    def __init__(
        self,
        *,
        index: Int64Array,
        time: Float64Array,
        width: int,
        height: int,
        fps: float,
        num_source_frames: int,
        decoder: str,
        decoder_version: str,
        decoder_fallback: str = "",
        pixel_aspect: Fraction = Fraction(1),
        stream: int | None = None,
    ) -> None:
        self.index = index
        self.time = time
        self.width = width
        self.height = height
        self.pixel_aspect = pixel_aspect
        self.fps = fps
        self.num_source_frames = num_source_frames
        self.decoder = decoder
        self.decoder_version = decoder_version
        self.decoder_fallback = decoder_fallback
        self.stream = stream
        self.wait_seconds = 0.0
        self.num_decoded = 0
        self._is_closed = False
        self._in_memory: dict[int, UInt8Array] = {}
        self._bytes_left = 0
        # All reads share one decoder, including those that `blocks` starts ahead.
        self._reading = Lock()

    @abstractmethod
    def _read(self, index: Int64Array) -> UInt8Array:
        """Decode the frames `index` (ascending source frame numbers, each once) as (B, H, W, 3) RGB.

        Raises:
            DecodeError: a frame cannot be decoded, or the decoder returns another frame than requested.
        """

    @abstractmethod
    def _release(self) -> None:
        """Release the decoder and its files; may be called several times."""

    def close(self) -> None:
        """Release the decoder; frames cannot be read afterwards."""
        self._is_closed = True
        self._bytes_left = 0
        self._in_memory.clear()
        self._release()

    def keep(self, index: Int64Array) -> None:
        """Keep only these source frames, a subset of the frames kept so far, for all later reads."""
        rows = self.rows(index)
        self.index, self.time = self.index[rows], self.time[rows]

    def keep_decoded(self, num_bytes: int) -> None:
        """Keep frames that are decoded from now on in memory, so that later reads need not decode them again.

        Args:
            num_bytes: memory that they may take, with those that are kept already.
        """
        self._bytes_left = num_bytes - sum(image.nbytes for image in self._in_memory.values())

    def decode_ahead(self, index: Int64Array) -> None:
        """Decode a few frames to keep them, as long as `keep_decoded` allows it; nothing waits for them."""
        self._block(index)

    def rows(self, index: Int64Array | Sequence[int]) -> Int64Array:
        """Rows of these source frames among the kept frames.

        Raises:
            KeyError: a source frame is not kept.
        """
        wanted = np.asarray(index, dtype=np.int64)
        rows = np.searchsorted(self.index, wanted)
        found = rows < len(self.index)
        found[found] = self.index[rows[found]] == wanted[found]
        if not found.all():
            raise KeyError(f"source frames {wanted[~found].tolist()} are not among the {len(self.index)} kept frames")
        return rows.astype(np.int64)

    def blocks(self, index: Int64Array | None = None) -> Iterator[FrameBlock]:
        """Stream kept frames block by block, in the order of `index`; the next block is decoded while one is in use.

        Args:
            index: source frames, ascending or descending; None: all kept frames, ascending.
        """
        wanted = self.index if index is None else np.asarray(index, dtype=np.int64)
        frame_bytes = self.width * self.height * 3
        step = max(1, BLOCK_BYTES // frame_bytes)
        is_backwards = len(wanted) > 1 and wanted[0] > wanted[-1]
        piece = max(step, BACKWARD_BYTES // frame_bytes) if is_backwards else step
        for block in self._read_ahead([wanted[start : start + piece] for start in range(0, len(wanted), piece)]):
            for row in range(0, len(block.index), step):
                rows = slice(row, row + step)
                yield FrameBlock(index=block.index[rows], time=block.time[rows], rgb=block.rgb[rows])

    def read(self, index: Int64Array | Sequence[int]) -> FrameBlock:
        """Decode a few kept frames, in the order of `index`; for many frames, use `blocks`."""
        with self._waiting():
            return self._block(np.asarray(index, dtype=np.int64))

    def _read_ahead(self, pieces: Sequence[Int64Array]) -> Iterator[FrameBlock]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as decoder:
            ahead = [decoder.submit(self._block, piece) for piece in pieces[:1]]
            for number in range(len(pieces)):
                with self._waiting():
                    block = ahead.pop().result()
                ahead = [decoder.submit(self._block, piece) for piece in pieces[number + 1 : number + 2]]
                yield block

    def _block(self, wanted: Int64Array) -> FrameBlock:
        rows = self.rows(wanted)
        index, place = np.unique(wanted, return_inverse=True)
        with self._reading:
            if self._is_closed:
                raise DecodeError("the clip is closed; read its frames inside the `with` block")
            decoded = self._images(index)
        return FrameBlock(index=wanted, time=self.time[rows], rgb=_taken(decoded, place))

    def _images(self, index: Int64Array) -> UInt8Array:
        """(B, H, W, 3) frames of which some may be kept; `index` as for `_read`."""
        missing = index[[frame not in self._in_memory for frame in index.tolist()]]
        if not len(missing):
            return np.stack([self._in_memory[frame] for frame in index.tolist()])
        decoded = self._read(missing)
        self.num_decoded += len(missing)
        images = decoded
        if len(missing) < len(index):
            images = np.empty((len(index), *decoded.shape[1:]), dtype=np.uint8)
            images[np.isin(index, missing)] = decoded
            for row in np.flatnonzero(~np.isin(index, missing)):
                images[row] = self._in_memory[int(index[row])]
        # All or none, because one image would keep the memory of all.
        if decoded.nbytes <= self._bytes_left:
            self._bytes_left -= decoded.nbytes
            self._in_memory |= zip(missing.tolist(), decoded)
        return images

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.wait_seconds += time.perf_counter() - started

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Decoder(Protocol):
    """Opens video files."""

    def open(self, path: Path, stream: int | None = None) -> FrameSource:
        """Open all displayed frames of a video file.

        Args:
            path: the file.
            stream: number of the video stream, see `aot.decoding.streams`; None: as the `ffmpeg` command chooses.
        Raises:
            DecodeError: the file is not a video or lacks the stream, or a frame cannot be decoded (also raised when it
                is read).
        """


@runtime_checkable
class LoadsLibrary(Protocol):
    """A decoder that loads a library with the first file, and that decodes ahead of the reader. Optional."""

    @property
    def max_buffer_bytes(self) -> int:
        """Memory that an open file may take for frames decoded ahead."""
        ...

    def load_library(self) -> None:
        """Load the library; called by the main thread, before another thread opens a file.

        Raises:
            ConfigError: the library cannot be loaded.
        """
        ...

    def depends_on_others(self, source: FrameSource) -> bool:
        """Whether another decoder took a source for a reason that may be due to another file that was open, too."""
        ...


def _taken(decoded: UInt8Array, place: Int64Array) -> UInt8Array:
    """The frames at these places; all in ascending or descending order need no copy."""
    if np.array_equal(place, np.arange(len(decoded))):
        return decoded
    if np.array_equal(place, np.arange(len(decoded))[::-1]):
        return decoded[::-1]
    return decoded[place]


def kept_frames(num_source_frames: int, frame_interval: int, always: Sequence[int] = ()) -> Int64Array:
    """Source frames that a frame_interval keeps, and the frames in `always`.

        num_source_frames=10, frame_interval=4, always=[5]
        source  0 1 2 3 4 5 6 7 8 9
        kept    #       # #     #

    Args:
        num_source_frames: number of frames of the source.
        frame_interval: at least 1; 1 keeps every frame.
        always: frames to keep with any interval (prompt frames, query frames), each in [0, num_source_frames).
    Returns:
        (T,) int64, ascending, without duplicates.
    """
    outside = [frame for frame in always if not 0 <= frame < num_source_frames]
    if frame_interval < 1 or outside:
        raise ValueError(
            f"kept_frames: got frame_interval={frame_interval} and frames {outside} outside the clip, "
            f"expected an interval ≥ 1 and frames in [0, {num_source_frames})"
        )
    spaced = np.arange(0, num_source_frames, frame_interval, dtype=np.int64)
    return np.union1d(spaced, np.asarray(list(always), dtype=np.int64))
