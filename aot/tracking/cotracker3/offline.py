"""The offline predictor: the full clip at once; its features are computed once for all points and both directions.

Source: CoTracker3 (arXiv:2410.11831), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from aot.errors import TrackingError
from aot.tracking.cotracker3.frames import FrameReader, grid_points, points_in_mask, scale_between
from aot.tracking.cotracker3.model import ClipFeatures, CoTracker3, Estimates
from aot.tracking.cotracker3.plan import MemoryPlan
from aot.tracking.cotracker3.sizes import STRIDE, SUPPORT_SIDE
from aot.tracking.frames import Frames
from aot.types import BoolArray, Float32Array, Tracks, UInt8Array


@torch.inference_mode()
def track_offline(
    model: CoTracker3,
    frames: Frames,
    *,
    query_points: Float32Array | None = None,
    grid_size: int | None = None,
    mask: BoolArray | UInt8Array | None = None,
    query_frame: int = 0,
    backward: bool = False,
    support_grid: bool = True,
    num_iters: int = 6,
    visibility_threshold: float = 0.9,
    num_frames: int | None = None,
    plan: MemoryPlan | None = None,
) -> Tracks:
    """Track points through a full clip.

    Args:
        frames: (T, H, W, 3) uint8 RGB, or blocks of that shape: an iterator, or an iterable that can be read repeatedly
            (required by the plan `features="recompute"`).
        query_points: (N, 3): row of the frame, x, y in source px.
        grid_size: track a grid with this many points per side instead.
        mask: (H, W) in source px; only the grid points inside it are tracked.
        query_frame: row of the grid's frame.
        backward: track the reversed clip for the frames before each query.
        support_grid: add a grid of 36 support points, whose tracks are dropped, to given points and to a masked grid.
        num_iters: refinement iterations.
        visibility_threshold: a point is visible above this visibility, in 0..1.
        num_frames: T, where `frames` is not an array; where it is unknown, the features go into a file.
        plan: block sizes and feature storage; None: chosen by the free memory.
    Returns:
        Tracks in source px; `visible` is True where the visibility is above the threshold, and at each query.
    Raises:
        OutOfMemory: no plan fits; raised before anything is computed.
        ValueError: both or neither of query_points and grid_size, a query outside the clip, or frames of another shape
            or type.
        TrackingError: no grid point is inside the mask.
    """
    reader = FrameReader.open(frames, model.resolution, model.device)
    queries = _queries(reader.size, model.resolution, query_points, grid_size, mask, query_frame)
    num_own = len(queries)
    if support_grid and (query_points is not None or mask is not None):
        queries = torch.cat([queries, grid_points(SUPPORT_SIDE, model.resolution)])
    plan = plan or model.choose_plan(reader.num_frames if num_frames is None else num_frames, len(queries))
    with _opened(model, reader, plan) as clip:
        return clip.track_queries(queries, num_own, backward, num_iters, visibility_threshold)


@contextmanager
def open_offline(model: CoTracker3, frames: Frames, plan: MemoryPlan) -> Iterator[OfflineClip]:
    """A clip for several groups of points: its features are computed with the first one, and released on exit.

    Args:
        model: loaded by `load_model`.
        frames: as for `track_offline`.
        plan: block sizes and feature storage, for the largest group and its support points.
    Raises:
        ValueError: no frames, frames of another shape or type, or an iterator with the plan `features="recompute"`.
    """
    with _opened(model, FrameReader.open(frames, model.resolution, model.device), plan) as clip:
        yield clip


class OfflineClip:
    """A clip whose features are computed once; made by `open_offline`.

    Args:
        features: of the clip.
        size: (H, W) of the source in px.
    """

    def __init__(self, features: ClipFeatures, size: tuple[int, int]) -> None:
        self._features, self._size = features, size

    def track(
        self,
        query_points: Float32Array,
        *,
        backward: bool = False,
        support_grid: bool = True,
        num_iters: int = 6,
        visibility_threshold: float = 0.9,
    ) -> Tracks:
        """Track points (N, 3): row of the frame, x, y in source px; the other arguments are those of `track_offline`.

        Points of one call do not influence those of another: the results are those of `track_offline`.
        """
        resolution = self._features.resolution
        queries = _scaled(query_points, self._size, resolution)
        support = [grid_points(SUPPORT_SIDE, resolution)] if support_grid else []
        return self.track_queries(
            torch.cat([queries, *support]), len(queries), backward, num_iters, visibility_threshold
        )

    @torch.inference_mode()
    def track_queries(
        self, queries: Tensor, num_own: int, backward: bool, num_iters: int, visibility_threshold: float
    ) -> Tracks:
        """Track queries (N, 3) in model px; the tracks are those of the first `num_own`."""
        clip = self._features.query(queries)
        xy, probability = _own_results(clip.track(num_iters), num_own)
        query_rows = queries[:num_own, 0].long().numpy()
        if backward and query_rows.any():
            before = np.arange(clip.num_frames)[:, None] < query_rows
            reverse_xy, reverse_probability = _own_results(clip.track(num_iters, reverse=True), num_own)
            xy = np.where(before[..., None], reverse_xy[::-1], xy)
            probability = np.where(before[..., None], reverse_probability[::-1], probability)
        own = np.arange(num_own)
        xy[query_rows, own] = queries[:num_own, 1:].numpy()
        visibility, confidence = np.ascontiguousarray(np.moveaxis(probability, -1, 0))
        visible = visibility > visibility_threshold
        visible[query_rows, own] = True
        return Tracks(
            xy=xy * scale_between(self._features.resolution, self._size),
            visible=visible,
            visibility=visibility,
            confidence=confidence,
        )


@contextmanager
def _opened(model: CoTracker3, reader: FrameReader, plan: MemoryPlan) -> Iterator[OfflineClip]:
    if plan.features == "recompute" and not reader.is_rereadable:
        raise ValueError(
            'features="recompute" requires frames that can be read repeatedly, got an iterator; pass an array'
        )
    with model.open_clip(reader, resolution=model.resolution, plan=plan) as features:
        yield OfflineClip(features, reader.size)


def _queries(
    size: tuple[int, int],
    resolution: tuple[int, int],
    query_points: Float32Array | None,
    grid_size: int | None,
    mask: BoolArray | UInt8Array | None,
    query_frame: int,
) -> Tensor:
    """The requested points (N, 3): row, x, y in model px."""
    if (query_points is None) == (grid_size is None):
        raise ValueError("got both or neither of query_points and grid_size, expected exactly one of them")
    if query_points is not None:
        return _scaled(query_points, size, resolution)
    points = grid_points(grid_size or 0, resolution, query_frame)
    if mask is None:
        return points
    inside = points_in_mask(points, mask, resolution)
    if not len(inside):
        raise TrackingError(
            f"no point of the {grid_size}x{grid_size} grid is inside the mask of {int((mask > 0).sum())} px; "
            f"use a larger grid_size, or pass query_points"
        )
    return inside


def _scaled(query_points: Float32Array, size: tuple[int, int], resolution: tuple[int, int]) -> Tensor:
    """Points (N, 3) in source px of size (H, W) as points in model px."""
    points = torch.from_numpy(np.array(query_points, dtype=np.float32).reshape(-1, 3))
    points[:, 1:] *= torch.from_numpy(scale_between(size, resolution))
    return points


def _own_results(estimates: Estimates, num_own: int) -> tuple[Float32Array, Float32Array]:
    """(T, N, 2) positions in model px and (T, N, 2) visibility and confidence of the requested points."""
    xy = estimates.xy[:num_own].transpose(0, 1) * STRIDE
    probability = estimates.logits[:num_own].transpose(0, 1).sigmoid()
    return xy.cpu().numpy(), probability.cpu().numpy()
