"""The online predictor: windows of 16 frames, 8 apart, over a stream of any length.

Source: CoTracker3 (arXiv:2410.11831), section 3.2, "online". Our additions: late queries that join a stream, and
tracking backwards from a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aot.tracking.cotracker3.features import Pyramid
from aot.tracking.cotracker3.frames import FrameReader, grid_points, resized, scale_between
from aot.tracking.cotracker3.model import CoTracker3, Estimates, fill_support
from aot.tracking.cotracker3.plan import MemoryPlan
from aot.tracking.cotracker3.sizes import STRIDE, SUPPORT_SIDE, LateQueries, level_sizes
from aot.tracking.cotracker3.store import Chunk
from aot.tracking.frames import Frames, upload
from aot.types import Float32Array, Int64Array, Tracks, UInt8Array


class WindowResult(NamedTuple):
    """The estimates of one window, in source px. They replace those of earlier windows for the same frames."""

    start: int
    """First frame of the window."""
    points: Int64Array
    """(n,) numbers of the points whose query frame has been fed, counted in the order in which they were added."""
    xy: Float32Array
    """(F, n, 2) px."""
    visibility: Float32Array
    """(F, n) in 0..1."""
    confidence: Float32Array
    """(F, n) in 0..1."""


class OnlineSession:
    """Tracks points through a stream at constant memory: only one window's features are kept.

    A window ends every 8 frames; frames before its middle are then final.

    >>> session = OnlineSession(model, size=(480, 854), late_queries="join")
    >>> session.add_queries(points)
    >>> for block in stream:
    ...     for result in session.feed(block): ...
    >>> for result in session.finish(): ...

    Args:
        model: loaded with mode="online".
        size: (H, W) of the source frames in px.
        num_iters: refinement iterations per window.
        late_queries: see `LateQueries`.
        support_grid: add 36 support points on frame 0, whose tracks are dropped.
        plan: block sizes; feature storage has no effect, as only one window is stored. None: the default plan.

    Raises:
        ValueError: the model was loaded with another mode.
    """

    def __init__(
        self,
        model: CoTracker3,
        *,
        size: tuple[int, int],
        num_iters: int = 6,
        late_queries: LateQueries = "always",
        support_grid: bool = False,
        plan: MemoryPlan | None = None,
    ) -> None:
        if model.mode != "online":
            raise ValueError(f"got a model of mode {model.mode!r}, expected one loaded with mode='online'")
        self._model, self._size, self._num_iters, self._late = model, size, num_iters, late_queries
        self._plan = plan or MemoryPlan()
        self._sizes = level_sizes(model.resolution)
        self._length, self._step = model.window_len, model.window_len // 2
        self._start = 0  # of the next window
        self._halves: list[Pyramid] = []  # features of the complete halves of the next window, `_step` frames each
        self._frames: list[Tensor] = []  # the frames after these halves
        self._queries = grid_points(SUPPORT_SIDE, model.resolution) if support_grid else torch.zeros(0, 3)
        self._num_support = len(self._queries)
        self._support = model.empty_support(self._num_support, self._plan)
        self._has_support = torch.zeros(self._num_support, dtype=torch.bool)
        self._last: tuple[Tensor, Estimates] | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames fed so far."""
        return self._start + self._step * len(self._halves) + len(self._frames)

    def add_queries(self, query_points: Float32Array) -> None:
        """Add points (n, 3): frame, x, y in source px.

        With late_queries="always" they take part from the next window on, for any query frame.

        Raises:
            ValueError: a query's frame is before the next window.
        """
        points = torch.from_numpy(np.array(query_points, dtype=np.float32).reshape(-1, 3))
        late = points[:, 0] < self._start
        if late.any():
            raise ValueError(
                f"queries on frames {points[late, 0].long().tolist()[:10]} are too late: the next window begins at "
                f"frame {self._start}; add a query before its frame leaves the window"
            )
        points[:, 1:] *= torch.from_numpy(scale_between(self._size, self._model.resolution))
        # Queries are appended, so that the point numbers of the last window stay valid.
        self._queries = torch.cat([self._queries, points])
        self._has_support = torch.cat([self._has_support, torch.zeros(len(points), dtype=torch.bool)])
        added = self._model.empty_support(len(points), self._plan)
        self._support = tuple(torch.cat([old, new]) for old, new in zip(self._support, added))

    @torch.inference_mode()
    def feed(self, frames: UInt8Array) -> Iterator[WindowResult]:
        """Process the next frames, (B, H, W, 3) uint8 RGB; yield the windows that they complete."""
        for frame in upload(frames, self._model.device):
            yield from self.feed_resized(resized(frame, self._model.resolution))

    @torch.inference_mode()
    def feed_resized(self, frame: Tensor) -> Iterator[WindowResult]:
        """Process one frame (1, 3, h, w), values 0..255, of the model's resolution; yield a completed window."""
        self._frames.append(frame)
        if len(self._frames) == self._step:
            self._halves.append(_joined(list(self._model.pyramids(iter(self._frames), self._plan))))
            self._frames = []
        if len(self._halves) == 2:
            yield self._window(self._halves, num_real=self._length)
            self._start += self._step
            del self._halves[0]

    @torch.inference_mode()
    def finish(self) -> Iterator[WindowResult]:
        """End the stream; yield the last, padded window if there are frames that no full window has covered."""
        if self._frames or (self._last is None and self._halves):
            num_real = self._step * len(self._halves) + len(self._frames)
            rest = list(self._model.pyramids(iter(self._frames), self._plan))
            last = rest[-1] if rest else tuple(level[-1:] for level in self._halves[-1])
            halves = list(self._halves)
            while len(halves) < 2:
                halves.append(_joined(rest + [last] * (self._step - len(rest))))
                rest = []
            yield self._window(halves, num_real)

    def _window(self, halves: list[Pyramid], num_real: int) -> WindowResult:
        """Refine all points in one window, whose first `num_real` frames are not padding."""
        stop = self._start + num_real
        query_frames = self._queries[:, 0].long()
        self._fill_support(halves, stop)
        members = torch.arange(len(self._queries))
        if self._late == "join":
            members = members[query_frames < stop]
        xy = (self._queries[members, 1:] / STRIDE).to(self._model.device, non_blocking=True)
        estimates = Estimates.initial(xy, self._length)
        self._carry_over(estimates, members)
        chosen = members.to(self._model.device, non_blocking=True)
        self._model.refine(
            estimates,
            lambda: _chunks(halves, self._plan.frame_block),
            tuple(level[chosen] for level in self._support),
            resolution=self._model.resolution,
            num_iters=self._num_iters,
            plan=self._plan,
        )
        self._last = members, estimates
        reported = (members >= self._num_support) & (query_frames[members] < stop)
        xy, logits = estimates.xy[reported, :num_real] * STRIDE, estimates.logits[reported, :num_real]
        visibility, confidence = logits.sigmoid().permute(2, 1, 0).cpu().numpy()
        scale = scale_between(self._model.resolution, self._size)
        return WindowResult(
            start=self._start,
            points=(members[reported] - self._num_support).numpy(),
            xy=xy.transpose(0, 1).cpu().numpy() * scale,
            visibility=visibility,
            confidence=confidence,
        )

    def _fill_support(self, halves: list[Pyramid], stop: int) -> None:
        """Sample the support of the queries whose frame is in a window for the first time; it is kept until the end."""
        query_frames = torch.where(self._has_support, -1, self._queries[:, 0].long())
        query_frames[query_frames >= stop] = -1
        query_xy = (self._queries[:, 1:] / STRIDE).to(self._model.device, non_blocking=True)
        for number, half in enumerate(halves):
            start = self._start + number * self._step
            fill_support(
                self._support, half, self._sizes, start, query_frames.tolist(), query_xy, self._plan.query_block
            )
        self._has_support |= query_frames >= 0

    def _carry_over(self, estimates: Estimates, members: Tensor) -> None:
        """Initialize from the last window's estimates, for the points whose query frame is before its end."""
        if self._last is None:
            return
        last_members, last = self._last
        has_estimate = self._queries[last_members, 0].long() < self._start + self._step
        source = torch.nonzero(has_estimate).view(-1)
        # Members are in ascending order, and every member of a window is a member of the next.
        target = torch.searchsorted(members, last_members[source]).to(self._model.device, non_blocking=True)
        source = source.to(self._model.device, non_blocking=True)
        for now, before in ((estimates.xy, last.xy), (estimates.logits, last.logits)):
            overlap = before[source, self._step :]
            now[target, : self._step] = overlap
            now[target, self._step :] = overlap[:, -1:]


def _joined(frames: list[Pyramid]) -> Pyramid:
    return tuple(torch.cat(level) for level in zip(*frames))


def _chunks(halves: list[Pyramid], frame_block: int) -> Iterator[Chunk]:
    start = 0
    for half in halves:
        for first in range(0, len(half[0]), frame_block):
            pyramid = tuple(level[first : first + frame_block] for level in half)
            yield start, pyramid
            start += len(pyramid[0])


def track_online(
    model: CoTracker3,
    frames: Frames,
    query_points: Float32Array,
    *,
    support_grid: bool = False,
    late_queries: LateQueries = "always",
    backward_frames: Frames | None = None,
    num_iters: int = 6,
    visibility_threshold: float = 0.6,
    plan: MemoryPlan | None = None,
) -> Tracks:
    """Track points through a stream of any length; only the result grows with it.

    Args:
        frames: (T, H, W, 3) uint8 RGB, or blocks of that shape.
        query_points: (N, 3): row of the frame, x, y in source px.
        support_grid: add a grid of 36 support points on frame 0, whose tracks are dropped.
        late_queries: see `LateQueries`.
        backward_frames: the frames from the last query's back to frame 0, in that order, to track before the queries.
            For an array: `frames[last::-1]`.
        num_iters: refinement iterations per window.
        visibility_threshold: a point is visible where visibility · confidence is above this.
        plan: block sizes; None: chosen by the free memory.
    Returns:
        Tracks in source px. Before the first window that contains its query a point is at its query, not visible,
        with probabilities 0.
    Raises:
        OutOfMemory: one window does not fit; raised before anything is computed.
        ValueError: a query outside the clip, frames of another shape or type, or a wrong number of backward_frames.
    """
    points = np.asarray(query_points, dtype=np.float32).reshape(-1, 3)
    plan = plan or model.choose_plan(model.window_len, len(points) + SUPPORT_SIDE**2 * support_grid)
    state = _track_stream(model, frames, points, support_grid, late_queries, num_iters, plan)
    query_rows = points[:, 0].astype(np.int64)
    beyond = query_rows[(query_rows < 0) | (query_rows >= len(state))]
    if len(beyond):
        raise ValueError(f"query frames {beyond[:10].tolist()} are outside the clip, expected 0..{len(state) - 1}")
    past = np.flatnonzero(query_rows)
    if backward_frames is not None and len(past):
        last = int(query_rows.max())
        mirrored = points[past].copy()
        mirrored[:, 0] = last - mirrored[:, 0]
        reverse = _track_stream(model, backward_frames, mirrored, support_grid, late_queries, num_iters, plan)
        if len(reverse) != last + 1:
            raise ValueError(f"backward_frames: got {len(reverse)} frames, expected {last + 1}: from {last} back to 0")
        before = np.arange(last + 1)[:, None] < query_rows[past]
        state[: last + 1, past] = np.where(before[..., None], reverse[::-1], state[: last + 1, past])
    visibility, confidence = np.ascontiguousarray(np.moveaxis(state[..., 2:], -1, 0))
    return Tracks(
        xy=np.ascontiguousarray(state[..., :2]),
        visible=visibility * confidence > visibility_threshold,
        visibility=visibility,
        confidence=confidence,
    )


def _track_stream(
    model: CoTracker3,
    frames: Frames,
    points: Float32Array,
    support_grid: bool,
    late_queries: LateQueries,
    num_iters: int,
    plan: MemoryPlan,
) -> Float32Array:
    """(T, N, 4): x, y in source px, visibility, confidence."""
    reader = FrameReader.open(frames, model.resolution, model.device)
    session = OnlineSession(
        model,
        size=reader.size,
        num_iters=num_iters,
        late_queries=late_queries,
        support_grid=support_grid,
        plan=plan,
    )
    session.add_queries(points)
    unknown = np.concatenate([points[:, 1:], np.zeros((len(points), 2))], axis=1).astype(np.float32)
    rows: list[Float32Array] = []
    for result in _results(session, reader):
        num_frames = result.start + len(result.xy)
        rows += [unknown.copy() for _ in range(num_frames - len(rows))]
        estimated = np.concatenate([result.xy, result.visibility[..., None], result.confidence[..., None]], axis=-1)
        for row, values in zip(rows[result.start :], estimated):
            row[result.points] = values
    return np.stack(rows)


def _results(session: OnlineSession, reader: FrameReader) -> Iterator[WindowResult]:
    for frame in reader():
        yield from session.feed_resized(frame)
    yield from session.finish()
