"""A small training set of SA-V: a video, and masklets of two objects on every fourth frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aot.datasets.base import Dataset
from aot.datasets.sa_v import SaVideos
from aot.errors import DatasetError
from aot.images.masks import decode_rle, encode_rle
from aot.types import BoolArray, RleMask
from tests.datasets.contract import DatasetContract
from tests.synthetic import moving_square, write_video

SHAPE = (64, 96)


def disk(x: int, radius: int = 12) -> BoolArray:
    ys, xs = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return (ys - 30) ** 2 + (xs - x) ** 2 <= radius**2


def entry(mask: BoolArray) -> dict[str, Any]:
    packed = encode_rle(mask)
    return {"size": [packed.height, packed.width], "counts": packed.counts}


# The second object is not visible on the first annotated frame, and overlaps the first one later.
MASKS = [[disk(20), disk(0, -1) & False], [disk(30), disk(40)], [disk(40), disk(50)]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_video(tmp_path / "sav_000" / "sav_000001.mp4", moving_square(9), fps=24)
    content = {
        "video_id": "sav_000001", "video_frame_count": 9.0, "video_height": 64.0, "video_width": 96.0,
        "masklet_id": [0, 1], "masklet_num": 2, "masklet": [[entry(mask) for mask in masks] for masks in MASKS],
    }  # fmt: skip
    (tmp_path / "sav_000" / "sav_000001_manual.json").write_text(json.dumps(content))
    return tmp_path


class TestContract(DatasetContract):
    @pytest.fixture(params=["mask", "box", "points"])
    def dataset(self, root: Path, request: pytest.FixtureRequest) -> Dataset:
        return SaVideos(root, prompt_from=request.param)


def test_each_masklet_is_prompted_on_its_first_frame(root: Path) -> None:
    (clip,) = SaVideos(root).clips()
    assert clip.clip_id == "sav_000/sav_000001"
    assert [(prompt.object_id, prompt.name, prompt.frame) for prompt in clip.prompts] == [
        (1, "masklet 0", 0), (2, "masklet 1", 4),
    ]  # fmt: skip
    mask = clip.prompts[1].mask
    assert isinstance(mask, RleMask), "masks are not decoded before a clip is run"
    assert np.array_equal(decode_rle(mask), MASKS[1][1])
    assert SaVideos(root, prompt_from="box").clips()[0].prompts[0].box == (8, 18, 33, 43)


def test_truth_is_on_every_fourth_frame(root: Path) -> None:
    truth = SaVideos(root).ground_truth("sav_000/sav_000001")
    assert truth is not None
    assert (truth.object_ids, truth.mask_frames.tolist()) == ((1, 2), [0, 4, 8])
    first, last = truth.mask(0), truth.mask(8)
    assert first is not None
    assert last is not None
    assert list(first) == [1], "an object is not annotated before its first frame"
    assert np.array_equal(last[1] & last[2], MASKS[2][0] & MASKS[2][1]), "overlaps are kept"
    assert truth.mask(1) is None
    assert SaVideos(root, annotations="auto").ground_truth("sav_000/sav_000001") is None


def test_missing_and_broken_files_are_reported(root: Path, tmp_path: Path) -> None:
    path = root / "sav_000" / "sav_000001_manual.json"
    content = json.loads(path.read_text())
    content["masklet"][1].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"masklet\[1\] has 1 masks, expected 2"):
        SaVideos(root).clips()
    path.write_text(json.dumps({"masklet": []}))
    with pytest.raises(DatasetError, match=r"sav_000001_manual\.json.*; expected masklets of SA-V: masklet_id"):
        SaVideos(root).clips()
    path.unlink()
    with pytest.raises(DatasetError, match=r"sav_000001_manual\.json does not exist; expected the masklets"):
        SaVideos(root).clips()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty is an empty folder; expected sav_000001\.mp4"):
        SaVideos(tmp_path / "empty").clips()
