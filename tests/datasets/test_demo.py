from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from aot.datasets.demo import folder as demo_folder
from aot.datasets.demo.folder import ensure_demo, generate_demo
from aot.datasets.demo.truth import SceneTruth
from aot.errors import DatasetError
from aot.types import QueryPoints

CLIPS = ["spin", "zoom", "hide", "pair", "late"]


@cache
def load_video(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def load_truth(root: Path, clip_id: str) -> dict[str, Any]:
    with np.load(root / "truth" / f"{clip_id}.npz", allow_pickle=False) as archive:
        truth = dict(archive)
    shape = truth["masks_shape"]
    truth["masks"] = np.unpackbits(truth["masks_packed"], count=int(shape.prod())).reshape(shape).astype(bool)
    return truth


def load_objects(root: Path, clip_id: str) -> list[dict[str, Any]]:
    return yaml.safe_load((root / "prompts.yaml").read_text())["clips"][clip_id]["objects"]


def between(truth: dict[str, Any], row: int, start: int, end: int) -> np.ndarray:
    """(2, 3) affine matrix that maps an object's position on frame `start` to that on frame `end`."""
    matrices = [np.vstack([truth["motion"][frame, row], [0, 0, 1]]) for frame in (start, end)]
    return (matrices[1] @ np.linalg.inv(matrices[0]))[:2]


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of only one scene with three frames."""
    spin = replace(demo_folder.SCENES[0], num_frames=3)
    monkeypatch.setattr(demo_folder, "SCENES", (spin,))


@pytest.mark.parametrize("clip_id", CLIPS)
class TestScenes:
    def test_video_and_truth_have_the_same_frames(self, demo_root: Path, clip_id: str) -> None:
        masks = load_truth(demo_root, clip_id)["masks"]
        frames = load_video(demo_root / f"{clip_id}.mp4")
        assert frames.shape == (len(masks), 240, 320, 3)
        assert 40 <= len(frames) <= 60
        with av.open(demo_root / f"{clip_id}.mp4") as container:
            assert container.streams.video[0].average_rate == 25
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"

    def test_pixels_move_along_the_true_motion(self, demo_root: Path, clip_id: str) -> None:
        """The object's pixels, moved by the true motion, match a later frame better than at an offset of 0.4 px."""
        truth, frames = load_truth(demo_root, clip_id), load_video(demo_root / f"{clip_id}.mp4")
        start = load_objects(demo_root, clip_id)[0]["frame"]
        for row in range(truth["masks"].shape[1]):
            for end in (start + 8, start - 8):
                if not 0 <= end < len(frames):
                    continue
                motion = between(truth, row, start, end)
                both = truth["masks"][end, row] & move_mask(truth["masks"][start, row], motion)
                inside = cv2.erode(both.astype(np.uint8), np.ones((7, 7))) > 0
                assert inside.sum() > 300
                errors = {
                    (x, y): self._error(frames[start], frames[end], motion, inside, x, y)
                    for x in (-0.4, 0, 0.4)
                    for y in (-0.4, 0, 0.4)
                }
                assert min(errors, key=errors.__getitem__) == (0, 0), errors
                assert errors[0, 0] < 10

    @staticmethod
    def _error(start: np.ndarray, end: np.ndarray, motion: np.ndarray, inside: np.ndarray, x: float, y: float) -> float:
        moved = motion + np.array([[0, 0, x], [0, 0, y]])
        predicted = cv2.warpAffine(start, moved, (320, 240), flags=cv2.INTER_CUBIC).astype(float)
        return float(np.abs(predicted - end)[inside].mean())

    def test_masks_move_along_the_true_motion(self, demo_root: Path, clip_id: str) -> None:
        truth = load_truth(demo_root, clip_id)
        start = load_objects(demo_root, clip_id)[0]["frame"]
        area = truth["masks"].sum(axis=(2, 3))
        for row in range(area.shape[1]):
            scale = np.abs(np.linalg.det(truth["motion"][:, row, :, :2]))
            unhidden = np.flatnonzero(area[:, row] / scale > 0.98 * (area[:, row] / scale).max())
            assert len(unhidden) > 10
            for end in unhidden:
                moved = move_mask(truth["masks"][start, row], between(truth, row, start, end))
                mask = truth["masks"][end, row]
                assert (moved & mask).sum() / (moved | mask).sum() > 0.93

    def test_objects_have_texture_to_track(self, demo_root: Path, clip_id: str) -> None:
        truth, frames = load_truth(demo_root, clip_id), load_video(demo_root / f"{clip_id}.mp4")
        for entry in load_objects(demo_root, clip_id):
            row = truth["object_id"].tolist().index(entry["id"])
            mask = truth["masks"][entry["frame"], row].astype(np.uint8)
            grey = cv2.cvtColor(frames[entry["frame"]], cv2.COLOR_RGB2GRAY)
            corners = cv2.goodFeaturesToTrack(grey, 0, 0.05, 4, mask=cv2.erode(mask, np.ones((5, 5))))
            assert len(corners) > 15

    def test_the_background_moves(self, demo_root: Path, clip_id: str) -> None:
        truth, frames = load_truth(demo_root, clip_id), load_video(demo_root / f"{clip_id}.mp4")
        background = ~truth["masks"].any(axis=(0, 1))
        difference = np.abs(frames[-1].astype(int) - frames[0])[background]
        assert difference.mean() > 10

    def test_prompts_agree_with_the_truth(self, demo_root: Path, clip_id: str) -> None:
        truth = load_truth(demo_root, clip_id)
        for entry in load_objects(demo_root, clip_id):
            mask = truth["masks"][entry["frame"], truth["object_id"].tolist().index(entry["id"])]
            assert entry["name"]
            assert {"box", "points", "mask"} & entry.keys()
            for (x, y), label in zip(entry.get("points", []), entry.get("labels", []), strict=True):
                assert mask[y, x] == bool(label)
            if "box" in entry:
                x0, y0, x1, y1 = entry["box"]
                ys, xs = np.nonzero(mask)
                assert [x0, y0, x1, y1] == [xs.min() - 2, ys.min() - 2, xs.max() + 2, ys.max() + 2]
            if "mask" in entry:
                np.testing.assert_array_equal(np.asarray(Image.open(demo_root / entry["mask"])) > 0, mask)


def move_mask(mask: np.ndarray, motion: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(mask.astype(np.float32), motion, (320, 240)) >= 0.5


class TestContentOfTheScenes:
    def test_every_kind_of_prompt_occurs(self, demo_root: Path) -> None:
        entries = [entry for clip_id in CLIPS for entry in load_objects(demo_root, clip_id)]
        kinds = {tuple(sorted({"box", "points", "mask"} & entry.keys())) for entry in entries}
        assert {("box",), ("points",), ("box", "points"), ("mask",)} <= kinds
        assert any(0 in entry.get("labels", []) for entry in entries)

    def test_object_of_spin_rotates_by_200_degrees(self, demo_root: Path) -> None:
        first, last = load_truth(demo_root, "spin")["motion"][[0, -1], 0]
        degrees = [np.degrees(np.arctan2(motion[1, 0], motion[0, 0])) for motion in (first, last)]
        assert np.ptp(degrees) == pytest.approx(200)

    def test_object_of_zoom_grows(self, demo_root: Path) -> None:
        area = load_truth(demo_root, "zoom")["masks"].sum(axis=(1, 2, 3))
        assert area[-1] > 4 * area[0]

    def test_object_of_hide_is_hidden_and_reappears(self, demo_root: Path) -> None:
        masks = load_truth(demo_root, "hide")["masks"]
        area = masks.sum(axis=(1, 2, 3))
        assert area.min() < 0.5 * area[0]
        assert area[-1] > 0.95 * area[0]
        ys, xs = np.nonzero(masks[0, 0])
        queries = QueryPoints(
            txy=np.column_stack([np.zeros(len(xs)), xs, ys]).astype(np.float32),
            object_id=np.ones(len(xs), np.int32),
        )
        truth = SceneTruth(demo_root / "truth" / "hide.npz").tracks(queries, np.arange(len(masks)))
        hidden_temporarily = ~truth.visible.all(axis=0) & truth.visible[-1]
        assert hidden_temporarily.mean() > 0.7

    def test_objects_of_pair_cross(self, demo_root: Path) -> None:
        masks = load_truth(demo_root, "pair")["masks"]
        assert masks.shape[1] == 2
        assert not (masks[:, 0] & masks[:, 1]).any()
        grown = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) for mask in masks[:, 1]]) > 0
        touching = (grown & masks[:, 0]).any(axis=(1, 2))
        assert not touching[0]
        assert touching.sum() > 10
        assert not touching[-1]

    def test_object_of_late_is_visible_before_and_after_its_prompt(self, demo_root: Path) -> None:
        (entry,) = load_objects(demo_root, "late")
        masks = load_truth(demo_root, "late")["masks"]
        assert 0 < entry["frame"] < len(masks) - 1
        assert masks.any(axis=(1, 2, 3)).all()


@pytest.mark.usefixtures("small_demo")
class TestFolder:
    def test_generating_again_gives_the_same_bytes(self, tmp_path: Path) -> None:
        generate_demo(tmp_path / "a")
        generate_demo(tmp_path / "b")
        assert files(tmp_path / "a") == files(tmp_path / "b")

    def test_no_temporary_files_remain(self, tmp_path: Path) -> None:
        generate_demo(tmp_path / "new" / "demo")
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["demo"]

    def test_missing_and_empty_folders_are_filled(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for name in ("missing", "empty"):
            ensure_demo(tmp_path / name)
            assert (tmp_path / name / "spin.mp4").is_file()

    def test_current_folder_and_edited_prompts_are_not_changed(self, tmp_path: Path) -> None:
        root = tmp_path / "demo"
        generate_demo(root)
        (root / "prompts.yaml").write_text("clips: {}\n")
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        ensure_demo(root)
        assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    def test_incomplete_folder_is_renamed_not_deleted(self, tmp_path: Path) -> None:
        root = tmp_path / "demo"
        generate_demo(root)
        (root / "truth" / "spin.npz").unlink()
        (root / "prompts.yaml").write_text("# mine\n")
        ensure_demo(root)
        assert (root / "truth" / "spin.npz").is_file()
        assert (tmp_path / "demo.old-1" / "prompts.yaml").read_text() == "# mine\n"

    def test_older_folder_is_replaced(self, tmp_path: Path) -> None:
        root = tmp_path / "demo"
        generate_demo(root)
        marker = json.loads((root / "version.json").read_text())
        (root / "version.json").write_text(json.dumps(marker | {"version": 0}))
        ensure_demo(root)
        assert json.loads((root / "version.json").read_text()) == marker

    @pytest.mark.parametrize("marker", [None, "{", "[]", '{"generator": "another"}'])
    def test_folder_with_other_files_is_refused_and_not_changed(self, tmp_path: Path, marker: str | None) -> None:
        (tmp_path / "thesis.txt").write_text("do not touch")
        if marker is not None:
            (tmp_path / "version.json").write_text(marker)
        before = files(tmp_path)
        with pytest.raises(DatasetError, match=r"is not the demo dataset .*nothing was changed"):
            ensure_demo(tmp_path)
        assert files(tmp_path) == before

    def test_file_instead_of_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(DatasetError, match=r"dataset\.root=.*/file is a file; expected a new or empty folder"):
            ensure_demo(tmp_path / "file")

    def test_unwritable_folder_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(
            DatasetError, match=r"dataset\.root=.*/file/demo cannot be written, because .*/file is a file;"
        ):
            ensure_demo(tmp_path / "file" / "demo")

    def test_folder_that_another_process_completes_meanwhile_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        complete, root = tmp_path / "other" / "demo", tmp_path / "here" / "demo"
        ensure_demo(complete)
        refuse_foreign = demo_folder._refuse_foreign

        def complete_meanwhile(folder: Path) -> None:
            refuse_foreign(folder)
            shutil.copytree(complete, root)

        monkeypatch.setattr(demo_folder, "_refuse_foreign", complete_meanwhile)
        demo_folder._move_into_place(tmp_path / "built", root, demo_folder.SCENES)
        assert [path.name for path in root.parent.iterdir()] == ["demo"]

    def test_concurrent_calls_give_one_complete_folder(self, tmp_path: Path) -> None:
        root = tmp_path / "demo"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ensure_demo, [root] * 4))
        assert [path.name for path in tmp_path.iterdir()] == ["demo"]
        assert demo_folder._is_current(root, demo_folder.SCENES)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
