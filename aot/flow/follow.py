"""Tracks that follow their objects: measured against the masks, ended where they drift off, completed by new points."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from aot.flow.comparison import MaskComparison, MasksOf, compare_with_masks
from aot.flow.coverage import measure_coverage, spacing_px
from aot.flow.drift import find_lifetimes
from aot.flow.options import MAX_ADDED_PER_POINT, PointOptions
from aot.flow.reseed import new_points, worst_rows
from aot.lifetimes import Lifetimes
from aot.query_points.base import QuerySampler
from aot.types import BoolArray, Float32Array, Float64Array, Int64Array, QueryPoints, Tracks

_Part = TypeVar("_Part", QueryPoints, Tracks)


@dataclass(frozen=True)
class FollowedTracks:
    """Tracks, and what their objects' masks say about them."""

    queries: QueryPoints
    """N; those of added points come last."""
    tracks: Tracks
    in_mask: BoolArray
    """(T, N) whether each position is in its own object's mask."""
    lifetimes: Lifetimes
    coverage: Float64Array
    """(T, K) fraction of each object's mask that its valid points cover; NaN without a mask."""
    area: Int64Array
    """(T, K) pixels of each object's mask."""
    stability: dict[int, float]
    """Object id → stability of its masks."""
    num_added: int
    """How many of the points were added."""

    @property
    def added(self) -> BoolArray:
        """(N,) whether each point was added."""
        return np.arange(len(self.queries)) >= len(self.queries) - self.num_added

    def mean_coverage(self, object_ids: Sequence[int]) -> dict[int, float]:
        """Object id → mean coverage of its masks; NaN without any. `object_ids`: in the order of the masks."""
        known = ~np.isnan(self.coverage)
        return {
            object_id: float(self.coverage[known[:, k], k].mean()) if known[:, k].any() else math.nan
            for k, object_id in enumerate(object_ids)
        }


@dataclass(frozen=True)
class Follower:
    """Compares the tracks of one clip with its masks, and adds points.

    Args:
        index: (T,) source frames.
        frame_size: height and width, px.
        object_ids: K ids, in the order of the masks.
        masks_of: the masks of a source frame.
        sampler: of the points; its spacing decides what is covered.
        options: of the points.
        fixed_ids: objects whose points the manifest gives; none are added to them.
    """

    index: Int64Array
    frame_size: tuple[int, int]
    object_ids: Sequence[int]
    masks_of: MasksOf
    sampler: QuerySampler
    options: PointOptions
    fixed_ids: frozenset[int] = frozenset()

    def measure(self, queries: QueryPoints, tracks: Tracks) -> FollowedTracks:
        """Compare tracks with the masks."""
        compared = self._compare(queries, tracks)
        life = self._lifetimes(queries, tracks, compared)
        return FollowedTracks(
            queries=queries,
            tracks=tracks,
            in_mask=compared.in_mask,
            lifetimes=life,
            coverage=self._coverage(queries, tracks, life),
            area=compared.area,
            stability=compared.stability,
            num_added=0,
        )

    def reseed(self, first: FollowedTracks, track: Callable[[QueryPoints], Tracks]) -> FollowedTracks:
        """Add points where objects are not covered, and track them, until they are or the limits are reached.

        Args:
            first: the tracks of the points that the objects started with; they do not change.
            track: tracks points through all kept frames.
        """
        found = first
        for number in range(self.options.reseed_rounds):
            added = self._place(found, first, self.options.reseed_rounds - number)
            if added is None:
                break
            found = self._joined(found, added, track(added))
        return found

    def max_points(self, queries: QueryPoints) -> int:
        """The number of points at the end, at most, for those that the objects start with."""
        if not self.options.reseed:
            return len(queries)
        return sum(self._max_points_of(object_id, queries) for object_id in self.object_ids)

    def _max_points_of(self, object_id: int, first: QueryPoints) -> int:
        num_first = int((first.object_id == object_id).sum())
        if object_id in self.fixed_ids:
            return num_first
        return num_first + min(self.options.reseed_max_points, MAX_ADDED_PER_POINT * num_first)

    def _compare(self, queries: QueryPoints, tracks: Tracks) -> MaskComparison:
        return compare_with_masks(
            tracks.xy, queries.object_id, self.object_ids, self.index, self.masks_of, self.options.drift_px
        )

    def _lifetimes(self, queries: QueryPoints, tracks: Tracks, compared: MaskComparison) -> Lifetimes:
        return find_lifetimes(
            tracks.visible,
            compared,
            np.searchsorted(self.index, queries.txy[:, 0].astype(np.int64)),
            np.searchsorted(self.object_ids, queries.object_id),
            self.index,
            self.options.drift_frames,
        )

    def _coverage(self, queries: QueryPoints, tracks: Tracks, life: Lifetimes) -> Float64Array:
        return measure_coverage(
            tracks.xy,
            life.valid,
            queries.object_id,
            self.object_ids,
            self.index,
            self.masks_of,
            self.sampler,
            self.frame_size,
        )

    def _place(self, found: FollowedTracks, first: FollowedTracks, rounds_left: int) -> QueryPoints | None:
        """The points of one round; None: every object is covered, or has all the points that it may get."""
        txy: list[Float32Array] = []
        object_ids: list[int] = []
        for k, object_id in enumerate(self.object_ids):
            if object_id in self.fixed_ids:
                continue
            limit = self._max_points_of(object_id, first.queries)
            num_now = int((found.queries.object_id == object_id).sum())
            points = self._place_on(k, found, math.ceil((limit - num_now) / rounds_left))
            txy.append(points)
            object_ids += [object_id] * len(points)
        if not object_ids:
            return None
        return QueryPoints(np.concatenate(txy), np.asarray(object_ids, dtype=np.int32))

    def _place_on(self, k: int, found: FollowedTracks, max_points: int) -> Float32Array:
        """(P, 3) new points of one object."""
        placed = [np.zeros((0, 3), dtype=np.float32)]
        is_own = found.queries.object_id == self.object_ids[k]
        for row in worst_rows(found.coverage[:, k], found.area[:, k], self.options.min_coverage):
            frame = int(self.index[row])
            mask = (self.masks_of(frame) or ())[k]
            xy = found.tracks.xy[row, is_own & found.lifetimes.valid[row]]
            spacing = spacing_px(self.sampler, mask.area, self.frame_size)
            points = new_points(mask, xy, spacing, max_points - sum(map(len, placed)))
            placed.append(np.column_stack([np.full(len(points), frame, dtype=np.float32), points]))
        return np.concatenate(placed)

    def _joined(self, found: FollowedTracks, queries: QueryPoints, tracks: Tracks) -> FollowedTracks:
        """The tracks found so far and added ones; only the added ones are compared with the masks."""
        compared = self._compare(queries, tracks)
        added = self._lifetimes(queries, tracks, compared)
        all_queries, all_tracks = _concatenated(found.queries, queries, 0), _concatenated(found.tracks, tracks, 1)
        life = Lifetimes(
            born=np.concatenate([found.lifetimes.born, added.born]),
            ended=np.concatenate([found.lifetimes.ended, added.ended]),
            valid=np.concatenate([found.lifetimes.valid, added.valid], axis=1),
        )
        return replace(
            found,
            queries=all_queries,
            tracks=all_tracks,
            in_mask=np.concatenate([found.in_mask, compared.in_mask], axis=1),
            lifetimes=life,
            coverage=self._coverage(all_queries, all_tracks, life),
            num_added=found.num_added + len(queries),
        )


def _concatenated(before: _Part, after: _Part, axis: int) -> _Part:
    """Two groups of points as one."""
    values = {
        item.name: np.concatenate([getattr(before, item.name), getattr(after, item.name)], axis=axis)
        for item in fields(before)
    }
    return type(before)(**values)
