"""Edge cases of the online predictor and its session."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from aot.tracking.cotracker3 import CoTracker3, MemoryPlan, OnlineSession, load_model, track_online
from aot.tracking.cotracker3.model import Estimates
from aot.tracking.cotracker3.sizes import CHANNELS, NUM_LEVELS, PATCH, LateQueries, level_sizes
from tests.synthetic import moving_square
from tests.tracking.cotracker3.weights import golden_weights

pytestmark = pytest.mark.usefixtures("one_thread")

# Refinement iterations, sufficient for these tests; the golden files use six.
FEW = 1
NUM_FRAMES = 29
FRAMES = moving_square(NUM_FRAMES)
EARLY = np.array([[0, 20, 30], [5, 40, 25], [5, 0, 63]], dtype=np.float32)
LATE = np.array([[20, 60, 40], [28, 95, 63], [16, 50, 20]], dtype=np.float32)
BOTH = np.concatenate([EARLY, LATE])


def first_window(frame: float) -> int:
    return max(0, -(-(int(frame) - 15) // 8)) * 8


@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25])
def test_every_frame_from_the_query_window_on_is_estimated(online: CoTracker3, num_frames: int) -> None:
    queries = np.array([[0, 20, 30], [num_frames - 1, 40, 25]], np.float32)
    tracks = track_online(online, FRAMES[:num_frames], queries, num_iters=FEW)
    assert tracks.xy.shape == (num_frames, 2, 2)
    assert np.isfinite(tracks.xy).all()
    for column, frame in enumerate(queries[:, 0]):
        begin = first_window(frame)
        assert (tracks.visibility[begin:, column] > 0).all()
        assert (tracks.visibility[:begin, column] == 0).all()
        assert not tracks.visible[:begin, column].any()
        np.testing.assert_array_equal(tracks.xy[:begin, column], np.tile(queries[column, 1:], (begin, 1)))


@pytest.mark.parametrize("num_frames", [1, 8, 9, 16, 17, 24, 25, 33])
def test_windows_start_every_8_frames_and_cover_the_clip(online: CoTracker3, num_frames: int) -> None:
    session = OnlineSession(online, size=(64, 96), num_iters=FEW)
    session.add_queries(EARLY[:1])
    frames = moving_square(num_frames)
    results = [*session.feed(frames), *session.finish()]
    last = max(0, -(-(num_frames - 16) // 8)) * 8
    assert [result.start for result in results] == list(range(0, last + 1, 8))
    assert session.num_frames == num_frames
    assert results[-1].start + len(results[-1].xy) == num_frames


def test_tracks_do_not_depend_on_block_sizes(online: CoTracker3) -> None:
    expected = track_online(online, FRAMES, BOTH, num_iters=FEW)

    def blocks(length: int) -> Iterator[np.ndarray]:
        return (FRAMES[start : start + length] for start in range(0, NUM_FRAMES, length))

    for length in (5, 16):
        found = track_online(online, blocks(length), BOTH, num_iters=FEW)
        np.testing.assert_array_equal(found.xy, expected.xy)


@pytest.mark.parametrize(("late_queries", "has_influence"), [("always", True), ("join", False)])
def test_influence_of_late_queries_before_their_window(
    online: CoTracker3, late_queries: LateQueries, has_influence: bool
) -> None:
    early = track_online(online, FRAMES, EARLY, late_queries=late_queries, num_iters=FEW)
    together = track_online(online, FRAMES, BOTH, late_queries=late_queries, num_iters=FEW)
    # Frames before this one are in no window that contains a late query's frame.
    before = first_window(LATE[:, 0].min())
    change = np.abs(early.xy - together.xy[:, :3]).max(axis=(1, 2))
    assert (change[:before].max() > 1e-4) == has_influence
    assert change[before:].max() > 1e-4, "from there on they have influence in both cases"


def test_joining_queries_can_be_added_while_streaming(online: CoTracker3) -> None:
    """Adding a query just before its window gives the same tracks as adding it at the start."""
    expected = track_online(online, FRAMES, BOTH, late_queries="join", num_iters=FEW)
    session = OnlineSession(online, size=(64, 96), late_queries="join", num_iters=FEW)
    session.add_queries(EARLY)
    found = np.zeros((NUM_FRAMES, 6, 2), np.float32)
    for t, frame in enumerate(FRAMES):
        if t == 15:  # the window that begins at 8 ends at 23 and contains the frames 16 and 20
            session.add_queries(LATE)
        for result in session.feed(frame[None]):
            found[result.start : result.start + 16, result.points] = result.xy
    for result in session.finish():
        found[result.start :, result.points] = result.xy
    for column, frame in enumerate(BOTH[:, 0]):
        begin = first_window(frame)
        np.testing.assert_allclose(found[begin:, column], expected.xy[begin:, column], atol=1e-3)


def test_query_before_the_next_window_is_refused(online: CoTracker3) -> None:
    session = OnlineSession(online, size=(64, 96), num_iters=FEW)
    session.add_queries(EARLY)
    assert len(list(session.feed(FRAMES[:16]))) == 1
    with pytest.raises(ValueError, match=r"queries on frames \[7\] are too late: the next window begins at frame 8"):
        session.add_queries(np.array([[7, 5, 5], [8, 5, 5]], np.float32))
    session.add_queries(np.array([[8, 5, 5]], np.float32))
    (result,) = session.feed(FRAMES[16:24])
    assert result.points.tolist() == [0, 1, 2, 3]


def test_backward_equals_tracking_the_reversed_clip(online: CoTracker3) -> None:
    queries = np.array([[0, 20, 30], [12, 40, 25], [25, 60, 40]], np.float32)
    forwards = track_online(online, FRAMES, queries, num_iters=FEW)
    both = track_online(online, FRAMES, queries, backward_frames=FRAMES[25::-1], num_iters=FEW)
    mirrored = np.array([[13, 40, 25], [0, 60, 40]], np.float32)
    reverse = track_online(online, FRAMES[25::-1], mirrored, num_iters=FEW)
    before = np.arange(NUM_FRAMES)[:, None] < queries[:, 0]
    np.testing.assert_array_equal(both.xy[~before], forwards.xy[~before])
    for column, own in ((1, 0), (2, 1)):
        frame = int(queries[column, 0])
        np.testing.assert_array_equal(both.xy[:frame, column], reverse.xy[::-1][:frame, own])
        assert (both.visibility[:frame, column] > 0).all()


def test_backward_frames_must_end_at_frame_0(online: CoTracker3) -> None:
    with pytest.raises(ValueError, match="backward_frames: got 4 frames, expected 6: from 5 back to 0"):
        track_online(online, FRAMES, EARLY, backward_frames=FRAMES[5:1:-1], num_iters=FEW)


def test_threshold_applies_to_the_product_of_probabilities(online: CoTracker3) -> None:
    tracks = track_online(online, FRAMES, EARLY, num_iters=FEW, visibility_threshold=0.3)
    np.testing.assert_array_equal(tracks.visible, tracks.visibility * tracks.confidence > 0.3)


def test_support_points_influence_tracks_and_are_not_returned(online: CoTracker3) -> None:
    without, with_support = (
        track_online(online, FRAMES, BOTH, support_grid=given, num_iters=FEW) for given in (False, True)
    )
    assert without.xy.shape == with_support.xy.shape
    assert np.abs(without.xy - with_support.xy).max() > 1e-3


def test_no_points_give_empty_tracks(online: CoTracker3) -> None:
    assert track_online(online, FRAMES, np.zeros((0, 3), np.float32), num_iters=FEW).xy.shape == (NUM_FRAMES, 0, 2)


def test_invalid_arguments_are_refused(online: CoTracker3, offline: CoTracker3) -> None:
    with pytest.raises(ValueError, match=r"query frames \[29\] are outside the clip, expected 0\.\.28"):
        track_online(online, FRAMES, np.array([[29, 5, 5]], np.float32), num_iters=FEW)
    with pytest.raises(ValueError, match="got a model of mode 'offline', expected one loaded with mode='online'"):
        OnlineSession(offline, size=(64, 96))


def tensor_bytes(session: OnlineSession) -> int:
    """Bytes of all different tensors that a session holds, without the model's."""
    found: dict[int, int] = {}

    def collect(value: object) -> None:
        if isinstance(value, torch.Tensor):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item)
        elif isinstance(value, Estimates):
            collect([value.xy, value.logits])

    collect([value for value in vars(session).values() if not isinstance(value, CoTracker3)])
    return sum(found.values())


@pytest.mark.parametrize("late_queries", ["always", "join"])
def test_a_session_holds_one_window(online: CoTracker3, late_queries: LateQueries) -> None:
    session = OnlineSession(online, size=(64, 96), num_iters=FEW, late_queries=late_queries)
    session.add_queries(np.concatenate([EARLY, LATE]))
    held = []
    for _ in session.feed(moving_square(15)):  # the features of 8 frames, 7 frames, no estimate yet
        pytest.fail("no window is complete")
    for _ in range(8):
        list(session.feed(moving_square(8)))
        held.append(tensor_bytes(session))
    assert len(set(held[2:])) == 1, "from the window on that contains the last query"
    half = sum(8 * h * w for h, w in level_sizes(online.resolution)) * CHANNELS * 4
    frames = 7 * 3 * prod(online.resolution) * 4
    support = 6 * NUM_LEVELS * PATCH * CHANNELS * 4
    others = 6 * (16 * 4 * 4 + 3 * 4 + 1 + 8)
    assert half + frames + support < held[-1] <= half + frames + support + others


@pytest.mark.long
def test_ten_thousand_frames_at_constant_memory(record_property: Callable[[str, object], None]) -> None:
    """Queries are added on several frames; memory kept after a window would accumulate.

    Quick counterpart: `test_a_session_holds_one_window`.
    """
    # bf16 only to reduce the time.
    model = load_model(golden_weights(mode="online"), mode="online", resolution=(32, 32), precision="bf16")
    frames = moving_square(60)
    session = OnlineSession(
        model, size=(64, 96), num_iters=1, late_queries="join", plan=MemoryPlan(query_block=4, frame_block=16)
    )
    peaks, num_estimated = [], 0
    for start in range(0, 10_000, 50):
        if start % 2500 == 0:
            session.add_queries(np.array([[start + 20, 10, 30]], np.float32))
        block = np.stack(list(itertools.islice(itertools.cycle(frames), 50)))
        for result in session.feed(block):
            num_estimated = result.start + len(result.xy)
        peaks.append(resident_bytes())
    assert num_estimated >= 10_000 - 8
    assert result.points.tolist() == [0, 1, 2, 3]
    growth = max(peaks[-40:]) - max(peaks[40:80])
    record_property("figure", f"{growth / 1e6:.1f} MB more after 10,000 frames than after 4,000")
    assert growth < 8e6


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
