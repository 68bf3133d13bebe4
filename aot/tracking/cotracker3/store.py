"""Storage of a clip's features while it is tracked: on the device, in host memory, in a file, or nowhere."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import chain, islice
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from aot.errors import WriteError
from aot.system.files import write_errors
from aot.tracking.cotracker3.features import Pyramid
from aot.tracking.cotracker3.plan import FeaturePlace, MemoryPlan
from aot.tracking.cotracker3.sizes import CHANNELS

PyramidStream = Callable[[], Iterator[Pyramid]]
"""Returns an iterator over the pyramids of all frames; may be called repeatedly."""
Chunk = tuple[int, Pyramid]
"""Number of the first frame, and the pyramid of `frame_block` frames (fewer in the last chunk)."""


def _joined(pyramids: Iterator[Pyramid], sizes: list[tuple[int, int]], frame_block: int) -> Iterator[Tensor]:
    """Join the pyramids of `frame_block` frames at a time into flat tensors, level by level.

    Each pyramid is copied into place as it arrives: besides the flat tensor only one frame's pyramid exists.
    """
    for first in pyramids:
        flat = first[0].new_empty(frame_block * sum(level.numel() for level in first))
        levels = _levels_of(flat, sizes)
        num_frames = 0
        for pyramid in chain([first], islice(pyramids, frame_block - 1)):
            for level, new in zip(levels, pyramid):
                level[num_frames] = new[0]
            num_frames += 1
        is_full = num_frames == frame_block
        yield flat if is_full else torch.cat([level[:num_frames].reshape(-1) for level in levels])


def _levels_of(flat: Tensor, sizes: list[tuple[int, int]]) -> Pyramid:
    """The pyramid stored in a flat tensor, as views."""
    lengths = [prod(size) * CHANNELS for size in sizes]
    num_frames = flat.numel() // sum(lengths)
    parts = torch.split(flat, [num_frames * length for length in lengths])
    return tuple(part.view(num_frames, prod(size), CHANNELS) for part, size in zip(parts, sizes))


class FeatureStore(ABC):
    """The features of a clip, filled once and read from start to end in every iteration.

    Args:
        stream: computes the pyramids of all frames.
        sizes: (h, w) of every level.
        plan: block sizes and feature storage.
    """

    def __init__(self, stream: PyramidStream, sizes: list[tuple[int, int]], plan: MemoryPlan) -> None:
        self._stream, self._sizes, self._plan = stream, sizes, plan
        self.num_frames = 0
        self.is_filled = False

    def fill(self) -> Iterator[Chunk]:
        """Compute and store all features; yield each chunk as it is computed."""
        for flat in _joined(self._stream(), self._sizes, self._plan.frame_block):
            self._store(flat)
            pyramid = _levels_of(flat, self._sizes)
            yield self.num_frames, pyramid
            self.num_frames += len(pyramid[0])
        self.is_filled = True

    def chunks(self) -> Iterator[Chunk]:
        """Read all features."""
        start = 0
        for flat in self._stored():
            pyramid = _levels_of(flat, self._sizes)
            yield start, pyramid
            start += len(pyramid[0])

    @abstractmethod
    def _store(self, flat: Tensor) -> None: ...

    @abstractmethod
    def _stored(self) -> Iterator[Tensor]: ...

    @abstractmethod
    def close(self) -> None:
        """Release the features."""


class _OnDevice(FeatureStore):
    def __init__(self, stream: PyramidStream, sizes: list[tuple[int, int]], plan: MemoryPlan) -> None:
        super().__init__(stream, sizes, plan)
        self._flats: list[Tensor] = []

    def _store(self, flat: Tensor) -> None:
        self._flats.append(flat)

    def _stored(self) -> Iterator[Tensor]:
        return iter(self._flats)

    def close(self) -> None:
        self._flats.clear()


class _InHostMemory(_OnDevice):
    """In pinned memory, so that uploads overlap with computation."""

    def _store(self, flat: Tensor) -> None:
        self._device = flat.device
        host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=flat.device.type == "cuda")
        self._flats.append(host.copy_(flat))

    def _stored(self) -> Iterator[Tensor]:
        return (flat.to(self._device, non_blocking=True) for flat in self._flats)


class _InFile(FeatureStore):
    """In an unnamed temporary file, read into one buffer; the system can drop its cached pages when memory is low."""

    def __init__(self, stream: PyramidStream, sizes: list[tuple[int, int]], plan: MemoryPlan) -> None:
        super().__init__(stream, sizes, plan)
        folder = plan.folder or Path(tempfile.gettempdir())
        self._path = folder / "features of a clip (unnamed temporary file)"
        with write_errors(self._path):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (`close` closes it)
        self._lengths: list[int] = []

    def _store(self, flat: Tensor) -> None:
        self._device, self._dtype = flat.device, flat.dtype
        self._lengths.append(flat.numel())
        rest = flat.cpu().view(torch.uint8).numpy().data
        with write_errors(self._path):
            while len(rest):
                rest = rest[self._file.write(rest) :]

    def _stored(self) -> Iterator[Tensor]:
        buffer = torch.empty(max(self._lengths, default=0), dtype=self._dtype)
        self._file.seek(0, os.SEEK_SET)
        for length in self._lengths:
            flat = buffer[:length]
            rest = flat.view(torch.uint8).numpy().data
            while len(rest):
                count = self._file.readinto(rest)
                if not count:
                    raise WriteError(
                        f"{self._path} was truncated while in use: {len(rest)} bytes of a block are missing; "
                        f"run the same command again"
                    )
                rest = rest[count:]
            yield flat.to(self._device)

    def close(self) -> None:
        self._file.close()


class _Recomputed(FeatureStore):
    def _store(self, flat: Tensor) -> None:
        pass

    def _stored(self) -> Iterator[Tensor]:
        return _joined(self._stream(), self._sizes, self._plan.frame_block)

    def close(self) -> None:
        """Nothing is stored."""


def make_store(stream: PyramidStream, sizes: list[tuple[int, int]], plan: MemoryPlan) -> FeatureStore:
    """The store for `plan.features`."""
    kinds: dict[FeaturePlace, Callable[[PyramidStream, list[tuple[int, int]], MemoryPlan], FeatureStore]] = {
        "memory": _OnDevice,
        "host": _InHostMemory,
        "file": _InFile,
        "recompute": _Recomputed,
    }
    return kinds[plan.features](stream, sizes, plan)
