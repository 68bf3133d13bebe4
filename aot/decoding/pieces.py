"""Cut a video file into pieces that a decoder reads from memory; nothing is decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from aot.decoding.container import open_container
from aot.decoding.probe import VideoProbe
from aot.system.os_errors import os_reason
from aot.types import Int64Array


class Uncuttable(Exception):
    """A piece of the file cannot be cut out; the message says why."""


class VideoPieces:
    """Runs of frames of a video file, each from a frame from which decoding can start to another such frame.

    Args:
        path: the video file.
        probe: of this file.
    """

    def __init__(self, path: Path, probe: VideoProbe) -> None:
        self._path = path
        self._probe = probe
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._ahead: Any = None
        self._cuts: Int64Array = np.append(probe.restart_frame, probe.num_frames)

    @property
    def longest_group(self) -> int:
        """Number of frames of the longest run that cannot be divided."""
        return int(np.diff(self._cuts, prepend=0).max()) if self._cuts[0] == 0 else self._probe.num_frames

    def start_of(self, frame: int) -> int | None:
        """The last frame up to this one at which the file can be cut; None: there is none."""
        place = int(np.searchsorted(self._cuts, frame, side="right"))
        return int(self._cuts[place - 1]) if place else None

    def end_of_group(self, frame: int) -> int:
        """The first cut behind a frame."""
        return int(self._cuts[np.searchsorted(self._cuts, frame, side="right")])

    def end_after(self, start: int, frame: int, max_frames: int) -> int:
        """The end of a piece that begins at the cut `start`: the first cut behind `frame`.

        If that piece had more than max_frames, the last cut that keeps it within, but at least the next one.
        """
        end = self.end_of_group(frame)
        last = int(self._cuts[np.searchsorted(self._cuts, start + max_frames, side="right") - 1])
        return max(min(end, last), self.end_of_group(start))

    def cut(self, start: int, end: int) -> bytes:
        """The packets of the frames [start, end), both of them cuts, as a Matroska file.

        Raises:
            Uncuttable: the packets cannot be found or stored in Matroska.
        """
        try:
            return self._cut(start, end)
        except (av.FFmpegError, ValueError, OverflowError) as exc:
            self.close()
            reason = os_reason(exc, otherwise="PyAV refuses its packets")
            raise Uncuttable(f"frames {start} to {end - 1} cannot be copied to Matroska: {reason}") from exc
        except Uncuttable:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; the next cut opens it again."""
        self._packets, self._ahead = iter(()), None
        if self._container is not None:
            self._container.close()
            self._container = None

    def _cut(self, start: int, end: int) -> bytes:
        self._go_to(start)
        packets = [self._next_packet() for _ in range(end - start)]
        if any(packet is None or packet.is_corrupt or packet.is_discard for packet in packets):
            raise Uncuttable(f"packets of frames {start} to {end - 1} are missing or damaged")
        # Some containers give no decoding times: the n-th packet is decoded at the n-th time, early enough to be shown.
        times = self._probe.pts[start:end] - self._probe.pts[start]
        delay = int(max(time - packet.pts for time, packet in zip(self._probe.pts[start:end], packets)))
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="matroska") as out:
            stream = out.add_stream_from_template(self._container.streams[self._probe.stream_index], opaque=True)
            for packet, time in zip(packets, times.tolist()):
                packet.pts -= int(self._probe.pts[start])
                packet.dts = time - delay
                packet.stream = stream
                out.mux(packet)
        return buffer.getvalue()

    def _go_to(self, start: int) -> None:
        """Move to the first packet of a piece: it is there, or found by a seek, or from the start of the file."""
        if self._is_at(start):
            return
        if self._container is None:
            self._open()
        if start:
            stream = self._container.streams[self._probe.stream_index]
            self._container.seek(int(self._probe.pts[start]), stream=stream, backward=True)
            self._packets, self._ahead = self._demux(), None
            if self._skip_to(start):
                return
        # The seek arrived too late, as it does in some containers: read the packets from the start.
        self._open()
        if not self._skip_to(start):
            raise Uncuttable(f"the packet of frame {start} is not where it was")

    def _skip_to(self, start: int) -> bool:
        """Skip packets up to the first one of a piece; False: it lies behind, for later packets have later times."""
        while not self._is_at(start):
            packet = self._next_packet()
            if packet is None or packet.pts is None or packet.pts > self._probe.pts[start]:
                return False
        return True

    def _is_at(self, start: int) -> bool:
        if self._ahead is None:
            self._ahead = next(self._packets, None)
        return self._ahead is not None and self._ahead.pts == self._probe.pts[start]

    def _next_packet(self) -> Any:
        packet, self._ahead = self._ahead or next(self._packets, None), None
        return packet

    def _open(self) -> None:
        self.close()
        self._container = open_container(self._path)
        self._packets = self._demux()

    def _demux(self) -> Iterator[Any]:
        stream = self._container.streams[self._probe.stream_index]
        return (packet for packet in self._container.demux(stream) if packet.size)
