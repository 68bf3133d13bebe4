"""Importing boxes of other tools."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from aot.errors import ConfigError
from aot.images.masks import decode_rle, encode_rle
from aot.manifest.converters import Detection, manifest_of
from aot.manifest.merge import merge_manifest
from aot.manifest.mot import read_mot
from aot.manifest.read import load_manifest
from aot.prompts import main
from aot.types import RleMask

IMAGES = [
    {"id": 10, "file_name": "day1/ep_3/00004.jpg", "width": 100, "height": 50},
    {"id": 11, "file_name": "day1/ep_3/00007.jpg", "width": 100, "height": 50},
    {"id": 12, "file_name": "cup-012.png", "width": 100, "height": 50},
]
CATEGORIES = [{"id": 1, "name": "mug"}]


def annotation(image_id: int, box: list[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "bbox": box} | more


def coco(tmp_path: Path, annotations: list[dict[str, Any]], *arguments: str, **more: Any) -> dict[str, Any]:
    """The clips of the imported manifest; frames are counted from 0."""
    return imported(tmp_path, "coco", coco_file(tmp_path, annotations, **more), "--first-frame", "0", *arguments)


def coco_file(tmp_path: Path, annotations: list[dict[str, Any]], **more: Any) -> str:
    content = {"images": IMAGES, "annotations": annotations, "categories": CATEGORIES} | more
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return str(tmp_path / "coco.json")


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of an import that is refused; the manifest is not written."""
    out = tmp_path / "refused.yaml"
    assert main(["import", "--out", str(out), *arguments]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def imported(tmp_path: Path, form: str, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "prompts.yaml"
    assert main(["import", "--format", form, "--out", str(out), *arguments]) == 0
    load_manifest(out)
    clips: dict[str, Any] = yaml.safe_load(out.read_text())["clips"]
    return clips


def test_tracks_are_prompted_on_their_first_frame(tmp_path: Path) -> None:
    clips = coco(
        tmp_path,
        [
            annotation(11, [10, 10, 20, 20], track_id=7),
            annotation(10, [8, 10, 20, 20], track_id=7),
            annotation(11, [-5, 40, 30, 20], track_id=3),
        ],
    )
    assert clips == {
        "day1/ep_3": {
            "objects": [
                {"id": 7, "name": "mug", "frame": 4, "box": [8, 10, 28, 30]},
                {"id": 3, "name": "mug", "frame": 7, "box": [0, 40, 25, 50]},  # cropped to the frame
            ]
        }
    }


def test_without_track_ids_only_the_first_frame_is_used(tmp_path: Path) -> None:
    annotations = [annotation(11, [1, 1, 2, 2]), annotation(10, [3, 3, 4, 4]), annotation(10, [5, 5, 6, 6])]
    clips = coco(tmp_path, [*annotations, annotation(12, [1, 2, 3, 4])])
    assert [(entry["id"], entry["frame"]) for entry in clips["day1/ep_3"]["objects"]] == [(1, 4), (2, 4)]
    assert clips["cup"]["objects"] == [{"id": 1, "name": "mug", "frame": 12, "box": [1, 2, 4, 6]}]


def test_track_ids_from_0_are_renumbered(tmp_path: Path) -> None:
    clips = coco(tmp_path, [annotation(11, [1, 1, 2, 2], track_id=5), annotation(10, [3, 3, 4, 4], track_id=0)])
    assert [(entry["id"], entry["frame"]) for entry in clips["day1/ep_3"]["objects"]] == [(1, 4), (2, 7)]


def test_images_of_results_come_from_another_file(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text(json.dumps({"images": IMAGES, "categories": CATEGORIES}))
    results = [annotation(10, [1, 1, 2, 2], score=0.9), annotation(10, [3, 3, 2, 2], score=0.2)]
    (tmp_path / "results.json").write_text(json.dumps(results))
    found = imported(
        tmp_path, "coco", str(tmp_path / "results.json"), "--images", str(tmp_path / "images.json"),
        "--min-score", "0.5", "--first-frame", "0",
    )  # fmt: skip
    assert [entry["box"] for entry in found["day1/ep_3"]["objects"]] == [[1, 1, 3, 3]]


def test_video_and_frame_number_take_precedence_over_the_file_name(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "x/00031.jpg", "video_id": 9, "frame_id": 2, "width": 9, "height": 9}
    clips = coco(tmp_path, [annotation(1, [1, 1, 2, 2])], images=[image], videos=[{"id": 9, "name": "cam/2"}])
    assert [(key, clip["objects"][0]["frame"]) for key, clip in clips.items()] == [("cam/2", 2)]


def test_images_that_are_counted_from_0_or_from_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image 0 settles it, also without a box; otherwise the number of the first frame must be given."""
    numbered = [{"id": n, "file_name": f"ep/{n:05d}.jpg", "width": 99, "height": 99} for n in range(3)]
    boxes = [annotation(1, [1, 1, 9, 9])]
    out = imported(tmp_path, "coco", coco_file(tmp_path, boxes, images=numbered))
    assert out["ep"]["objects"][0]["frame"] == 1
    file = coco_file(tmp_path, boxes, images=numbered[1:])
    message = refused(tmp_path, capsys, "--format", "coco", file)
    assert "no image is frame 0; the lowest frame with a box is 1 of clip 'ep'" in message
    assert "give --first-frame 0 or --first-frame 1" in message
    out = imported(tmp_path, "coco", file, "--force", "--first-frame", "1")
    assert out["ep"]["objects"][0]["frame"] == 0
    message = refused(tmp_path, capsys, "--format", "coco", file, "--first-frame", "2")
    assert "frame 1 is before the first frame, 2 (--first-frame)" in message


def test_track_ids_of_cvat_are_among_the_attributes(tmp_path: Path) -> None:
    boxes = [annotation(image, [8, 9, 20, 20], attributes={"occluded": False, "track_id": 5}) for image in (10, 11)]
    clips = coco(tmp_path, [*boxes, annotation(11, [50, 9, 20, 20], attributes={"track_id": 6})])
    assert [(item["id"], item["frame"]) for item in clips["day1/ep_3"]["objects"]] == [(5, 4), (6, 7)]


@pytest.mark.parametrize(
    ("video", "clip_id"),
    [
        ({"file_name": "day1/cam_2.MP4"}, "day1/cam_2"),
        ({"name": "cam.2"}, "cam.2"),
        ({"name": "cam2.mov", "file_name": "x.mp4"}, "cam2"),
        ({}, "9"),
    ],
)
def test_a_video_names_its_clip(tmp_path: Path, video: dict[str, str], clip_id: str) -> None:
    image = {"id": 1, "file_name": "x/00031.jpg", "video_id": 9, "frame_id": 2}
    assert list(coco(tmp_path, [annotation(1, [1, 1, 9, 9])], images=[image], videos=[{"id": 9} | video])) == [clip_id]


@pytest.mark.parametrize("extra", [{"extra": {"name": "kitchen-12.jpg"}}, {"extra": None}, {}])
def test_images_renamed_by_roboflow_have_their_original_names(tmp_path: Path, extra: dict[str, Any]) -> None:
    image = {"id": 0, "file_name": "train/kitchen-12_jpg.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg"} | extra
    clips = coco(tmp_path, [annotation(0, [1, 1, 9, 9])], images=[image])
    assert [(key, clip["objects"][0]["frame"]) for key, clip in clips.items()] == [("kitchen", 12)]


@pytest.mark.parametrize("name", ["frame_000003.PNG", "00003.jpg", "0a1b2c3d4e5f60718293a4b5c6d7e807.jpg"])
def test_names_without_a_clip_are_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the word before the number nor a hash is a clip."""
    images = [{"id": 0, "file_name": name}]
    file = coco_file(tmp_path, [annotation(0, [1, 1, 9, 9])], images=images)
    message = refused(tmp_path, capsys, "--format", "coco", file, "--first-frame", "0")
    assert f"image 0 ({name}) has no clip and frame number" in message
    assert "--clip NAME gives the clip of all images" in message
    if "3" in name[:-4][-1:]:
        clips = imported(tmp_path, "coco", file, "--first-frame", "0", "--clip", "cam")
        assert clips["cam"]["objects"][0]["frame"] == 3


FIRST = {"id": 1, "file_name": "a/00000.jpg"}
IMPOSSIBLE = {
    "images of one id": ({"images": [FIRST, FIRST | {"file_name": "a/00001.jpg"}]}, {}, "two images have the id 1"),
    "videos of one name": (
        {"images": [FIRST], "videos": [{"id": 1, "name": "x.mp4"}, {"id": 2, "name": "x"}]}, {},
        "two videos have the name 'x'; expected different names",
    ),
    "unknown video": (
        {"images": [FIRST | {"video_id": 9}], "videos": [{"id": 1, "name": "x"}]}, {},
        "image 1: its video_id 9 is not among the videos",
    ),
    "fraction of a frame": ({"images": [FIRST | {"frame_id": 2.5}]}, {}, "its frame_id 2.5 is not an integer"),
    "fraction of a track": ({"images": [FIRST]}, {"track_id": 1.2}, "annotation 1: its track_id 1.2 is not an integer"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_contradictions_are_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, more, message = IMPOSSIBLE[name]
    path = coco_file(tmp_path, [annotation(1, [1, 2, 10, 20], **more)], **content)
    assert message in refused(tmp_path, capsys, "--format", "coco", "--first-frame", "0", path)


@pytest.mark.parametrize("counts", ["PPYo0", [10, 20, 4970]])
def test_masks_of_another_size_are_refused(
    tmp_path: Path, counts: str | list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    mask = {"size": [100, 50], "counts": counts}
    path = coco_file(tmp_path, [annotation(10, [1, 2, 10, 20], segmentation=mask)])
    message = refused(tmp_path, capsys, "--format", "coco", "--first-frame", "0", "--masks", path)
    assert "annotation 1: a mask of size [100, 50]; expected [50, 100], height and width of its image" in message


def test_paths_written_on_windows(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "day1\\ep_3\\00004.jpg"}]
    clips = coco(tmp_path, [annotation(1, [1, 2, 10, 20], track_id="7"), annotation(1, [5, 2, 10, 20])], images=images)
    assert [clips["day1/ep_3"]["objects"][0][key] for key in ("id", "frame")] == [7, 4]


def test_two_images_of_one_frame_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Augmented copies are mirrored, rotated or cropped."""
    images = [
        {"id": n, "file_name": f"kitchen-12_jpg.rf.{hash_}.jpg"} for n, hash_ in enumerate(["a1" * 16, "b2" * 16])
    ]
    file = coco_file(tmp_path, [annotation(n, [1, 1, 9, 9]) for n in (0, 1)], images=images)
    message = refused(tmp_path, capsys, "--format", "coco", file, "--first-frame", "0")
    assert "the images 0 and 1 are both frame 12 of clip 'kitchen'" in message


TWO_CLASSES = [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]


def test_a_track_id_with_two_classes_on_one_frame_is_two_objects(tmp_path: Path) -> None:
    boxes = [annotation(10, [1, 1, 9, 9], track_id=1), annotation(10, [20, 1, 9, 9], track_id=1, category_id=2)]
    later = annotation(11, [50, 1, 9, 9], track_id=2, category_id=2)
    objects = coco(tmp_path, [*boxes, later], categories=TWO_CLASSES)["day1/ep_3"]["objects"]
    assert [(item["id"], item["name"], item["box"][0]) for item in objects] == [
        (1, "car", 1),
        (2, "dog", 20),
        (3, "dog", 50),
    ]


def test_a_track_whose_class_changes_is_refused_unless_its_meaning_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [annotation(10, [1, 1, 9, 9], track_id=1), annotation(11, [20, 1, 9, 9], track_id=1, category_id=2)]
    file = coco_file(tmp_path, boxes, categories=TWO_CLASSES)
    message = refused(tmp_path, capsys, "--format", "coco", file, "--first-frame", "0")
    assert "clip 'day1/ep_3': track 1 is 'car' on frame 4 and 'dog' on frame 7 (1 such track)" in message
    for choice, number in (("unique", 1), ("per-class", 2)):
        clips = imported(tmp_path, "coco", file, "--first-frame", "0", "--track-ids", choice, "--force")
        assert len(clips["day1/ep_3"]["objects"]) == number


def test_everything_that_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(
        tmp_path,
        [
            annotation(10, [1, 1, 9, 9], track_id=1),
            annotation(10, [30, 1, 9, 9], track_id=1),
            annotation(11, [2, 1, 9, 9], track_id=1, score=0.1),
            annotation(11, [5, 1, 9, 9], track_id=2, score=0.1),
            annotation(11, [500, 1, 9, 9], track_id=3),
            annotation(11, [5, 1, 0.5, 9], track_id=4),
            annotation(11, [5, 1, 9, 9]),
            annotation(11, [5, 1, 9, 9], track_id=9, ignore=1),
            annotation(12, [5, 1, 9, 9]),
        ],
        "--min-score", "0.5",
        images=[*IMAGES, {"id": 13, "file_name": "cup-013.png"}],
    )  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/prompts.yaml: 2 clips, 2 objects",
        f"{tmp_path}/coco.json: left out: 1 box to be ignored (the key ignore)",
        "left out: 1 box of an object that has another one on the same frame",
        "left out: 1 box without a track id in a clip with track ids",
        "left out: 2 boxes with a score below 0.5",
        "left out: 2 boxes outside the frame or smaller than 1 px",
        "not in the manifest: 3 objects without a usable box: clip 'day1/ep_3' track 2, clip 'day1/ep_3' track 3, "
        "clip 'day1/ep_3' track 4",
    ]


def test_boxes_without_track_ids_on_later_frames_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path, [annotation(image, [1, 1, 9, 9]) for image in (10, 11, 11)])
    message = "left out: 2 boxes without a track id, on frames after the first one with boxes"
    assert message in capsys.readouterr().out


def test_boxes_that_are_fractions_of_the_frame_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = coco_file(tmp_path, [annotation(10, [0.1, 0.2, 0.3, 0.4])])
    message = refused(tmp_path, capsys, "--format", "coco", file, "--first-frame", "0")
    assert "the boxes are all within 0 to 1" in message


def test_frame_numbers_are_positions_in_the_folder(tmp_path: Path) -> None:
    for number in (1, 4, 7):
        path = tmp_path / "frames" / "day1" / "ep_3" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    clips = coco(tmp_path, [annotation(11, [1, 1, 2, 2])], "--frames", str(tmp_path / "frames"))
    assert clips["day1/ep_3"]["objects"][0]["frame"] == 2


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("written", "stored"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_frame_folders_are_found_however_their_accents_are_stored(tmp_path: Path, written: str, stored: str) -> None:
    folder = tmp_path / "frames" / stored / "ep"
    folder.mkdir(parents=True)
    for number in (1, 4, 7):
        (folder / f"{stored}_{number}.jpg").touch()
    images = [{"id": 11, "file_name": f"{written}/ep/{written}_7.jpg", "width": 100, "height": 50}]
    clips = coco(tmp_path, [annotation(11, [1, 1, 2, 2])], "--frames", str(tmp_path / "frames"), images=images)
    assert clips[f"{written}/ep"]["objects"][0]["frame"] == 2


def test_frame_numbers_are_positions_among_the_frames_of_one_pattern(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames" / "ep"
    folder.mkdir(parents=True)
    for name in ("0_depth.jpg", "1_depth.jpg", "1_color.jpg", "3_color.jpg"):
        (folder / name).touch()
    images = [{"id": 11, "file_name": "ep/3_color.jpg", "width": 100, "height": 50}]
    file = coco_file(tmp_path, [annotation(11, [1, 1, 2, 2])], images=images)
    frames = ["--frames", str(tmp_path / "frames")]
    message = refused(tmp_path, capsys, "--format", "coco", file, *frames)
    assert "names of 2 patterns: *_color.jpg (2 images), *_depth.jpg (2 images)" in message
    assert "in aot.prompts, the option is --pattern" in message
    clips = imported(tmp_path, "coco", file, *frames, "--pattern", "*_color.jpg")
    assert clips["ep"]["objects"][0]["frame"] == 1


@pytest.mark.parametrize("kind", ["compressed", "plain", "polygon"])
def test_segmentations_are_imported_as_masks(tmp_path: Path, kind: str) -> None:
    mask = np.zeros((50, 100), dtype=np.bool_)
    mask[10:20, 30:45] = True
    segmentation: Any = {"size": [50, 100], "counts": encode_rle(mask).counts}
    if kind == "plain":
        columns = np.concatenate([[0], mask.T.ravel(), [0]]).astype(int)
        edges = np.flatnonzero(np.diff(columns))
        segmentation = {"size": [50, 100], "counts": np.diff([0, *edges, mask.size]).tolist()}
    elif kind == "polygon":
        segmentation = [[30, 10, 45, 10, 45, 20, 30, 20]]
    clips = coco(tmp_path, [annotation(10, [30, 10, 15, 10], segmentation=segmentation)], "--masks")
    (entry,) = clips["day1/ep_3"]["objects"]
    assert "box" not in entry
    assert np.array_equal(decode_rle(RleMask(50, 100, entry["mask"]["counts"])), mask)


def test_mot_frames_and_pixels_are_counted_from_1(tmp_path: Path) -> None:
    sequence = tmp_path / "MOT17-02"
    (sequence / "gt").mkdir(parents=True)
    (sequence / "seqinfo.ini").write_text("[Sequence]\nname=MOT17-02\nimWidth=1920\nimHeight=1080\n")
    (sequence / "gt" / "gt.txt").write_text("3,2,1,1,10,20,1,1,0.8\n1,2,1911,1,30,20,1,1,1\n1,4,5,6,7,8,0,1,1\n\n")
    clips = imported(tmp_path, "mot", str(sequence / "gt" / "gt.txt"), "--min-score", "0.5")
    assert clips == {"MOT17-02": {"objects": [{"id": 2, "frame": 0, "box": [1910, 0, 1920, 20]}]}}


def mot(tmp_path: Path, text: str, *arguments: str) -> dict[str, Any]:
    (tmp_path / "cam.txt").write_text(text)
    return imported(tmp_path, "mot", str(tmp_path / "cam.txt"), *arguments)


def test_mot_boxes_that_are_not_to_be_considered_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = mot(tmp_path, "1,1,11,11,20,20,1,1,1.0\n1,2,51,51,20,20,0,8,1.0\n1,3,99,1,20,20,0,12,0.0\n")
    assert clips == {"cam": {"objects": [{"id": 1, "frame": 0, "box": [10, 10, 30, 30]}]}}
    assert "cam.txt: left out: 2 boxes not to be considered (0 in column 7)" in capsys.readouterr().out
    scores = mot(tmp_path, "1,1,11,11,20,20,0.5\n1,2,51,51,20,20,0\n", "--force")
    assert len(scores["cam"]["objects"]) == 2, "0 is a score here"
    (tmp_path / "none.txt").write_text("1,1,11,11,20,20,0,1,1.0\n")
    message = refused(tmp_path, capsys, "--format", "mot", str(tmp_path / "none.txt"))
    assert "the seventh column is 0 in all lines" in message


def test_mot_track_ids_may_be_counted_per_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = mot(tmp_path, "1,1,11,11,20,20,0.9,1,1.0\n1,1,51,51,20,20,0.9,3,1.0\n")
    assert [(item["id"], item["box"][0]) for item in clips["cam"]["objects"]] == [(1, 10), (2, 50)]
    (tmp_path / "cam.txt").write_text("1,1,11,11,20,20,0.9,1,1.0\n2,1,51,51,20,20,0.9,3,1.0\n")
    message = refused(tmp_path, capsys, "--format", "mot", str(tmp_path / "cam.txt"))
    assert "track 1 is of class 1 on frame 0 and of class 3 on frame 1" in message
    world = "1,1,11,11,20,20,0.9,1.5,2,3\n2,1,51,51,20,20,0.9,3,2,3\n"
    assert len(mot(tmp_path, world, "--force")["cam"]["objects"]) == 1, "world coordinates are not classes"


def test_mot_columns_may_be_separated_by_spaces_and_scores_unknown(tmp_path: Path) -> None:
    clips = mot(tmp_path, "1 1 11 11 20 20 -1 -1 -1 0 \n")
    assert clips == {"cam": {"objects": [{"id": 1, "frame": 0, "box": [10, 10, 30, 30]}]}}


def test_mot_frame_0_is_refused_unless_it_is_the_first_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cam.txt").write_text("1,1,10,10,20,20,0.9\n0,1,10,10,20,20,0.9\n")
    message = refused(tmp_path, capsys, "--format", "mot", str(tmp_path / "cam.txt"))
    assert "cam.txt, line 2: frame 0, but MOTChallenge counts frames and pixels from 1; give --first-frame 0" in message
    clips = imported(tmp_path, "mot", str(tmp_path / "cam.txt"), "--first-frame", "0")
    assert clips["cam"]["objects"] == [{"id": 1, "frame": 0, "box": [10, 10, 30, 30]}]


BY_A_PERSON = """# mine
clips:
  cam:  # the left one
    objects:
      - {id: 7, name: "cup", box: [1, 2, 3, 4]}  # chipped
  day1/*:
    objects: [{id: 3, box: [1, 2, 3, 4]}]
"""


def test_an_existing_manifest_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cam.txt").write_text("1,1,11,11,20,20,1\n")
    out = tmp_path / "mine.yaml"
    out.write_text(BY_A_PERSON)
    command = ["import", "--format", "mot", str(tmp_path / "cam.txt"), "--out", str(out)]
    assert main(command) == 2
    assert f"--out {out} exists and was not changed; --merge adds the imported objects" in capsys.readouterr().err
    assert out.read_text() == BY_A_PERSON
    assert main([*command, "--force"]) == 0
    assert yaml.safe_load(out.read_text())["clips"]["cam"]["objects"][0]["id"] == 1


@pytest.mark.parametrize("is_linked", [False, True])
def test_merging_keeps_comments_and_entries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_linked: bool
) -> None:
    boxes = [
        Detection(clip_id, 0, track, (5.0, 5.0, 9.0, 9.0)) for clip_id, track in
        (("cam", 7), ("cam", 8), ("day1/a", 4), ("new", 1))
    ]  # fmt: skip
    file, out = tmp_path / "mine.yaml", tmp_path / "out.yaml"
    file.write_text(BY_A_PERSON)
    out.symlink_to(file) if is_linked else shutil.copy(file, out)
    notes = merge_manifest(out, manifest_of(boxes).content)
    assert notes == (
        "clip 'cam': 1 object not added, because it has objects with the same ids",
        "clip 'day1/a': has its own entry now, with the objects of the pattern 'day1/*'",
    )
    text = out.read_text()
    assert all(line in text for line in BY_A_PERSON.splitlines())
    entries = load_manifest(out).clips
    assert {key: [item.id for item in entry.objects] for key, entry in entries.items()} == {
        "cam": [7, 8], "day1/*": [3], "day1/a": [3, 4], "new": [1],
    }  # fmt: skip
    assert entries["cam"].objects[0].box == (1, 2, 3, 4)
    assert out.is_symlink() == is_linked


def test_a_merge_that_fails_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cam.txt").write_text("1,1,11,11,20,20,1\n")
    out = tmp_path / "mine.yaml"
    out.write_text("clips: [broken\n")
    assert main(["import", "--format", "mot", str(tmp_path / "cam.txt"), "--out", str(out), "--merge"]) == 2
    assert "not valid YAML" in capsys.readouterr().err
    assert out.read_text() == "clips: [broken\n"


def test_mot_file_of_a_tracker_is_imported(tmp_path: Path) -> None:
    (tmp_path / "cam2.txt").write_text("5,-1,10.5,11.5,10,10,0.9,-1,-1,-1\n6,-1,1,1,10,10,0.9,-1,-1,-1\n")
    clips = imported(tmp_path, "mot", str(tmp_path / "cam2.txt"), "--clip", "day1/cam2", "--size", "18x100")
    assert clips == {"day1/cam2": {"objects": [{"id": 1, "frame": 4, "box": [9.5, 10.5, 18, 20.5]}]}}


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("1,2,x,1,1,1", [], r"a\.txt, line 1: '1,2,x,1,1,1'; expected frame, id"),
        ("1,2,1,1,1,1,0.1", ["--min-score", "0.5"], "no box has a score of at least 0.5"),
        ("1,2,1,1,1,1", ["--size", "wide"], "--size wide: expected WIDTHxHEIGHT"),
        ("[]", ["--format", "coco"], "a list of results without the images"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "b/0.png"}],'
         '"annotations": [{"image_id": 1, "bbox": [1, 1, 1, 1]}]}',
         ["--format", "coco"], "has no clip and frame number; expected CLIP/00012.jpg"),
        ('{"images": [], "annotations": [{"image_id": 1}]}', ["--format", "coco"],
         r"a\.txt: annotation 1: its image_id 1 is not among the images; expected COCO JSON"),
        ('{"images": [],\n "annotations": [}', ["--format", "coco"],
         r"a\.txt, line 2, column 18: not valid JSON: a value"),
        ("", ["--format", "coco"], r"a\.txt: the file is empty; expected COCO JSON"),
        ('{"images": [{}], "annotations": []}', ["--format", "coco"], r"a\.txt: the key 'id' is missing; expected"),
        ('{"images": [], "annotations": []}', ["--format", "coco"], "the imported files contain no box"),
        (" \n", [], r"a\.txt: the file is empty; expected lines of MOTChallenge text: frame, id, left"),
    ],
)  # fmt: skip
def test_invalid_input_is_refused_with_a_reason(
    tmp_path: Path, text: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(text)
    out = tmp_path / "out.yaml"
    form = [] if "--format" in arguments else ["--format", "mot"]
    assert main(["import", *form, "--out", str(out), str(tmp_path / "a.txt"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


@pytest.mark.parametrize("text", ["[Sequence]\nimWidth=wide\nimHeight=3\n", "[Sequence]\nimWidth=3\n", "imWidth=3\n"])
def test_a_broken_seqinfo_is_described(tmp_path: Path, text: str) -> None:
    (tmp_path / "seq" / "gt").mkdir(parents=True)
    (tmp_path / "seq" / "seqinfo.ini").write_text(text)
    (tmp_path / "seq" / "gt" / "gt.txt").write_text("1,2,1,1,1,1\n")
    with pytest.raises(
        ConfigError, match=r"seqinfo\.ini: not valid; expected a section \[Sequence\] with the integers"
    ):
        read_mot(tmp_path / "seq" / "gt" / "gt.txt")


def test_imported_boxes_with_mistakes_are_described_like_a_manifest() -> None:
    boxes = [Detection("a", -1, 1, (1.0, 1.0, 2.0, 2.0))]
    with pytest.raises(
        ConfigError, match=r"valid manifest:\n  clip 'a', object 1, frame: expected a source frame number"
    ):
        manifest_of(boxes)
