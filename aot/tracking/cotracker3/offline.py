"""The offline predictor: the full clip at once; its features are computed once for all points and both directions.

Source: CoTracker3 (arXiv:2410.11831), section 3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aot.errors import TrackingError
from aot.tracking.cotracker3.frames import FrameReader, grid_points, points_in_mask, scale_between
from aot.tracking.cotracker3.model import CoTracker3, Estimates
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
    num_frames = reader.num_frames if num_frames is None else num_frames
    queries = _queries(reader.size, model.resolution, query_points, grid_size, mask, query_frame)
    num_own = len(queries)
    if support_grid and (query_points is not None or mask is not None):
        queries = torch.cat([queries, grid_points(SUPPORT_SIDE, model.resolution)])
    plan = plan or model.choose_plan(num_frames, len(queries))
    if plan.features == "recompute" and not reader.is_rereadable:
        raise ValueError(
            'features="recompute" requires frames that can be read repeatedly, got an iterator; pass an array'
        )

    with model.read_clip(reader, queries, resolution=model.resolution, plan=plan) as clip:
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
        xy=xy * scale_between(model.resolution, reader.size),
        visible=visible,
        visibility=visibility,
        confidence=confidence,
    )


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
        points = torch.from_numpy(np.array(query_points, dtype=np.float32).reshape(-1, 3))
        points[:, 1:] *= torch.from_numpy(scale_between(size, resolution))
        return points
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


def _own_results(estimates: Estimates, num_own: int) -> tuple[Float32Array, Float32Array]:
    """(T, N, 2) positions in model px and (T, N, 2) visibility and confidence of the requested points."""
    xy = estimates.xy[:num_own].transpose(0, 1) * STRIDE
    probability = estimates.logits[:num_own].transpose(0, 1).sigmoid()
    return xy.cpu().numpy(), probability.cpu().numpy()
