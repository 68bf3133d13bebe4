"""The video file of an overlay: H.264 in MP4, which every browser plays, with the presentation times of the source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from av.packet import Packet
from av.video.stream import VideoStream

from aot.errors import OutOfMemory, WriteError
from aot.system.os_errors import os_reason, what_to_check
from aot.types import Float64Array, Int64Array, UInt8Array

_TIME_BASE = Fraction(1, 90_000)
# 1 ms. The container's edit list counts in milliseconds; a shorter clip would show nothing.
_MIN_STEP = 90
# Sufficient quality to judge tracks, at about 3 Mbit/s for 854x480. The preset superfast at crf 22.5 has 1.2 dB more
# PSNR (43 dB) in files 5 % larger, but takes 1.8 times as long: CABAC, subpixel refinement and decisions about B-frames
# take more time than their savings in bits are worth.
_X264_OPTIONS = "partitions=i4x4,i8x8:8x8dct=1:deblock=0,0:aq-mode=1:bframes=3:b-adapt=0:rc-lookahead=0"
_ENCODER_OPTIONS = {"preset": "ultrafast", "crf": "24.5", "x264-params": _X264_OPTIONS}
_FALLBACK_FPS = 25.0
# In FFmpeg's numbers. OpenCV converts with the coefficients of BT.601.
_BT601_MATRIX, _BT709 = 6, 1


class VideoWriter:
    """Encodes images to an H.264 file; a context manager that finishes the file, or closes the encoder on an error.

    Args:
        part: the file to write.
        path: the final name of the file, for error messages.
        width, height: of the images, px; odd sizes are padded to even ones.
        pixel_aspect: width of a pixel as displayed, in heights of a pixel; players stretch the images by it.
        time: (T,) presentation times of the images, s.
        fps: nominal rate of the source, which sets the duration of a video of one frame. 0 or less: unknown.
        comment: stored in the file's metadata.
    Raises:
        WriteError: the file cannot be written, here and in every method.
        OutOfMemory: memory ran out, here and in every method.
    """

    def __init__(
        self,
        part: Path,
        path: Path,
        *,
        width: int,
        height: int,
        pixel_aspect: Fraction,
        time: Float64Array,
        fps: float,
        comment: str,
    ) -> None:
        self._path = path
        self._times = _ticks(time)
        durations = _durations(self._times, fps)
        self._rate = _rate(durations)
        self._duration_at: dict[int | None, int] = dict(zip(self._times.tolist(), durations.tolist()))
        self._num_written = 0
        with self._mapped_errors():
            # faststart puts the index first, so that a browser can start before it has loaded the complete file.
            self._container = av.open(part, "w", format="mp4", options={"movflags": "+faststart"})
            self._container.metadata["comment"] = comment
            try:
                self._stream = self._container.add_stream("libx264", options=_ENCODER_OPTIONS)
                self._set_up(self._stream, width, height)
                self._stream.codec_context.sample_aspect_ratio = pixel_aspect
            except BaseException:
                self._abandon()
                raise

    def write(self, image: UInt8Array) -> None:
        """Encode the next frame, (H, W, 3) RGB."""
        bottom, right = image.shape[0] % 2, image.shape[1] % 2
        if bottom or right:
            image = cast(UInt8Array, cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE))
        with self._mapped_errors():
            # Ten times as fast as FFmpeg's conversion.
            yuv = cast(UInt8Array, cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420))
            frame = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
            frame.pts, frame.time_base = int(self._times[self._num_written]), _TIME_BASE
            self._mux(self._stream.encode(frame))
        self._num_written += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
            return
        with self._mapped_errors():
            try:
                self._finish()
            except BaseException:
                self._abandon()
                raise

    def _set_up(self, stream: VideoStream, width: int, height: int) -> None:
        # yuv420p halves both sizes.
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context = stream.codec_context
        context.framerate = self._rate
        context.time_base = stream.time_base = _TIME_BASE
        # Stored in the file; otherwise players guess, and guess differently for small and large images.
        context.colorspace, context.color_primaries, context.color_trc = _BT601_MATRIX, _BT709, _BT709

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            # The encoder drops durations; without one, a video of one frame would have a duration of zero.
            packet.duration = self._duration_at[packet.pts]
            self._container.mux(packet)

    def _finish(self) -> None:
        self._mux(self._stream.encode(None))
        self._container.close()

    def _abandon(self) -> None:
        # A failure here is a consequence of the error that is being raised.
        with suppress(av.FFmpegError, OSError):
            self._container.close()

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except MemoryError as exc:
            raise OutOfMemory(
                f"out of memory while encoding the overlay {self._path}; use a larger frame_interval, or set "
                f"output.overlay=false to draw no overlays"
            ) from exc
        except (av.FFmpegError, UnknownCodecError, OSError) as exc:
            is_unknown = isinstance(exc, UnknownCodecError)
            reason = "the installed PyAV lacks its encoder" if is_unknown else os_reason(exc)
            next_step = what_to_check(exc, otherwise="install a PyAV that has it")
            raise WriteError(
                f"cannot write the overlay {self._path}: {reason}; {next_step}, or set output.overlay=false to draw no "
                f"overlays"
            ) from exc


def _ticks(time: Float64Array) -> Int64Array:
    """Presentation times since the first frame in units of the time base, strictly increasing."""
    ticks = np.round((time - time[0]) / float(_TIME_BASE)).astype(np.int64)
    minimum = np.arange(len(ticks)) * _MIN_STEP
    return np.asarray(np.maximum.accumulate(ticks - minimum) + minimum)


def _durations(ticks: Int64Array, fps: float) -> Int64Array:
    """Duration of each frame; the last frame gets that of the frame before it, a single frame that of the source."""
    steps = np.diff(ticks)
    usual = steps[-1] if len(steps) else max(1, round(1 / (fps if fps > 0 else _FALLBACK_FPS) / float(_TIME_BASE)))
    return np.append(steps, usual).astype(np.int64)


def _rate(durations: Int64Array) -> Fraction:
    """Average frames per second; the encoder's rate control uses it, the presentation times do not."""
    rate = Fraction(1 / (float(durations.mean()) * float(_TIME_BASE))).limit_denominator(1001)
    return max(rate, Fraction(1, 1001))
