"""Tracking of a clip or a stream: all points in one pass, and in a second, backwards, what lies before their queries.

Source: TAPNext (arXiv:2504.05579); the second pass is its published evaluation with queries on any frame.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from aot.tracking.frames import Frames, upload
from aot.tracking.tapnext.frames import blocks_of, resized, to_source
from aot.tracking.tapnext.model import TAPNext
from aot.tracking.tapnext.session import Session, checked_points, is_visible
from aot.types import Float32Array, Tracks, UInt8Array


def track(
    model: TAPNext,
    frames: Frames,
    query_points: Float32Array,
    backward: bool = False,
    *,
    backward_frames: Frames | None = None,
    rows_at_once: int | None = None,
) -> Tracks:
    """Track points through a clip or a stream of any length; only the result grows with it.

    Args:
        model: loaded by `load_model`.
        frames: (T, H, W, 3) uint8 RGB, or blocks of that shape; read once.
        query_points: (N, 3): row of the frame, x, y in source px, with the centres of pixels at integers.
        backward: track the reversed clip for the frames before each query. Of a stream, the frames up to the last query
            are kept in memory unless `backward_frames` gives them.
        backward_frames: the frames from the last query's back to the first, in that order.
        rows_at_once: tokens for which scores and hidden layers exist at once; None: as fits the device.
    Returns:
        Tracks in source px. On its query's frame a point is pinned to the query and visible. Without `backward`, a
        point is not visible before its query; its position and probabilities there are the network's.
    Raises:
        ValueError: no frames, a query outside the clip, frames or points of another shape, numbers that are not finite,
            or a wrong number of backward_frames.
    """
    points = checked_points(query_points, 3)
    rows = points[:, 0].astype(np.int64)
    last = int(rows.max(initial=0))
    kept: list[UInt8Array] | None = None
    if backward and backward_frames is None:
        if isinstance(frames, np.ndarray):
            backward_frames = frames[last::-1]
        else:
            kept = []
    found = _pass(model, _recorded(frames, kept, last + 1), points, rows_at_once)
    num_frames = len(found)
    beyond = rows[(rows < 0) | (rows >= num_frames)]
    if len(beyond):
        raise ValueError(f"query frames {beyond[:10].tolist()} are outside the clip, expected 0..{num_frames - 1}")
    if kept is not None:
        backward_frames = np.concatenate(kept)[last::-1]
    before = np.arange(num_frames)[:, None] < rows
    is_tracked = ~before
    past = np.flatnonzero(rows)
    if backward and backward_frames is not None and len(past):
        mirrored = points[past]
        mirrored[:, 0] = last - mirrored[:, 0]
        reverse = _pass(model, backward_frames, mirrored, rows_at_once)
        if len(reverse) != last + 1:
            raise ValueError(f"backward_frames: got {len(reverse)} frames, expected {last + 1}: from {last} back to 0")
        found[: last + 1, past] = np.where(before[: last + 1, past, None], reverse[::-1], found[: last + 1, past])
        is_tracked[:] = True
    visibility, confidence = np.ascontiguousarray(np.moveaxis(found[..., 2:], -1, 0))
    xy, visible = np.ascontiguousarray(found[..., :2]), is_visible(model, visibility, confidence) & is_tracked
    own = np.arange(len(points))
    xy[rows, own], visible[rows, own] = points[:, 1:], True
    return Tracks(xy=xy, visible=visible, visibility=visibility, confidence=confidence)


def _recorded(frames: Frames, kept: list[UInt8Array] | None, num_kept: int) -> Iterator[UInt8Array]:
    """The blocks of frames; the first `num_kept` frames are appended to `kept`, if it is a list."""
    num_read = 0
    for block in blocks_of(frames):
        if kept is not None and num_read < num_kept:
            kept.append(block[: num_kept - num_read].copy())
        num_read += len(block)
        yield block


@torch.inference_mode()
def _pass(model: TAPNext, frames: Frames, points: Float32Array, rows_at_once: int | None) -> Float32Array:
    """(T, N, 4): x, y in source px, visibility, certainty; frames are read once, in one direction."""
    query_rows = points[:, 0].astype(np.int64)
    order = np.argsort(query_rows, kind="stable")
    size: tuple[int, int] | None = None
    session: Session | None = None
    results: list[Float32Array] = []
    row = 0
    for block in blocks_of(frames):
        if session is None or size is None:
            size = block.shape[1], block.shape[2]
            session = Session(model, size=size, num_expected=len(points), is_open=False, rows_at_once=rows_at_once)
        estimates = []
        for frame in upload(block, model.device):
            session.add_points(points[query_rows == row, 1:])
            estimate = session.step(resized(frame, model.sizes.input_resolution))
            columns = [estimate.xy, estimate.visibility[:, None], estimate.certainty[:, None]]
            estimates.append(_expanded(torch.cat(columns, dim=1), len(points)))
            row += 1
        # One wait for the device per block.
        values = torch.stack(estimates).cpu().numpy()
        found = np.empty_like(values)
        found[:, order] = values
        found[..., :2] = to_source(found[..., :2], size)
        results.append(found)
    if not results:
        raise ValueError("frames: got none, expected at least one")
    return np.concatenate(results)


def _expanded(estimate: torch.Tensor, num_points: int) -> torch.Tensor:
    """One row per point: the last row of an estimate stands for all points that have not begun."""
    missing = num_points - len(estimate)
    return torch.cat([estimate, estimate[-1:].expand(missing, -1)]) if missing > 0 else estimate[:num_points]
