"""Prompt frames and masks as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot.drawing.images import write_images
from aot.errors import WriteError
from tests.fakes import ArraySource
from tests.synthetic import moving_square


def test_frame_and_its_masks_are_written_as_png(tmp_path: Path) -> None:
    rgb = moving_square(3)
    masks = {1: rgb[2, ..., 0] > 100, 7: rgb[2, ..., 0] < 20}
    paths = write_images(tmp_path / "day" / "clip", ArraySource(rgb).read([2]), masks)
    assert [path.name for path in paths] == [
        "frame_000002.png",
        "frame_000002_object_1.png",
        "frame_000002_object_7.png",
    ]
    assert sorted((tmp_path / "day" / "clip").iterdir()) == paths
    assert np.array_equal(np.asarray(Image.open(paths[0])), rgb[2])
    for path, mask in zip(paths[1:], masks.values()):
        assert np.array_equal(np.asarray(Image.open(path)), mask * np.uint8(255))


def test_an_unwritable_folder_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "clip").write_text("a file")
    with pytest.raises(WriteError, match=r"frame_000000\.png could not be written"):
        write_images(tmp_path / "clip", ArraySource(moving_square(1)).read([0]), {})
