"""Importing boxes of other tools."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from aot.errors import ConfigError
from aot.images.masks import decode_rle, encode_rle
from aot.manifest.converters import Detection, manifest_of, read_mot
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
    """The clips of the imported manifest."""
    content = {"images": IMAGES, "annotations": annotations, "categories": CATEGORIES} | more
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return imported(tmp_path, "coco", str(tmp_path / "coco.json"), *arguments)


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
        "--min-score", "0.5",
    )  # fmt: skip
    assert [entry["box"] for entry in found["day1/ep_3"]["objects"]] == [[1, 1, 3, 3]]


def test_video_and_frame_number_take_precedence_over_the_file_name(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "x/00031.jpg", "video_id": 9, "frame_id": 2, "width": 9, "height": 9}
    clips = coco(tmp_path, [annotation(1, [1, 1, 2, 2])], images=[image], videos=[{"id": 9, "name": "cam/2"}])
    assert [(key, clip["objects"][0]["frame"]) for key, clip in clips.items()] == [("cam/2", 2)]


def test_frame_numbers_are_positions_in_the_folder(tmp_path: Path) -> None:
    for number in (1, 4, 7):
        path = tmp_path / "frames" / "day1" / "ep_3" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    clips = coco(tmp_path, [annotation(11, [1, 1, 2, 2])], "--frames", str(tmp_path / "frames"))
    assert clips["day1/ep_3"]["objects"][0]["frame"] == 2


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
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [1, 1, 1, 1]}]}',
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
