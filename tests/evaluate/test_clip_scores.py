"""Scores of one clip, compared with manually computed cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aot.datasets.ground_truth import FOREGROUND, GroundTruth, TrackTruth
from aot.evaluate.clip import evaluate_clip
from aot.types import BoolArray, Int64Array, QueryPoints
from tests.results import write_result

SIZE = 10
NUM_FRAMES = 5


def square(x: int, y: int = 0, side: int = 4) -> BoolArray:
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


NOTHING = square(0, side=0)


class Truth(GroundTruth):
    """A 4 px square that moves 1 px right per frame from frame 0 to 4, as object 1 or as foreground."""

    def __init__(self, object_id: int = 1, visible: bool = True) -> None:
        self._object_id = object_id
        self._visible = visible

    @property
    def object_ids(self) -> tuple[int, ...]:
        return (self._object_id,)

    @property
    def mask_frames(self) -> Int64Array:
        return np.arange(NUM_FRAMES, dtype=np.int64)

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        return {self._object_id: square(frame)} if frame < NUM_FRAMES else None

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth | None:
        shape = (len(frames), len(queries))
        start = queries.txy[None, :, 1:]
        moved = (frames[:, None] - queries.txy[None, :, 0])[..., None] * np.array([1, 0])
        return TrackTruth(
            xy=(start + moved).astype(np.float32),
            visible=np.full(shape, self._visible),
            annotated=np.ones(shape, dtype=np.bool_),
        )


def result(
    folder: Path, masks: list[BoolArray], shift_px: float = 0.0, index: list[int] | None = None, interval: int = 1
) -> Path:
    """A result: these masks for object 1, and two tracks that are shifted by `shift_px` outside their query frame."""
    frames = np.arange(len(masks)) if index is None else np.array(index)
    txy = np.array([[0, 1, 1], [frames[1] if len(frames) > 1 else 0, 3, 2]], dtype=np.float32)
    xy = txy[None, :, 1:] + (frames[:, None] - txy[None, :, 0])[..., None] * np.array([1, 0])
    xy[..., 1] += shift_px * (frames[:, None] != txy[None, :, 0])
    return write_result(
        folder / "a.h5",
        masks=np.stack(masks)[:, None],
        queries=[(*query, 1) for query in txy.tolist()],
        xy=xy,
        index=frames.tolist(),
        num_source_frames=max(NUM_FRAMES, int(frames[-1]) + 1),
        attributes={"frame_interval": interval},
    )


TRUE_MASKS = [square(t) for t in range(NUM_FRAMES)]


def test_ground_truth_scores_one_against_itself(tmp_path: Path) -> None:
    score = evaluate_clip(result(tmp_path, TRUE_MASKS), Truth())
    row = score.as_row()
    assert row.pop("EPE") is None, "this ground truth has no flow"
    assert set(row.values()) == {1.0}
    assert score.masks[1].num_frames == 3
    assert score.points is not None
    assert (score.points.num_positions, score.num_held, score.num_interpolated) == (8, 0, 0)


def test_first_and_last_annotated_frames_are_not_scored(tmp_path: Path) -> None:
    masks = [NOTHING, square(1), square(2), square(1), NOTHING, NOTHING]
    score = evaluate_clip(result(tmp_path, masks), Truth())
    assert score.masks[1].region.mean == pytest.approx((1 + 1 + 8 / 24) / 3)


def test_foreground_is_the_union_of_the_objects(tmp_path: Path) -> None:
    score = evaluate_clip(result(tmp_path, TRUE_MASKS), Truth(FOREGROUND))
    assert score.masks[FOREGROUND].region.mean == 1.0
    assert score.pck == 1


def test_an_object_that_was_not_prompted_scores_zero(tmp_path: Path) -> None:
    score = evaluate_clip(result(tmp_path, TRUE_MASKS), Truth(object_id=2))
    assert (score.region_similarity, score.contour_accuracy) == (0, 0)


@pytest.mark.parametrize(("shift_px", "pck"), [(0.79, 1.0), (0.81, 0.0)])
def test_pck_uses_the_size_of_the_ground_truth_mask(tmp_path: Path, shift_px: float, pck: float) -> None:
    # 0.2 times the square root of 16 px is 0.8 px; the query's own frame is left out: 2 points on 4 frames each.
    score = evaluate_clip(result(tmp_path, TRUE_MASKS, shift_px), Truth())
    assert score.points is not None
    assert (score.pck, score.points.num_pck) == (pck, 8)


def test_hidden_points_are_scored_only_on_visibility(tmp_path: Path) -> None:
    points = evaluate_clip(result(tmp_path, TRUE_MASKS), Truth(visible=False)).points
    assert points is not None
    assert (points.pck, points.average_jaccard, points.occlusion_accuracy) == (None, None, 0.0)


def test_query_mode_first_scores_only_later_frames(tmp_path: Path) -> None:
    points = evaluate_clip(result(tmp_path, TRUE_MASKS), Truth(), query_mode="first").points
    assert points is not None
    assert points.num_positions == 4 + 3


def test_a_decimated_run_is_scored_on_every_frame(tmp_path: Path) -> None:
    """Masks of frames 0 and 2 are held; linear tracks lose nothing by interpolation, except after the last frame."""
    score = evaluate_clip(result(tmp_path, [square(0), square(2)], index=[0, 2], interval=3), Truth())
    assert score.masks[1].region.mean == pytest.approx((12 / 20 + 1 + 12 / 20) / 3)
    assert (score.num_held, score.num_interpolated) == (3, 3)
    assert score.points is not None
    # Frames 1 and 2 are correct; on frames 3 and 4 the track stays where it was on frame 2, 1 and 2 px (of 10) behind.
    assert score.points.within[4] == score.points.within[16 // 8] == 0.5
    assert score.pck == 0.5


def test_masks_on_prompt_frames_only_are_not_scored(tmp_path: Path) -> None:
    import h5py

    path = result(tmp_path, TRUE_MASKS)
    with h5py.File(path, "a") as file:
        for name in ("masks/data", "masks/score", "masks/row", "masks/coverage"):
            kept = file[name][:1]
            del file[name]
            file[name] = kept
    score = evaluate_clip(path, Truth())
    assert score.region_similarity is None
    assert score.pck == 1, "true areas are known without masks of the run"


def test_frames_outside_the_time_range_are_not_scored(tmp_path: Path) -> None:
    """The run was cut to frames 0 to 2 of 5: of the inner frames 1, 2 and 3 the first two are scored."""
    path = result(tmp_path, TRUE_MASKS[:3])
    assert evaluate_clip(path, Truth()).masks[1].num_frames == 2
