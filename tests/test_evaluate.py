"""The scores, against cases counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aot.datasets.ground_truth import FOREGROUND, GroundTruth, TrackTruth
from aot.evaluate import ClipScore, evaluate_clip, format_scores, main, region_similarity
from aot.types import BoolArray, Clip, Int64Array, MaskBlock, Prompt, QueryPoints, Tracks
from aot.writing.hdf5 import new_clip_file
from tests.writing.test_hdf5 import ATTRIBUTES

SIZE = 10


def square(x: int, y: int = 0, side: int = 4) -> BoolArray:
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def test_region_similarity_by_hand() -> None:
    assert region_similarity(square(0), square(0)) == 1
    assert region_similarity(square(0), square(2)) == pytest.approx(8 / 24)
    assert region_similarity(square(0), square(6, 6)) == 0
    assert region_similarity(square(0, side=0), square(0, side=0)) == 1
    assert region_similarity(square(0, side=0), square(0)) == 0
    with pytest.raises(ValueError, match="same size"):
        region_similarity(square(0), np.zeros((2, 2), dtype=np.bool_))


class Truth(GroundTruth):
    """A 4 px square that moves 1 px right a frame from frame 0 to 4, as object 1 or as foreground."""

    def __init__(self, object_id: int = 1, seen: bool = True) -> None:
        self._object_id = object_id
        self._seen = seen

    @property
    def object_ids(self) -> tuple[int, ...]:
        return (self._object_id,)

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        return {self._object_id: square(frame)} if frame < 5 else None

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth | None:
        shape = (len(frames), len(queries))
        start = queries.txy[None, :, 1:]
        moved = (frames[:, None] - queries.txy[None, :, 0])[..., None] * np.array([1, 0])
        return TrackTruth(
            xy=(start + moved).astype(np.float32),
            visible=np.full(shape, self._seen),
            annotated=np.ones(shape, dtype=np.bool_),
        )


def result(folder: Path, masks: list[BoolArray], shift_px: float = 0.0, visible: bool = True) -> Path:
    """A clip's file: these masks for object 1, and two tracks that are `shift_px` beside the truth off their query."""
    num_frames = len(masks)
    index = np.arange(num_frames, dtype=np.int64)
    txy = np.array([[0, 1, 1], [1, 3, 2]], dtype=np.float32)
    xy = txy[None, :, 1:] + (index[:, None] - txy[None, :, 0])[..., None] * np.array([1, 0])
    xy[..., 1] += shift_px * (index[:, None] != txy[None, :, 0])
    shape = (num_frames, 2)
    ones = np.ones(shape, dtype=np.float32)
    clip = Clip("a", Path("a.mp4"), (Prompt(object_id=1, frame=0, box=(0, 0, 4, 4)),))
    with new_clip_file(
        folder / "a.h5", clip, index=index, time=index / 10, mask_index=index, height=SIZE, width=SIZE
    ) as writer:
        scores = np.ones((num_frames, 1), dtype=np.float32)
        writer.write_masks(MaskBlock(index, np.ones(1, dtype=np.int32), np.stack(masks)[:, None], scores))
        tracks = Tracks(xy.astype(np.float32), np.full(shape, visible), ones, ones)
        writer.write_tracks(tracks, QueryPoints(txy, np.ones(2, dtype=np.int32)), np.ones(shape, dtype=np.bool_))
        writer.write_provenance(ATTRIBUTES | {"height": SIZE, "width": SIZE}, {})
    return folder / "a.h5"


def test_truth_fed_back_scores_one(tmp_path: Path) -> None:
    score = evaluate_clip(result(tmp_path, [square(t) for t in range(5)]), Truth())
    assert score == ClipScore({1: 1.0}, 1.0, 8, 1.0)


def test_first_and_last_annotated_frames_do_not_count(tmp_path: Path) -> None:
    nothing = square(0, side=0)
    masks = [nothing, square(1), square(2), square(1), nothing, nothing]
    score = evaluate_clip(result(tmp_path, masks), Truth())
    assert score.region_similarity == {1: pytest.approx((1 + 1 + 8 / 24) / 3)}


def test_foreground_is_the_union_of_the_objects(tmp_path: Path) -> None:
    score = evaluate_clip(result(tmp_path, [square(t) for t in range(5)]), Truth(FOREGROUND))
    assert score.region_similarity == {FOREGROUND: 1.0}
    assert score.pck == 1


@pytest.mark.parametrize(("shift_px", "pck"), [(0.79, 1.0), (0.81, 0.0)])
def test_pck_counts_within_a_fifth_of_the_objects_size(tmp_path: Path, shift_px: float, pck: float) -> None:
    # 0.2 times the square root of 16 px is 0.8 px; the query's own frame is left out: 2 points on 4 frames each.
    score = evaluate_clip(result(tmp_path, [square(t) for t in range(5)], shift_px), Truth())
    assert (score.pck, score.num_points) == (pck, 8)


def test_hidden_points_count_for_visibility_only(tmp_path: Path) -> None:
    score = evaluate_clip(result(tmp_path, [square(t) for t in range(5)], visible=True), Truth(seen=False))
    assert (score.pck, score.num_points, score.visibility_accuracy) == (None, 0, 0.0)


def test_table_and_mean() -> None:
    table = format_scores({"a": ClipScore({1: 0.5, 2: 1.0}, None, 0, None), "b": ClipScore({1: 0.25}, 0.5, 4, 1.0)})
    lines = [line.split() for line in table.splitlines()]
    assert lines[1] == ["a", "0.750", "–", "–", "0"]
    assert lines[-1] == ["mean", "0.500", "0.500", "1.000", "4"]


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
