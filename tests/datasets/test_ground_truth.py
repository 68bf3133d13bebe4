from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot.datasets.annotations import AnnotatedTruth, mask_files
from aot.datasets.demo.truth import SceneTruth
from aot.datasets.ground_truth import TrackTruth
from aot.errors import DatasetError
from aot.types import QueryPoints


def queries(*rows: tuple[float, float, float, int]) -> QueryPoints:
    """Rows of (frame, x, y, object id)."""
    values = np.array(rows, dtype=float).reshape(-1, 4)
    return QueryPoints(txy=values[:, :3].astype(np.float32), object_id=values[:, 3].astype(np.int32))


def frames(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@pytest.mark.parametrize("frame_of", [None, {"2": 2, "10": 10}, {"2": 10, "10": 2}])
def test_masks_are_found_in_the_order_of_their_frames(tmp_path: Path, frame_of: dict[str, int] | None) -> None:
    for name in ("2", "10"):
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    found = {frame: path.stem for frame, path in mask_files(tmp_path, frame_of).items()}
    assert list(found) == [2, 10]
    assert found[2] == ("10" if frame_of and frame_of["10"] == 2 else "2")


class TestSceneTruth:
    """A square of 4x4 px moves right by 3 px per frame over 5 frames of 16x8 px; on frame 2 its left half is hidden."""

    @pytest.fixture
    def truth(self, tmp_path: Path) -> SceneTruth:
        masks = np.zeros((5, 1, 8, 16), dtype=bool)
        motion = np.zeros((5, 1, 2, 3))
        for frame in range(5):
            motion[frame, 0] = [[1, 0, 3 * frame], [0, 1, 2]]
            masks[frame, 0, 2:6, 3 * frame : 3 * frame + 4] = True
        masks[2, 0, :, :8] = False
        np.savez(
            tmp_path / "square.npz",
            masks_packed=np.packbits(masks),
            masks_shape=masks.shape,
            object_id=np.array([7], dtype=np.int32),
            motion=motion,
        )
        return SceneTruth(tmp_path / "square.npz")

    def test_masks(self, truth: SceneTruth) -> None:
        assert truth.object_ids == (7,)
        masks = truth.mask(2)
        assert masks is not None
        assert list(masks) == [7]
        assert masks[7].shape == (8, 16)
        assert masks[7].sum() == 8
        assert truth.mask(5) is None
        assert truth.mask(-1) is None

    def test_tracks_follow_the_motion_in_both_directions_and_know_occlusions(self, truth: SceneTruth) -> None:
        tracks = truth.tracks(queries((1, 4.25, 3.5, 7)), frames(0, 1, 2, 3, 4))
        np.testing.assert_allclose(tracks.xy[:, 0], [[1.25, 3.5], [4.25, 3.5], [7.25, 3.5], [10.25, 3.5], [13.25, 3.5]])
        assert tracks.visible[:, 0].tolist() == [True, True, False, True, True]
        assert tracks.annotated.all()

    def test_point_outside_the_frame_is_not_visible(self, truth: SceneTruth) -> None:
        tracks = truth.tracks(queries((0, 3, 3, 7), (0, 3.6, 3, 7)), frames(4))
        assert tracks.visible.tolist() == [[True, False]]

    def test_rows_are_those_of_the_requested_frames(self, truth: SceneTruth) -> None:
        tracks = truth.tracks(queries((0, 1, 3, 7)), frames(4, 9, 1))
        assert tracks.annotated[:, 0].tolist() == [True, False, True]
        np.testing.assert_allclose(tracks.xy[:, 0], [[13, 3], [np.nan, np.nan], [4, 3]])

    @pytest.mark.parametrize(
        "query", [(0, 8, 3, 7), (0, 1, 3, 1), (2, 7, 3, 7), (9, 1, 3, 7), (0, -5, 3, 7)],
        ids=["beside", "other object", "hidden there", "frame beyond the end", "outside"],
    )  # fmt: skip
    def test_point_that_is_not_on_the_object_is_not_annotated(
        self, truth: SceneTruth, query: tuple[float, float, float, int]
    ) -> None:
        tracks = truth.tracks(queries(query, (0, 1, 3, 7)), frames(0, 1))
        assert tracks.annotated.tolist() == [[False, True], [False, True]]
        assert not tracks.visible[:, 0].any()

    def test_no_queries(self, truth: SceneTruth) -> None:
        assert truth.tracks(queries(), frames(0, 1)).xy.shape == (2, 0, 2)

    def test_demo_tracks_start_at_their_query_and_are_visible_there(self, demo_root: Path) -> None:
        truth = SceneTruth(demo_root / "truth" / "late.npz")
        mask = truth.mask(24)
        assert mask is not None
        ys, xs = np.nonzero(mask[1])
        points = queries(*[(24, x, y, 1) for x, y in zip(xs[::50], ys[::50])])
        tracks = truth.tracks(points, frames(*range(48)))
        np.testing.assert_allclose(tracks.xy[24], points.txy[:, 1:], atol=1e-3)
        assert tracks.visible[24].all()
        assert tracks.annotated.all()
        # Nothing hides the object in this clip; only points on its border may round to a pixel outside it.
        assert tracks.visible.mean() > 0.97

    def test_damaged_file_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "bad.npz").write_bytes(b"not a zip")
        with pytest.raises(DatasetError, match=r"cannot read the ground truth .*bad\.npz"):
            SceneTruth(tmp_path / "bad.npz")

    def test_missing_arrays_are_reported(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "half.npz", motion=np.zeros((1, 1, 2, 3)), object_id=np.ones(1))
        with pytest.raises(DatasetError, match="masks_packed, masks_shape missing"):
            SceneTruth(tmp_path / "half.npz")


def save_mask(path: Path, values: np.ndarray, palette: bool = True) -> None:
    image = Image.fromarray(values.astype(np.uint8))
    if palette:
        # Colours that are unrelated to the indices, so that a test fails if colours are read.
        image.putpalette([(37 * number) % 256 for number in range(768)])
    path.parent.mkdir(exist_ok=True)
    image.save(path)


class TestAnnotatedMasks:
    def test_palette_indices_are_objects_and_255_is_void(self, tmp_path: Path) -> None:
        save_mask(tmp_path / "00000.png", np.array([[0, 1, 255], [3, 3, 0]]))
        save_mask(tmp_path / "00005.png", np.array([[0, 1, 1], [0, 0, 0]]))
        truth = AnnotatedTruth(tmp_path)
        assert truth.object_ids == (1, 3)
        first, later = truth.mask(0), truth.mask(5)
        assert first is not None
        assert later is not None
        np.testing.assert_array_equal(first[1], [[False, True, False], [False, False, False]])
        np.testing.assert_array_equal(first[3], [[False, False, False], [True, True, False]])
        assert not later[3].any()

    def test_frames_without_an_image_are_not_annotated(self, tmp_path: Path) -> None:
        save_mask(tmp_path / "00004.png", np.ones((2, 2)))
        truth = AnnotatedTruth(tmp_path)
        assert truth.mask(0) is None
        assert truth.mask(4) is not None
        assert truth.tracks(queries((0, 1, 1, 1)), frames(0)) is None

    @pytest.mark.parametrize("palette", [True, False])
    def test_only_0_and_255_is_binary(self, tmp_path: Path, palette: bool) -> None:
        save_mask(tmp_path / "00000.png", np.array([[0, 255]]), palette)
        save_mask(tmp_path / "00001.png", np.array([[0, 0]]), palette)
        truth = AnnotatedTruth(tmp_path)
        assert truth.object_ids == (0,)
        first, later = truth.mask(0), truth.mask(1)
        assert first is not None
        assert later is not None
        assert first[0].tolist() == [[False, True]]
        assert later[0].tolist() == [[False, False]]

    def test_void_on_a_frame_without_objects_is_not_binary(self, tmp_path: Path) -> None:
        save_mask(tmp_path / "00000.png", np.array([[0, 2]]))
        save_mask(tmp_path / "00001.png", np.array([[0, 255]]))
        later = AnnotatedTruth(tmp_path).mask(1)
        assert later is not None
        assert {number: mask.any() for number, mask in later.items()} == {2: False}

    def test_one_bit_images_are_binary(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[False, True]])).save(tmp_path / "00000.png")
        mask = AnnotatedTruth(tmp_path).mask(0)
        assert mask is not None
        assert mask[0].tolist() == [[False, True]]

    def test_colour_image_is_refused(self, tmp_path: Path) -> None:
        Image.new("RGB", (2, 2), (9, 0, 0)).save(tmp_path / "00000.png")
        with pytest.raises(DatasetError, match=r"00000\.png: got an image of mode RGB"):
            AnnotatedTruth(tmp_path).mask(0)

    def test_broken_image_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "00000.png").write_bytes(b"not an image")
        with pytest.raises(DatasetError, match=r"annotated mask .*00000\.png: not a readable image"):
            AnnotatedTruth(tmp_path).mask(0)

    def test_names_without_a_frame_number_are_refused(self, tmp_path: Path) -> None:
        save_mask(tmp_path / "mask_a.png", np.ones((2, 2)))
        with pytest.raises(DatasetError, match=r"found mask_a\.png, expected PNGs named by their source frame"):
            AnnotatedTruth(tmp_path)

    def test_empty_and_missing_folders_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="found no PNG"):
            AnnotatedTruth(tmp_path)
        with pytest.raises(DatasetError, match="no such folder"):
            AnnotatedTruth(tmp_path / "nowhere")


class TestAnnotatedTracks:
    @pytest.fixture
    def arrays(self) -> dict[str, np.ndarray]:
        """Two points over four frames, annotated on frames 0, 2 and 3; the second is hidden on frame 2."""
        nowhere = [np.nan, np.nan]
        return {
            "points_xy": np.array(
                [[[1, 2], nowhere, [3, 4], [5, 6]], [[10, 20], nowhere, nowhere, [11, 21]]], dtype=np.float32
            ),
            "visible": np.array([[True, False, True, True], [True, False, False, True]]),
            "annotated": np.array([True, False, True, True]),
        }

    def load(self, folder: Path, **arrays: np.ndarray) -> AnnotatedTruth:
        np.savez(folder / "tracks.npz", **arrays)
        return AnnotatedTruth(tracks_file=folder / "tracks.npz")

    def tracks(self, truth: AnnotatedTruth, points: QueryPoints, numbers: np.ndarray) -> TrackTruth:
        tracks = truth.tracks(points, numbers)
        assert tracks is not None
        return tracks

    def test_points_are_matched_by_position_on_the_query_frame(
        self, tmp_path: Path, arrays: dict[str, np.ndarray]
    ) -> None:
        truth = self.load(tmp_path, **arrays)
        tracks = self.tracks(truth, queries((3, 11.005, 21, 4), (0, 1, 2, 4), (0, 1.5, 2, 4)), frames(0, 1, 2, 3))
        assert tracks.annotated.tolist() == [[True, True, False], [False] * 3, [True, True, False], [True, True, False]]
        assert tracks.visible.tolist() == [[True, True, False], [False] * 3, [False, True, False], [True, True, False]]
        np.testing.assert_allclose(tracks.xy[[0, 3], 0], [[10, 20], [11, 21]])
        np.testing.assert_allclose(tracks.xy[[0, 2], 1], [[1, 2], [3, 4]])
        assert np.isnan(tracks.xy[2, 0]).all()
        assert truth.object_ids == ()
        assert truth.mask(0) is None

    def test_every_frame_is_annotated_by_default(self, tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
        del arrays["annotated"]
        tracks = self.tracks(self.load(tmp_path, **arrays), queries((0, 1, 2, 1)), frames(0, 1))
        assert tracks.annotated[:, 0].tolist() == [True, True]
        assert tracks.visible[:, 0].tolist() == [True, False]

    def test_query_on_another_frame_matches_no_point(self, tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
        arrays["points_xy"][0, 1] = [7, 7]
        truth = self.load(tmp_path, **arrays)
        assert not self.tracks(truth, queries((1, 7, 7, 1), (9, 1, 2, 1)), frames(0, 2)).annotated.any()

    def test_with_an_object_axis_a_query_matches_only_points_of_its_object(self, tmp_path: Path) -> None:
        xy = np.zeros((2, 1, 2, 2), dtype=np.float32)
        xy[1, 0, 1] = [5, 5]
        truth = self.load(tmp_path, points_xy=xy, visible=np.ones((2, 1, 2), dtype=bool))
        tracks = self.tracks(truth, queries((0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 0, 3)), frames(1))
        np.testing.assert_allclose(tracks.xy[0, :2], [[0, 0], [5, 5]])
        assert tracks.annotated.tolist() == [[True, True, False]]

    def test_arrays_of_other_shapes_are_refused(self, tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
        with pytest.raises(DatasetError, match=r"got points_xy \(2, 4, 2\) and visible \(4, 2\)"):
            self.load(tmp_path, points_xy=arrays["points_xy"], visible=arrays["visible"].T)
        with pytest.raises(DatasetError, match=r"got annotated \(3,\), expected \(4,\)"):
            self.load(tmp_path, **(arrays | {"annotated": np.ones(3, dtype=bool)}))

    def test_text_instead_of_numbers_is_refused(self, tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
        text = np.full(arrays["points_xy"].shape, "a")
        with pytest.raises(DatasetError, match=r"got points_xy of <U1 and visible of bool; expected numbers"):
            self.load(tmp_path, **(arrays | {"points_xy": text}))

    def test_pickles_are_never_loaded(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="or not an npz of plain arrays; expected an npz with"):
            self.load(tmp_path, points_xy=np.array([object()]), visible=np.ones(1))
