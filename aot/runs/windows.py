"""Windows of a run's tracks for learning: points on one frame and their next positions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from aot.coordinates import as_fractions
from aot.errors import ConfigError
from aot.paths import RunPaths
from aot.runs.batches import batch_of
from aot.runs.index import RunResults, open_run
from aot.runs.resampling import chosen_points, scaled
from aot.source_frames import source_frames
from aot.types import Float32Array, Int64Array, UInt8Array
from aot.writing.reader import ClipTracks, MaskReader, bytes_of_tracks, read_tracks

_CACHE_BYTES = 256 * 2**20


def windows(
    run: RunResults | str | Path,
    *,
    points: int = 400,
    horizon: int = 32,
    stride: int = 1,
    size: tuple[int, int] | None = None,
    normalise: bool = False,
    images: bool = False,
    masks: bool = False,
    seed: int = 0,
) -> WindowDataset:
    """Windows from every kept frame but the last of every clip.

    Args:
        run: of `aot.open_run`, a selection of its clips, or a run folder.
        points: drawn per window among the points that are valid on its frame; repeated if fewer are, and drawn among
            all points if none is.
        horizon: positions after the frame, in kept frames.
        stride: kept frames between the first frames of windows.
        size: width and height, px, of the image that positions refer to; None: the source's.
        normalise: positions as fractions of the image, 0 and 1 at its edges, instead of px.
        images: decode the frame of each window, resized to `size`.
        masks: read the masks of the frame, at the size of the source.
        seed: of the choice of points, which is the same for the same seed, clip and frame.
    Raises:
        ConfigError: a number is less than 1, `size` is not a pair of them, or not a run folder.
    """
    is_pair = isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    if size is not None and not is_pair:
        raise ConfigError(f"windows: size={size!r}: expected (width, height) in px, such as (256, 256)")
    for name, value in {"points": points, "horizon": horizon, "stride": stride}.items():
        if value < 1:
            raise ConfigError(f"windows: {name}={value}: expected 1 or more")
    results = run if isinstance(run, RunResults) else open_run(run)
    has_points = results["num_points"] > 0
    selected = results.where(has_points)
    paths = [RunPaths(selected.root).clip(clip_id).result for clip_id in selected.clip_ids]
    return WindowDataset(
        paths,
        [int(number) for number in selected["num_frames"]],
        [int(number) for number in selected["num_points"]],
        points=points, horizon=horizon, stride=stride, size=size, normalise=normalise, images=images, masks=masks,
        seed=seed,
    )  # fmt: skip


class WindowDataset(Dataset[dict[str, Any]]):
    """One item per window; items have the same shapes, except for images without `size` and for masks.

    Items: clip_id (str), source (str, the video or folder), frame (source frame), object_id (N,), points (N, 2) on the
    frame, points_valid (N,), future (H, N, 2), valid (H, N), num_steps (positions within the clip; later ones repeat
    its last position and are not valid); on request image (3, height, width) uint8 and masks (K, height, width).

    Args:
        paths: of the clips' files.
        num_frames: kept frames of each.
        num_points: points of each.
        others: as for `windows`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        num_frames: Sequence[int],
        num_points: Sequence[int],
        *,
        points: int,
        horizon: int,
        stride: int,
        size: tuple[int, int] | None,
        normalise: bool,
        images: bool,
        masks: bool,
        seed: int,
    ) -> None:
        self._paths = list(paths)
        self._points, self._horizon, self._stride = points, horizon, stride
        self._size, self._normalise, self._seed = size, normalise, seed
        self._images, self._masks = images, masks
        self._clip_bytes = [bytes_of_tracks(*sizes) for sizes in zip(num_frames, num_points)]
        counts = [len(range(0, number - 1, stride)) for number in num_frames]
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._cache: OrderedDict[int, ClipTracks] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One window.

        Raises:
            IndexError: not a window of the dataset.
            ResultError: the clip's file cannot be read.
            DecodeError: images are requested, and the source cannot be read.
        """
        if not -len(self) <= position < len(self):
            raise IndexError(f"window {position} of {len(self)}")
        position %= len(self)
        number = int(np.searchsorted(self._ends, position, side="right"))
        row = (position - (int(self._ends[number - 1]) if number else 0)) * self._stride
        clip = self._clip(number)
        chosen = chosen_points(clip.valid[row], self._points, [self._seed, number, row])
        num_steps = min(self._horizon, len(clip.xy) - 1 - row)
        rows = slice(row, row + num_steps + 1)
        xy = np.empty((self._horizon + 1, self._points, 2), dtype=np.float32)
        valid = np.zeros(xy.shape[:2], dtype=np.bool_)
        # As pairs, which are copied in half the time of single numbers.
        _pairs(clip.xy)[rows].take(chosen, axis=1, out=_pairs(xy)[: num_steps + 1], mode="clip")
        clip.valid[rows].take(chosen, axis=1, out=valid[: num_steps + 1], mode="clip")
        xy[num_steps + 1 :] = xy[num_steps]
        item: dict[str, Any] = {
            "clip_id": clip.attributes["clip_id"],
            "source": clip.attributes["source"],
            "frame": int(clip.index[row]),
            "object_id": torch.from_numpy(clip.object_id[chosen]),
            "points": torch.from_numpy(xy[0]),
            "points_valid": torch.from_numpy(valid[0]),
            "future": torch.from_numpy(xy[1:]),
            "valid": torch.from_numpy(valid[1:]),
            "num_steps": num_steps,
        }
        if self._images:
            rgb = frame_of(clip, int(clip.index[row]), self._size)
            item["image"] = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))
        if self._masks:
            item["masks"] = self._masks_of(number, row)
        return item

    def loader(
        self, batch_size: int = 16, *, workers: int = 0, shuffle: bool = True, seed: int = 0, **options: Any
    ) -> DataLoader[dict[str, Any]]:
        """PyTorch's loader, with `shuffled` and with batches that cost little to pass from a worker.

        Values of a batch are tensors (B, …); lists for text, and for masks and images that differ in shape.

        Args:
            batch_size: windows per batch.
            workers: processes that make batches; 0: they are made in this one.
            shuffle: whether the order is that of `shuffled(seed)`; otherwise, that of the clips and frames.
            seed: of the order.
            options: further arguments of `torch.utils.data.DataLoader`, such as drop_last=True.
        """
        own: dict[str, Any] = {"sampler": self.shuffled(seed) if shuffle else None, "collate_fn": batch_of}
        own |= {"num_workers": workers, "persistent_workers": workers > 0}
        return DataLoader(self, batch_size, **own | options)

    def shuffled(self, seed: int = 0) -> ShuffledWindows:
        """A sampler for PyTorch's loader that reads every file once per epoch, also if not all fit into memory.

        Windows come in random order from as many clips at a time, drawn at random, as half of the cache holds. With
        `shuffle=True` instead, a run larger than the cache is read from the files again and again.

        Args:
            seed: of the order, which differs from epoch to epoch.
        """
        return ShuffledWindows(self._ends, self._clip_bytes, seed)

    def _masks_of(self, number: int, row: int) -> torch.Tensor:
        """(K, H, W) masks of a row; no object (0, H, W) if the row has no masks."""
        with MaskReader(self._paths[number]) as reader:
            masks = reader.row(row)
        width, height = self._clip(number).size
        return torch.from_numpy(np.zeros((0, height, width), np.bool_) if masks is None else masks)

    def _in_image(self, xy: Float32Array, clip: ClipTracks) -> Float32Array:
        source = clip.size
        if self._normalise:
            return as_fractions(xy, *source)
        return scaled(xy, source, self._size or source)

    def _clip(self, number: int) -> ClipTracks:
        """The tracks of a clip, with positions in the image of the windows; from memory if it was read recently."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        clip = read_tracks(self._paths[number])
        clip = replace(clip, xy=self._in_image(clip.xy, clip))
        self._cache[number] = clip
        self._cached_bytes += clip.num_bytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].num_bytes
        return clip


class ShuffledWindows(Sampler[int]):
    """See `WindowDataset.shuffled`.

    Args:
        ends: (C,) number of windows of the clips up to and including each.
        clip_bytes: memory of each clip.
        seed: of the order.
    """

    def __init__(self, ends: Int64Array, clip_bytes: Sequence[int], seed: int) -> None:
        self._ends, self._clip_bytes, self._seed = ends, clip_bytes, seed
        self._epoch = 0

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        self._epoch += 1
        for clips in self._groups(rng.permutation(len(self._ends)).tolist()):
            windows = [np.arange(self._ends[clip - 1] if clip else 0, self._ends[clip]) for clip in clips]
            yield from rng.permutation(np.concatenate(windows)).tolist()

    def _groups(self, clips: Sequence[int]) -> Iterator[list[int]]:
        """Consecutive clips whose tracks fit into half of the cache: the rest is for those of the next ones."""
        group: list[int] = []
        num_bytes = 0
        for clip in clips:
            if group and num_bytes + self._clip_bytes[clip] > _CACHE_BYTES // 2:
                yield group
                group, num_bytes = [], 0
            group.append(clip)
            num_bytes += self._clip_bytes[clip]
        if group:
            yield group


def _pairs(xy: Float32Array) -> NDArray[np.complex64]:
    """(T, N) view of (T, N, 2) positions."""
    return xy.view(np.complex64)[..., 0]


def frame_of(clip: ClipTracks, frame: int, size: tuple[int, int] | None) -> UInt8Array:
    """(H, W, 3) RGB of a source frame, resized to width and height if they are given.

    Raises:
        DecodeError: the source cannot be read.
    """
    return next(source_frames(clip.attributes, np.array([frame], dtype=np.int64), size))
