"""The datasets of this package keep the contract of the role, on small files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot.datasets.base import Dataset
from aot.datasets.demo import Demo
from aot.datasets.mask_folders import MaskFolders
from aot.datasets.single_video import SingleVideo
from aot.datasets.videos import Videos
from tests.datasets.contract import DatasetContract
from tests.synthetic import moving_square, write_video

NUM_FRAMES = 4


def write_masks(folder: Path, square: int) -> None:
    """Masks of the square of `moving_square` on every second frame, with the pixel value `square`."""
    folder.mkdir(parents=True)
    for t in range(0, NUM_FRAMES, 2):
        values = np.zeros((64, 96), np.uint8)
        values[20:40, 8 + 2 * t : 28 + 2 * t] = square
        Image.fromarray(values).save(folder / f"{t:05d}.png")


class TestDemo(DatasetContract):
    @pytest.fixture
    def dataset(self, demo_root: Path) -> Dataset:
        return Demo(demo_root)


class TestVideos(DatasetContract):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        write_video(tmp_path / "b.mp4", moving_square(NUM_FRAMES))
        write_video(tmp_path / "day 1" / "é.mkv", moving_square(NUM_FRAMES))
        write_masks(tmp_path / "truth" / "b", square=1)
        (tmp_path / "prompts.yaml").write_text(
            "clips: {'*': {objects: [{id: 2, frame: 3, box: [8, 20, 28, 40]}, {id: 1, points: [[18, 30]]}]}}"
        )
        return Videos(tmp_path, tmp_path / "prompts.yaml", masks_pattern=tmp_path / "truth" / "{clip_id}")


class TestSingleVideo(DatasetContract):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        write_masks(tmp_path / "masks", square=255)
        video = write_video(tmp_path / "a.mp4", moving_square(NUM_FRAMES))
        return SingleVideo(video, mask=tmp_path / "masks" / "00000.png")


class TestMaskFolders(DatasetContract):
    @pytest.fixture(params=["mask", "box", "points"])
    def dataset(self, tmp_path: Path, request: pytest.FixtureRequest) -> Dataset:
        for name, square in (("many", 3), ("binary", 255)):
            write_masks(tmp_path / "masks" / name, square)
            (tmp_path / "images" / name).mkdir(parents=True)
            for t, rgb in enumerate(moving_square(NUM_FRAMES)):
                Image.fromarray(rgb).save(tmp_path / "images" / name / f"{t:05d}.jpg")
        return MaskFolders(tmp_path, "images", "masks", prompt_from=request.param)
