"""The contract of every tracker (`aot.tracking.base`), as a test class to inherit from."""

from __future__ import annotations

import numpy as np
import pytest

from aot.tracking.base import Tracker
from aot.types import QueryPoints, Tracks
from tests.fakes import ArraySource
from tests.synthetic import moving_square

KEPT = [0, 1, 3, 4, 6, 7]
# On the first, a middle and the last kept frame, unordered; one is duplicated, one is in the corner.
QUERIES = [(4, 30.25, 30.5), (0, 18, 30), (7, 40, 25.75), (0, 18, 30), (4, 0, 0)]
# Tolerance of probabilities in float32.
ROUNDING = 1e-5


def clip() -> ArraySource:
    """Eight frames, of which six are kept."""
    source = ArraySource(moving_square(8))
    source.keep(np.array(KEPT))
    return source


def query(*txy: tuple[float, float, float]) -> QueryPoints:
    return QueryPoints(np.array(txy, np.float32).reshape(-1, 3), np.arange(1, len(txy) + 1, dtype=np.int32))


def check(tracks: Tracks, source: ArraySource, queries: QueryPoints) -> None:
    """Check shapes and ranges, and that each track has its query's position on the query frame and is visible there."""
    assert tracks.xy.shape == (len(source.index), len(queries), 2)
    assert np.isfinite(tracks.xy).all()
    for probability in (tracks.visibility, tracks.confidence):
        assert ((probability >= -ROUNDING) & (probability <= 1 + ROUNDING)).all()
    rows, columns = source.rows(queries.txy[:, 0].astype(np.int64)), np.arange(len(queries))
    np.testing.assert_allclose(tracks.xy[rows, columns], queries.txy[:, 1:], atol=1e-3)
    assert tracks.visible[rows, columns].all()


class TrackerContract:
    """To inherit from; requires a fixture `tracker`."""

    @pytest.fixture
    def tracker(self) -> Tracker:
        raise NotImplementedError

    def test_queries_on_any_kept_frame(self, tracker: Tracker) -> None:
        source, queries = clip(), query(*QUERIES)
        check(tracker.track(source, queries), source, queries)
        assert source.index.tolist() == KEPT
        assert np.array_equal(queries.txy, query(*QUERIES).txy), "the queries are not modified"

    @pytest.mark.parametrize("frame", [0, 7])
    def test_one_query_at_an_end_of_the_clip(self, tracker: Tracker, frame: int) -> None:
        source, queries = clip(), query((frame, 30, 30))
        check(tracker.track(source, queries), source, queries)

    def test_clip_of_one_frame(self, tracker: Tracker) -> None:
        source, queries = ArraySource(moving_square(1)), query((0, 18, 30), (0, 20, 32))
        check(tracker.track(source, queries), source, queries)

    def test_one_instance_serves_many_clips(self, tracker: Tracker) -> None:
        first = tracker.track(clip(), query(*QUERIES))
        tracker.track(ArraySource(moving_square(3, 50, 40, seed=1)), query((1, 20, 20)))
        again = tracker.track(clip(), query(*QUERIES))
        np.testing.assert_allclose(again.xy, first.xy, atol=1e-3)
        np.testing.assert_allclose(again.visibility, first.visibility, atol=1e-4)
