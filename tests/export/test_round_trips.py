"""Exported files are read back by the readers of each format and compared."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

import aot
from aot.datasets.annotations import AnnotatedTruth
from aot.datasets.sa_v import SaVideos
from aot.datasets.tap_vid import TapVid
from aot.errors import ExportError
from aot.export.base import ExportedClip
from aot.export.coco import CocoExporter
from aot.export.davis import DavisExporter
from aot.export.npz import NpzExporter
from aot.export.rerun import RerunExporter
from aot.export.sa_v import SaVExporter
from aot.export.tap_vid import TapVidExporter
from aot.manifest.read import load_manifest
from aot.prompts import main as prompts_main
from aot.types import Clip, Prompt, QueryPoints
from tests.results import write_result
from tests.synthetic import moving_square

NUM_FRAMES, HEIGHT, WIDTH = 9, 64, 96
QUERIES = [(0, 18, 30, 1), (0, 10.25, 22.5, 1), (4, 40, 35, 2)]


def overlapping_masks() -> np.ndarray:
    """(T, 2, H, W): two squares; the second appears on frame 4 and partly covers the first."""
    masks = np.zeros((NUM_FRAMES, 2, HEIGHT, WIDTH), dtype=np.bool_)
    for t in range(NUM_FRAMES):
        masks[t, 0, 20:40, 8 + 2 * t : 28 + 2 * t] = True
        masks[t, 1, 30:50, 20:60] = t >= 4
    return masks


@pytest.fixture
def clip(tmp_path: Path) -> ExportedClip:
    """A result for a folder of frames named 00010, 00015, …"""
    frames = tmp_path / "frames"
    frames.mkdir()
    for t, rgb in enumerate(moving_square(NUM_FRAMES)):
        Image.fromarray(rgb).save(frames / f"{10 + 5 * t:05d}.png")
    prompts = (Prompt(1, 0, name="mug", box=(8, 20, 28, 40)), Prompt(2, 4, box=(20, 30, 60, 50)))
    rng = np.random.default_rng(0)
    xy = np.array(QUERIES)[None, :, 1:3] + np.arange(NUM_FRAMES)[:, None, None] * [2, 0] + rng.normal(0, 0.1, (9, 3, 2))
    visible = rng.random((NUM_FRAMES, 3)) < 0.8
    for number, query in enumerate(QUERIES):
        xy[query[0], number], visible[query[0], number] = query[1:3], True
    path = write_result(
        tmp_path / "run" / "day1" / "a.h5", masks=overlapping_masks(), queries=QUERIES, xy=xy, visible=visible,
        clip=Clip("day1/a", frames, prompts),
    )  # fmt: skip
    return ExportedClip("day1/a", path)


def decimated(clip: ExportedClip, tmp_path: Path) -> ExportedClip:
    """The same result with only every fourth frame kept."""
    rows = [0, 4, 8]
    path = write_result(
        tmp_path / "k4" / "a.h5", masks=overlapping_masks()[rows], queries=QUERIES, xy=clip.result.tracks.xy[rows],
        index=rows, clip=Clip("day1/a", clip.source, (Prompt(1, 0, box=(0, 0, 1, 1)), Prompt(2, 4, box=(0, 0, 1, 1)))),
        attributes={"frame_interval": 4},
    )  # fmt: skip
    return ExportedClip("day1/a", path)


def test_davis_images_are_read_back_as_ground_truth(clip: ExportedClip, tmp_path: Path) -> None:
    folder = DavisExporter().export(clip, tmp_path / "out")
    assert folder == tmp_path / "out" / "day1" / "a"
    names = [f"{10 + 5 * t:05d}" for t in range(NUM_FRAMES)]
    assert sorted(path.stem for path in folder.iterdir()) == names, "images have the names of the frames"
    truth = AnnotatedTruth(folder, frame_of={name: t for t, name in enumerate(names)})
    expected = overlapping_masks()
    for t in range(NUM_FRAMES):
        masks = truth.mask(t)
        assert masks is not None
        assert np.array_equal(masks[1], expected[t, 0]), "equal scores: the lower id is on top"
        assert np.array_equal(masks[2], expected[t, 1] & ~expected[t, 0])
    with Image.open(folder / "00010.png") as image_file:
        assert image_file.mode == "P"
        assert image_file.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0], "the colours of DAVIS"


def test_davis_images_of_a_decimated_run_are_held(clip: ExportedClip, tmp_path: Path) -> None:
    folder = DavisExporter().export(decimated(clip, tmp_path), tmp_path / "out")
    images = [np.array(Image.open(path)) for path in sorted(folder.iterdir())]
    assert len(images) == NUM_FRAMES
    assert np.array_equal(images[7], images[4])
    assert not np.array_equal(images[8], images[4])


def test_exporting_again_keeps_clips_in_subfolders(clip: ExportedClip, tmp_path: Path) -> None:
    DavisExporter().export(clip, tmp_path / "out")
    DavisExporter().export(ExportedClip("day1", clip.path), tmp_path / "out")
    (tmp_path / "out" / "day1" / "stale.png").touch()
    DavisExporter().export(ExportedClip("day1", clip.path), tmp_path / "out")
    assert not (tmp_path / "out" / "day1" / "stale.png").exists()
    assert len(list((tmp_path / "out" / "day1" / "a").iterdir())) == NUM_FRAMES


def test_sa_v_masklets_are_read_back(clip: ExportedClip, tmp_path: Path) -> None:
    path = SaVExporter().export(clip, tmp_path)
    assert path == tmp_path / "day1" / "a_auto.json"
    (tmp_path / "day1" / "a.mp4").touch()
    dataset = SaVideos(tmp_path, annotations="auto")
    assert [(prompt.object_id, prompt.frame) for prompt in dataset.clips()[0].prompts] == [(1, 0), (2, 4)]
    truth = dataset.ground_truth("day1/a")
    assert truth is not None
    assert truth.mask_frames.tolist() == [0, 4, 8]
    masks = truth.mask(8)
    assert masks is not None
    assert np.array_equal([masks[1], masks[2]], overlapping_masks()[8]), "overlaps are kept"
    content = json.loads(path.read_text())
    assert content["masklet_id"] == [0, 1]
    assert content["masklet_first_appeared_frame"] == [0, 4]
    assert content["masklet_size_abs"] == [400.0, 800.0]
    assert content["masklet_size_bucket"] == ["small", "small"]
    assert (content["video_frame_count"], content["masklet_frame_count"]) == (9.0, [3, 3])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with NumPy 2
def test_coco_is_read_by_pycocotools(clip: ExportedClip, tmp_path: Path) -> None:
    path = CocoExporter({"mug": 1, "object": 2}).export(clip, tmp_path)
    coco = COCO(path)
    expected = overlapping_masks()
    assert len(coco.getImgIds()) == NUM_FRAMES
    for image in coco.loadImgs(coco.getImgIds()):
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert [item["track_id"] for item in found] == ([1, 2] if image["frame_id"] >= 4 else [1])
        for item in found:
            mask = expected[image["frame_id"], item["track_id"] - 1]
            assert np.array_equal(coco.annToMask(item), mask)
            assert item["area"] == mask.sum() == rle.area(item["segmentation"])
            assert item["bbox"] == rle.toBbox(item["segmentation"]).tolist()
    assert image["file_name"] == "day1/a/00050.jpg"
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["mug", "object"]


@pytest.mark.parametrize("masks", [[], ["--masks"]])
def test_coco_can_be_imported_as_prompts(clip: ExportedClip, tmp_path: Path, masks: list[str]) -> None:
    path = CocoExporter({"mug": 1, "object": 2}).export(clip, tmp_path)
    out = tmp_path / "prompts.yaml"
    assert prompts_main(["import", "--format", "coco", str(path), "--out", str(out), *masks]) == 0
    objects = load_manifest(out).clips["day1/a"].objects
    assert [(entry.id, entry.name, entry.frame) for entry in objects] == [(1, "mug", 0), (2, "object", 4)]
    assert objects[0].box == (None if masks else (8, 20, 28, 40))


def test_tapvid_points_are_read_back_exactly(clip: ExportedClip, tmp_path: Path) -> None:
    path = TapVidExporter().export(ExportedClip("a", clip.path), tmp_path)
    dataset = TapVid(path, tmp_path / "unpacked")
    (found,) = dataset.clips()
    assert len(list(found.source.iterdir())) == NUM_FRAMES
    truth = dataset.ground_truth("a")
    assert truth is not None
    result = clip.result
    queries = QueryPoints(result.query, result.track_object_id)
    tracks = truth.tracks(queries, np.arange(NUM_FRAMES, dtype=np.int64))
    assert tracks is not None
    assert tracks.annotated.all(), "every query is matched, to 0.01 px"
    np.testing.assert_allclose(tracks.xy, result.tracks.xy, atol=1e-4)
    assert np.array_equal(tracks.visible, result.tracks.visible)


def test_tapvid_coordinates_follow_the_tapvid_convention(clip: ExportedClip, tmp_path: Path) -> None:
    path = TapVidExporter(with_video=False).export(decimated(clip, tmp_path), tmp_path / "out")
    example = pickle.loads(path.read_bytes())["day1/a"]
    assert "video" not in example
    assert example["points"].shape == (3, 3, 2)
    np.testing.assert_allclose(example["points"][0, 0], [18.5 / WIDTH, 30.5 / HEIGHT])
    # The third query is on source frame 4, which is row 1 of the kept frames.
    np.testing.assert_allclose(example["query_points"][2], [1, 35.5 / HEIGHT * 256, 40.5 / WIDTH * 256], rtol=1e-6)
    assert example["source_frames"].tolist() == [0, 4, 8]


def test_npz_contains_everything(clip: ExportedClip, tmp_path: Path) -> None:
    path = NpzExporter().export(clip, tmp_path)
    result = aot.load(clip.path)
    with np.load(path) as arrays:
        assert set(arrays.files) == {
            *"frames_index frames_time objects_id objects_name objects_error objects_prompt attributes".split(),
            *"masks_row masks_score masks_coverage masks_packed tracks_query tracks_object_id".split(),
            *(f"tracks_{name}" for name in "xy visible visibility confidence in_mask valid born ended".split()),
        }
        assert all(arrays[name].dtype != object for name in arrays.files), "nothing is pickled"
        masks = np.unpackbits(arrays["masks_packed"], axis=-1, count=WIDTH).view(bool)
        assert np.array_equal(masks, result.masks)
        assert np.array_equal(arrays["tracks_xy"], result.tracks.xy)
        assert np.array_equal(arrays["tracks_query"], result.query)
        assert np.array_equal(arrays["tracks_valid"], result.lifetimes.valid)
        assert arrays["objects_name"].tolist() == ["mug", ""]
        assert json.loads(str(arrays["attributes"]))["width"] == WIDTH


def test_rerun_recordings_contain_frames_masks_and_points(clip: ExportedClip, tmp_path: Path) -> None:
    from rerun.chunk import RrdReader

    path = RerunExporter().export(clip, tmp_path)
    rows: dict[str, int] = {}
    points: list[Any] = []
    for chunk in RrdReader(str(path)).stream().to_chunks():
        if not chunk.is_static:
            rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
        if chunk.entity_path == "/video/points":
            batch = chunk.to_record_batch()
            (column,) = [name for name in batch.schema.names if name.endswith(":positions")]
            points += zip(batch.column("frame").to_pylist(), batch.column(column).to_pylist())
    assert {name: count for name, count in rows.items() if name.startswith("/video")} == {
        "/video": NUM_FRAMES, "/video/masks": NUM_FRAMES, "/video/points": NUM_FRAMES,
    }  # fmt: skip
    result = clip.result
    for frame, positions in points:
        expected = result.tracks.xy[frame][result.tracks.visible[frame]] + 0.5
        np.testing.assert_allclose(positions, expected, atol=1e-4)


@pytest.mark.parametrize("exporter", [DavisExporter(), SaVExporter(), CocoExporter({})])
def test_masks_on_prompt_frames_only_are_refused(tmp_path: Path, exporter: Any) -> None:
    import h5py

    path = write_result(tmp_path / "a.h5", masks=overlapping_masks())
    with h5py.File(path, "a") as file:
        for name in ("masks/data", "masks/score", "masks/row", "masks/coverage"):
            kept = file[name][:1]
            del file[name]
            file[name] = kept
    with pytest.raises(ExportError, match="a: has masks on 1 of 9 kept frames"):
        exporter.export(ExportedClip("a", path), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.png"))
