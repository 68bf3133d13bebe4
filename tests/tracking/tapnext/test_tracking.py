"""The predictor over a stream: order of points, directions, blocks, sessions, and source px."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from aot.errors import CheckpointError, ConfigError
from aot.tracking.tapnext import Session, TAPNext, load_model, track
from aot.tracking.tapnext.frames import to_network, to_source
from aot.tracking.tapnext.heads import Estimate
from aot.tracking.tapnext.sizes import NUM_BINS
from tests.synthetic import moving_square
from tests.tracking.tapnext.small import HERE, SMALL, golden_model, small_weights

pytestmark = pytest.mark.usefixtures("one_thread")

VIDEO = moving_square(7)
HEIGHT, WIDTH = VIDEO.shape[1:3]
POINTS = np.array([[4, 30, 25], [0, 12, 22], [2, 90, 60], [0, 0, 0], [6, 40, 30]], np.float32)
CLOSE = 1e-3
"""Px; the order of sums in float32 differs."""


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    with np.load(HERE / "whole_small.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def model(expected: dict[str, Any]) -> TAPNext:
    return golden_model(expected, input_resolution=64)


def test_points_are_pinned_and_not_visible_before_their_queries(model: TAPNext) -> None:
    tracks = track(model, VIDEO, POINTS)
    rows, own = POINTS[:, 0].astype(int), np.arange(len(POINTS))
    assert np.array_equal(tracks.xy[rows, own], POINTS[:, 1:])
    assert tracks.visible[rows, own].all()
    assert not tracks.visible[np.arange(len(VIDEO))[:, None] < rows].any()


def test_a_stream_gives_the_same_as_an_array(model: TAPNext) -> None:
    whole = track(model, VIDEO, POINTS, backward=True)
    stream = track(model, iter([VIDEO[:2], VIDEO[2:3], VIDEO[3:]]), POINTS, backward=True)
    given = track(model, VIDEO, POINTS, backward=True, backward_frames=VIDEO[::-1])
    for other in (stream, given):
        assert np.array_equal(other.xy, whole.xy)
        assert np.array_equal(other.visible, whole.visible)


def test_backward_is_the_reversed_clip_before_each_query(model: TAPNext) -> None:
    both = track(model, VIDEO, POINTS, backward=True)
    forwards = track(model, VIDEO, POINTS)
    late = np.flatnonzero(POINTS[:, 0])
    mirrored = POINTS[late] * [-1, 1, 1] + [6, 0, 0]
    reverse = track(model, VIDEO[::-1], mirrored.astype(np.float32))
    is_before = np.arange(len(VIDEO))[:, None] < POINTS[:, 0]
    assert np.array_equal(both.xy[~is_before], forwards.xy[~is_before])
    for number, point in enumerate(late):
        rows = np.arange(int(POINTS[point, 0]))
        np.testing.assert_allclose(both.xy[rows, point], reverse.xy[6 - rows, number], atol=CLOSE)
        assert np.array_equal(both.visible[rows, point], reverse.visible[6 - rows, number])


def test_one_token_for_all_points_that_have_not_begun_changes_nothing(model: TAPNext) -> None:
    """Against a token for each of them, as upstream computes it."""
    tracks = track(model, VIDEO, POINTS)
    state = model.new_state(model.sizes.num_image_tokens + len(POINTS))
    for row, frame in enumerate(VIDEO):
        image = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        image = torch.nn.functional.interpolate(image, (64, 64), mode="bilinear", align_corners=False)[0] / 127.5 - 1
        xy = torch.from_numpy(to_network(POINTS[:, 1:], (HEIGHT, WIDTH), 64))
        tokens = [
            model.query_tokens.beginning(xy)[number]
            if start == row
            else model.query_tokens.mask
            if start < row
            else model.query_tokens.unknown
            for number, start in enumerate(POINTS[:, 0])
        ]
        prediction = model(image, torch.stack(tokens), state, is_first=row == 0)
        np.testing.assert_allclose(tracks.visibility[row], prediction.visible_logit.sigmoid(), atol=1e-5)


@pytest.mark.parametrize("rows_at_once", [1, 7, 64])
def test_results_do_not_depend_on_the_tokens_at_once(model: TAPNext, rows_at_once: int) -> None:
    usual, other = track(model, VIDEO, POINTS), track(model, VIDEO, POINTS, rows_at_once=rows_at_once)
    np.testing.assert_allclose(other.xy, usual.xy, atol=CLOSE)
    np.testing.assert_allclose(other.confidence, usual.confidence, atol=1e-5)


def test_session_equals_a_pass_where_no_point_is_late(model: TAPNext) -> None:
    points = POINTS * [0, 1, 1]
    tracks = track(model, VIDEO, points.astype(np.float32))
    session = Session(model, size=(HEIGHT, WIDTH))
    session.add_points(points[:, 1:])
    for row, frame in enumerate(VIDEO):
        now = session.feed(frame)
        np.testing.assert_allclose(now.xy[0], tracks.xy[row], atol=CLOSE)
        assert np.array_equal(now.visible[0], tracks.visible[row])


def test_point_that_joins_a_session_does_not_change_earlier_frames(model: TAPNext) -> None:
    single, joined = (Session(model, size=(HEIGHT, WIDTH)) for _ in range(2))
    for session in (single, joined):
        session.add_points(POINTS[:1, 1:])
    for frame in VIDEO[:3]:
        assert np.array_equal(single.feed(frame).xy, joined.feed(frame).xy)
    joined.add_points(POINTS[1:, 1:])
    found = joined.feed(VIDEO[3])
    assert joined.num_points == len(POINTS)
    assert np.array_equal(found.xy[0, 1:], POINTS[1:, 1:])
    assert found.visible[0, 1:].all()
    assert np.isfinite(joined.feed(VIDEO[4]).xy).all()


def test_closed_session_takes_only_the_expected_points(model: TAPNext) -> None:
    session = Session(model, size=(HEIGHT, WIDTH), num_expected=1, is_open=False)
    with pytest.raises(ValueError, match="got 2 points, expected at most 1"):
        session.add_points(POINTS[:2, 1:])


def test_clip_without_points_has_no_tracks(model: TAPNext) -> None:
    assert track(model, VIDEO, np.zeros((0, 3), np.float32)).xy.shape == (len(VIDEO), 0, 2)


@pytest.mark.parametrize("size", [(48, 64), (37, 101)])
def test_centres_of_pixels_lie_at_integers(size: tuple[int, int]) -> None:
    """The corners of frames meet those of the network's image, and positions come back unchanged."""
    height, width = size
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]], np.float32)
    assert to_network(corners, size, 64).tolist() == [[0, 0], [64, 64]]
    assert to_source(np.array([[0, 0], [256, 256]], np.float32), size).tolist() == corners.tolist()
    shifted = to_source(to_network(np.array([[10.0, 20.0], [11.0, 21.0]], np.float32), size, 256), size)
    np.testing.assert_allclose(shifted, [[10, 20], [11, 21]], atol=1e-4)


def test_clip_shifted_by_one_pixel_gives_tracks_shifted_by_one_pixel(
    model: TAPNext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that finds the centre of the brightness returns the centre of the bright pixel in source px."""

    def centre(session: Session, image: torch.Tensor) -> Estimate:
        brightness = image[0] + 1
        place = (torch.arange(image.shape[1]) + 0.5) * NUM_BINS / image.shape[1]  # the centres of pixels, corner-based
        xy = torch.stack([(place * brightness.sum(axis)).sum() for axis in (0, 1)]) / brightness.sum()
        return Estimate(xy[None], torch.ones(1), torch.ones(1))

    monkeypatch.setattr(Session, "step", centre)
    frames = np.zeros((2, 32, 16, 3), np.uint8)
    frames[1, 20, 7] = frames[0, 20, 6] = 255
    xy = track(model, frames, np.array([[0, 6, 20]], np.float32), backward=False).xy
    np.testing.assert_allclose(xy[1, 0], [7, 20], atol=1e-4)
    shifted = track(model, np.roll(frames, (1, 1), axis=(1, 2)), np.array([[0, 7, 21]], np.float32)).xy
    np.testing.assert_allclose(shifted, xy + 1, atol=1e-4)


@pytest.mark.parametrize(
    ("frames", "points", "message"),
    [
        (VIDEO, [[7, 1, 1]], r"query frames \[7\] are outside the clip, expected 0..6"),
        (VIDEO.astype(np.float32), [[0, 1, 1]], "expected .* uint8"),
        (VIDEO[:0], [[0, 1, 1]], "got none, expected at least one"),
        ([VIDEO, VIDEO[:, :10]], [[0, 1, 1]], "expected one size"),
    ],
)
def test_wrong_input_is_refused(model: TAPNext, frames: Any, points: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        track(model, frames, np.array(points, np.float32))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 1], [0, 2], [0, 3]], r"got the shape \(3, 2\), expected \(n, 3\)"),
        ([[0, 1, 2], [0, math.nan, 2]], r"points \[1\] hold numbers that are not finite"),
    ],
)
def test_wrong_points_are_refused(model: TAPNext, points: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        track(model, VIDEO, np.array(points, np.float32))


def test_session_refuses_other_frames_and_points(model: TAPNext) -> None:
    session = Session(model, size=(HEIGHT, WIDTH))
    with pytest.raises(ValueError, match=r"got the shape \(2, 3\), expected \(n, 2\)"):
        session.add_points(POINTS[:2])
    with pytest.raises(ValueError, match=r"expected \(64, 96\), the size of the session"):
        session.feed(VIDEO[0, :20, :20])
    with pytest.raises(ValueError, match=r"expected .* uint8"):
        session.feed(VIDEO[0].astype(np.float32) / 255)


@pytest.mark.parametrize("rule", ["head", "certainty"])
def test_visibility_follows_the_rule_of_the_weights(expected: dict[str, Any], rule: str) -> None:
    tracks = track(golden_model(expected, input_resolution=64, visibility_rule=rule), VIDEO, POINTS[1:2])
    score = tracks.visibility if rule == "head" else tracks.visibility * tracks.confidence
    assert np.array_equal(tracks.visible[1:], score[1:] > 0.5)


def test_bf16_is_close(expected: dict[str, Any], model: TAPNext) -> None:
    """By the logits of visibility: rounding may choose another bin, which can be far away."""
    tracks = track(golden_model(expected, input_resolution=64, precision="bf16"), VIDEO, POINTS)
    exact = track(model, VIDEO, POINTS)
    assert math.sqrt(np.square(tracks.visibility - exact.visibility).mean()) < 0.02
    assert np.median(np.linalg.norm(tracks.xy - exact.xy, axis=-1)) < 0.05


class TestLoading:
    def test_prefix_and_key_of_the_published_files(self) -> None:
        plain = load_model(small_weights(), **SMALL)
        nested = {"state_dict": {f"tapnext.{key}": value for key, value in small_weights().items()}, "epoch": 3}
        found = load_model(nested, **SMALL)
        assert np.array_equal(track(found, VIDEO, POINTS).xy, track(plain, VIDEO, POINTS).xy)

    def test_stored_table_of_positions_is_used_and_checked(self) -> None:
        computed = load_model(small_weights(), **SMALL)
        x, y = computed.query_tokens.table_x, computed.query_tokens.table_y
        table = torch.cat([x[None].expand(64, -1, -1), y[:, None].expand(-1, 64, -1)], dim=2).reshape(1, 64 * 64, 96)
        stored = load_model(small_weights() | {"query_pos_embed": table}, **SMALL)
        assert np.array_equal(track(stored, VIDEO, POINTS).xy, track(computed, VIDEO, POINTS).xy)
        wrong = table.clone()
        wrong[0, 100, 3] += 1
        with pytest.raises(CheckpointError, match="is not a table of separate axes"):
            load_model(small_weights() | {"query_pos_embed": wrong}, **SMALL)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"visible_head.6.bias": None}, "visible_head.6.bias is missing"),
            ({"extra": torch.zeros(1)}, "weights that TAPNext does not have: extra"),
            ({"lin_proj.bias": torch.zeros(3)}, r"lin_proj.bias has the shape \(3,\), expected \(96,\)"),
            ({"lin_proj.bias": torch.full((96,), torch.nan)}, "not finite"),
            ({"lin_proj.weight": None}, "does not hold the weights of TAPNext"),
        ],
    )
    def test_other_weights_are_refused(self, change: dict[str, Any], message: str) -> None:
        changed = {key: value for key, value in (small_weights() | change).items() if value is not None}
        with pytest.raises(CheckpointError, match=message):
            load_model(changed, **SMALL)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"input_resolution": 60}, "expected a multiple of 8"),
            ({"num_heads": 7}, "expected a divisor of the width 96"),
            ({"num_heads": 0}, "num_heads: got 0, expected an integer of at least 1"),
            ({"image_size": 0}, "image_size: got 0, expected an integer of at least 1"),
            ({"precision": "fp8"}, "precision: got 'fp8', expected one of auto, fp32"),
        ],
    )
    def test_wrong_options_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load_model(small_weights(), **SMALL | options)
