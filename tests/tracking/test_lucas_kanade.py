"""Lucas-Kanade on clips with known motion."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from aot.errors import OutOfMemory, TrackingError
from aot.tracking.base import Tracker
from aot.tracking.lucas_kanade import LucasKanadeTracker
from aot.types import FrameBlock, Int64Array, QueryPoints, Tracks
from tests.fakes import ArraySource
from tests.tracking.contract import TrackerContract, check

HEIGHT, WIDTH = 120, 160
FLOAT32_ROUNDING = 1e-3


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Blobs of a few pixels in every colour: (height, width, 3) uint8."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.clip(128 + smooth * 60 / smooth.std(), 0, 255).astype(np.uint8)


def panning_clip(num_frames: int, step: tuple[int, int]) -> np.ndarray:
    """A textured plane whose content moves by `step` px (x, y) per frame."""
    reach = num_frames * max(map(abs, step))
    plane = texture(HEIGHT + 2 * reach, WIDTH + 2 * reach, seed=0)
    corners = [(reach - step[1] * t, reach - step[0] * t) for t in range(num_frames)]
    return np.stack([plane[y : y + HEIGHT, x : x + WIDTH] for y, x in corners])


def object_clip(num_frames: int, step: int, pole: bool) -> np.ndarray:
    """A red textured square of 40 px moving right in front of a static background, and behind a grey pole if `pole`."""
    background, square = texture(HEIGHT, WIDTH, seed=1), texture(40, 40, seed=2)
    square[..., 0] = 200 + square[..., 0] // 5
    background[..., 0] //= 4
    frames = np.repeat(background[None], num_frames, axis=0)
    for t, frame in enumerate(frames):
        frame[40:80, 20 + step * t : 60 + step * t] = square
        if pole:
            frame[:, 84:92] = 128
    return frames


def query(*points: tuple[float, float, float], object_id: list[int] | None = None) -> QueryPoints:
    ids = object_id or [1] * len(points)
    return QueryPoints(txy=np.array(points, dtype=np.float32).reshape(-1, 3), object_id=np.array(ids, dtype=np.int32))


def track(source: ArraySource, queries: QueryPoints) -> Tracks:
    """Track, and check the contract and that both probabilities are 1 on the query frame."""
    tracks = LucasKanadeTracker().track(source, queries)
    check(tracks, source, queries)
    rows, own = source.rows(queries.txy[:, 0].astype(np.int64)), np.arange(len(queries))
    assert (tracks.visibility[rows, own] == 1).all()
    assert (tracks.confidence[rows, own] == 1).all()
    return tracks


class TestContract(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Tracker:
        return LucasKanadeTracker()


@pytest.mark.parametrize("step", [(2, 0), (-3, 2), (0, -7)])
def test_tracks_a_pan_forwards_and_backwards(step: tuple[int, int]) -> None:
    frames = panning_clip(9, step)
    queries = query((0, 80, 60), (4, 70.25, 55.5), (8, 80, 64), (4, 90, 70))
    tracks = track(ArraySource(frames), queries)
    time = np.arange(9)[:, None, None] - queries.txy[None, :, :1]
    truth = queries.txy[None, :, 1:] + time * np.array(step)
    inside = ((truth > 8) & (truth < [WIDTH - 9, HEIGHT - 9])).all(axis=2)
    assert np.linalg.norm(tracks.xy - truth, axis=2)[inside].max() < 0.3
    assert tracks.visible[inside].all()


def test_points_of_a_decimated_clip_start_at_their_source_frame() -> None:
    source = ArraySource(panning_clip(12, (1, 1)))
    source.keep(np.array([0, 4, 7, 8], dtype=np.int64))
    queries = query((7, 80, 60), (0, 70, 60))
    tracks = track(source, queries)
    np.testing.assert_allclose(tracks.xy[:, 0], [[73, 53], [77, 57], [80, 60], [81, 61]], atol=0.3)


def test_point_stays_on_object_before_static_background() -> None:
    frames = object_clip(15, 4, pole=False)
    edge = [(0, x, y) for x in (22, 40, 57) for y in (42, 60, 77)]  # half of these patches is background
    tracks = LucasKanadeTracker().track(ArraySource(frames), query(*edge))
    truth = np.array(edge)[:, 1:] + np.arange(15)[:, None, None] * [4, 0]
    assert np.linalg.norm(tracks.xy - truth, axis=2).max() < 3
    assert tracks.visible.mean() > 0.95


def test_occluded_point_is_carried_and_recovered() -> None:
    frames = object_clip(20, 3, pole=True)
    points = [(0, 50, 60), (0, 30, 50), (0, 30, 70), (0, 40, 45), (0, 40, 75)]
    tracks = LucasKanadeTracker().track(ArraySource(frames), query(*points))
    truth = np.array(points)[:, 1:] + np.arange(20)[:, None, None] * [3, 0]
    behind = (truth[..., 0] >= 85) & (truth[..., 0] <= 90)
    assert behind[:, 0].any()
    assert not tracks.visible[behind].any()
    assert np.linalg.norm(tracks.xy - truth, axis=2).max() < 6
    assert tracks.visible[-1, 0]


def test_points_are_carried_only_by_their_own_object() -> None:
    """The only point of an object that disappears stays in place; it does not follow another object."""
    frames = object_clip(8, 4, pole=False)
    frames[0, 5:15, 100:110] = (0, 255, 0)
    queries = query((0, 105, 10), (0, 40, 60), (0, 45, 65), object_id=[2, 1, 1])
    tracks = LucasKanadeTracker().track(ArraySource(frames), queries)
    assert not tracks.visible[1:, 0].any()
    np.testing.assert_allclose(tracks.xy[-1, 0], [105, 10], atol=1)
    np.testing.assert_allclose(tracks.xy[-1, 1], [68, 60], atol=1)


def test_point_outside_the_frame_is_not_visible() -> None:
    tracks = LucasKanadeTracker().track(ArraySource(panning_clip(12, (5, 0))), query((0, 140, 60), (0, 60, 60)))
    assert not tracks.visible[6:, 0].any()
    assert tracks.visible[:, 1].all()


def test_cut_ends_visibility() -> None:
    frames = panning_clip(6, (1, 0))
    frames[3:] = texture(HEIGHT, WIDTH, seed=9)
    tracks = LucasKanadeTracker().track(ArraySource(frames), query(*[(0, x, 60) for x in range(30, 130, 10)]))
    assert tracks.visible[:3].all()
    assert tracks.visible[3].mean() < 0.5
    assert tracks.visibility[3].mean() < tracks.visibility[2].mean()


def test_tracks_through_fading_light() -> None:
    """At the end all colours differ from those at the queries, so no appearance matches; flow remains reliable."""
    frames = panning_clip(25, (1, 1))
    fading = (frames * np.linspace(1, 0.5, 25)[:, None, None, None]).astype(np.uint8)
    tracks = LucasKanadeTracker().track(ArraySource(fading), query((0, 60, 60), (0, 70, 60), (0, 60, 70)))
    np.testing.assert_allclose(tracks.xy[-1], [[84, 84], [94, 84], [84, 94]], atol=4)


def test_tracks_a_fast_half_turn() -> None:
    """A textured disc turning by 6 degrees per frame: no shape or smoothness prior may suppress the motion."""
    rng = np.random.default_rng(5)
    image = cv2.GaussianBlur(rng.integers(0, 255, (161, 161, 3), dtype=np.uint8), (0, 0), 2)
    turns = [cv2.getRotationMatrix2D((80, 80), -6 * t, 1) for t in range(31)]
    frames = np.stack([cv2.warpAffine(image, turn, (161, 161), borderMode=cv2.BORDER_REFLECT) for turn in turns])
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    start = 80 + 40 * np.column_stack([np.cos(angles), np.sin(angles)])
    tracks = LucasKanadeTracker().track(ArraySource(frames), query(*[(0, x, y) for x, y in start]))
    truth = start @ turns[-1][:, :2].T + turns[-1][:, 2]
    assert (np.linalg.norm(tracks.xy[-1] - truth, axis=1) < 10).mean() > 0.9


@pytest.mark.parametrize("num_points", [6, 12])
def test_degenerate_point_sets(num_points: int) -> None:
    """Points on one pixel, and on a line, which do not determine rotation or scale."""
    frames = panning_clip(5, (2, 1))
    pixel = query(*[(0, 80, 60)] * num_points)
    line = query(*[(t % 2, 60 + 4 * t, 60) for t in range(num_points)])
    for queries in (pixel, line):
        tracks = LucasKanadeTracker().track(ArraySource(frames), queries)
        moved = (4 - queries.txy[:, :1]) * [2, 1]
        np.testing.assert_allclose(tracks.xy[-1], queries.txy[:, 1:] + moved, atol=0.5)


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 50), (7, 301), (33, 2)])
@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_any_size_and_length(shape: tuple[int, int], num_frames: int) -> None:
    height, width = shape
    frames = np.stack([texture(height, width, seed) for seed in range(num_frames)])
    corners = [(x, y) for x in (0, width - 1) for y in (0, height - 1)]
    queries = query(*[(t, x, y) for t in (0, num_frames - 1) for x, y in corners])
    track(ArraySource(frames), queries)


def test_points_on_blank_frames_do_not_move() -> None:
    tracks = LucasKanadeTracker().track(ArraySource(np.zeros((4, 40, 60, 3), np.uint8)), query((2, 30, 20)))
    np.testing.assert_allclose(tracks.xy, np.broadcast_to([30, 20], (4, 1, 2)), atol=FLOAT32_ROUNDING)


def test_no_points_give_empty_tracks() -> None:
    tracks = LucasKanadeTracker().track(ArraySource(panning_clip(3, (1, 0))), query())
    assert tracks.xy.shape == (3, 0, 2)


def test_large_frames_are_shrunk_for_measuring_only() -> None:
    frames = np.stack([cv2.resize(frame, None, fx=4, fy=4) for frame in panning_clip(4, (1, 2))])
    tracks = LucasKanadeTracker(max_side_px=WIDTH).track(ArraySource(frames), query((0, 320, 240), (0, 300, 250)))
    np.testing.assert_allclose(tracks.xy[-1], [[332, 264], [312, 274]], atol=1.5)


@pytest.mark.parametrize("num_points", [1, 30, 300])
def test_results_are_deterministic(num_points: int) -> None:
    source = ArraySource(object_clip(6, 4, pole=True))
    rng = np.random.default_rng(3)
    queries = query(*np.column_stack([rng.integers(0, 6, num_points), rng.uniform(0, 120, (num_points, 2))]))
    first, second = (LucasKanadeTracker().track(source, queries) for _ in range(2))
    np.testing.assert_array_equal(first.xy, second.xy)
    np.testing.assert_array_equal(first.visibility, second.visibility)


class RecordingSource(ArraySource):
    """Records which frames are read."""

    def blocks(self, index: Int64Array | None = None) -> Iterator[FrameBlock]:
        wanted = self.index if index is None else index
        self.requested = [*getattr(self, "requested", []), *wanted.tolist()]
        return super().blocks(index)


@pytest.mark.parametrize(
    ("query_frames", "expected"),
    [
        ([0, 0], [0, 1, 2, 3, 4]),
        ([2], [2, 3, 4, 2, 1, 0]),
        ([4], [4, 4, 3, 2, 1, 0]),
        ([1, 3], [1, 2, 3, 4, 3, 2, 1, 0]),
    ],
)
def test_reads_only_the_frames_it_needs(query_frames: list[int], expected: list[int]) -> None:
    source = RecordingSource(panning_clip(5, (1, 0)))
    LucasKanadeTracker().track(source, query(*[(t, 80, 60) for t in query_frames]))
    assert source.requested == expected


def test_query_on_a_dropped_frame_is_refused() -> None:
    source = ArraySource(panning_clip(6, (1, 0)))
    source.keep(np.array([0, 2, 4], dtype=np.int64))
    with pytest.raises(TrackingError, match=r"source frames \[3\] are not among the 3 kept frames"):
        LucasKanadeTracker().track(source, query((3, 80, 60)))


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (cv2.Error.StsNoMem, OutOfMemory, "out of memory in OpenCV"),
        (cv2.Error.StsBadArg, TrackingError, "could not compute"),
    ],
)
def test_opencv_errors_are_mapped(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], message: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        error = cv2.error("from OpenCV")
        error.code = code
        raise error

    monkeypatch.setattr(cv2, "calcOpticalFlowPyrLK", fail)
    with pytest.raises(kind, match=message):
        LucasKanadeTracker().track(ArraySource(panning_clip(3, (1, 0))), query((0, 80, 60)))


def test_visibility_decreases_with_the_return_error() -> None:
    """The same clip with stricter limits: e / limit grows, the probability decreases."""
    frames, queries = object_clip(10, 6, pole=True), query((0, 56, 60), (0, 40, 60))
    means = [
        LucasKanadeTracker(max_return_error_px=limit).track(ArraySource(frames), queries).visibility[1].mean()
        for limit in (10.0, 1.0, 0.01)
    ]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize("num_points", [5, 80, 600])
def test_needed_bytes_are_an_upper_bound_of_numpy_allocations(num_points: int) -> None:
    frames = panning_clip(12, (2, 1))
    frames[6:] = texture(HEIGHT, WIDTH, seed=9)  # a cut: points are lost, the others carry them
    rng = np.random.default_rng(0)
    queries = query(*np.column_stack([np.zeros(num_points), rng.uniform(5, 110, (num_points, 2))]))
    tracker, source = LucasKanadeTracker(), ArraySource(frames)
    tracemalloc.start()
    try:
        tracker.track(source, queries, lean=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = {"num_frames": 12, "width": WIDTH, "height": HEIGHT, "lean": True}
    growth = tracker.needed_bytes(num_points=num_points, **size) - tracker.needed_bytes(num_points=0, **size)
    assert peak < growth + 40 * frames[0].nbytes
