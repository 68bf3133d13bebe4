"""What counts as the object in a mask image, for every reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from aot.images.mask_images import read_mask_image, read_object
from aot.types import MaskFile

SHAPE = np.zeros((24, 32), dtype=np.uint8)
SHAPE[6:18, 8:20] = 1
OBJECT = SHAPE > 0


def palette(values: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(values, "L").convert("P")
    image.putpalette([channel for colour in colours for channel in colour])
    image.putdata(values.reshape(-1).tolist())
    return image


def with_void(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[18, 8:20] = 255
    return values


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (200, 0, 0)

READ = {
    "0 and 1": Image.fromarray(SHAPE),
    "0 and 255": Image.fromarray(SHAPE * 255),
    "boolean": Image.fromarray(OBJECT),
    "one other value": Image.fromarray(SHAPE * 7),
    "palette": palette(SHAPE, BLACK, RED),
    "palette on white": palette(SHAPE, WHITE, RED),
    "void beside an id": Image.fromarray(with_void(SHAPE)),
    "0 and 65535": Image.fromarray(SHAPE.astype(np.uint16) * 65535),
    "ids of 16 bits": Image.fromarray(SHAPE.astype(np.uint16) * 3),
    "grey as RGB": Image.fromarray(np.stack([SHAPE * 255] * 3, axis=2)),
    "opaque": Image.fromarray(np.stack([SHAPE * 255] * 3 + [SHAPE * 0 + 255], axis=2)),
    "opaque grey": Image.fromarray(np.stack([SHAPE * 255, SHAPE * 0 + 255], axis=2)),
    "transparent background": Image.fromarray(np.stack([SHAPE * 255, SHAPE * 255], axis=2)),
}


@pytest.mark.parametrize("name", READ)
def test_object_is_what_is_not_0(tmp_path: Path, name: str) -> None:
    READ[name].save(tmp_path / "mask.png")
    assert np.array_equal(read_object(MaskFile(tmp_path / "mask.png")), OBJECT)


TWO = SHAPE.copy()
TWO[2:4] = 2
SOFT = np.asarray(Image.fromarray(SHAPE * 255).filter(ImageFilter.GaussianBlur(1)))

REFUSED = {
    "two ids": (Image.fromarray(TWO), r"contains the values 1, 2; expected a mask of one object .* mask_id: 1"),
    "two ids in a palette": (palette(TWO, BLACK, RED, WHITE), "contains the values 1, 2; expected"),
    "mostly 255 beside an id": (
        Image.fromarray(np.where(TWO == 2, 3, SHAPE * 255).astype(np.uint8)),
        r"contains the values 3 \(64 px\) and 255 \(144 px\); expected .* mask_id: 255",
    ),
    "soft edges": (Image.fromarray(SOFT), r"contains the grey values \d+, .* \(as soft edges and compression"),
    "alpha only": (Image.fromarray(np.stack([SHAPE * 0] * 3 + [SHAPE * 255], axis=2)), "its alpha channel marks other"),
    "alpha only, white": (
        Image.fromarray(np.stack([SHAPE * 0 + 255, SHAPE * 255], axis=2)), "its alpha channel marks other pixels"
    ),
    "inverted palette": (palette(1 - SHAPE, WHITE, BLACK), r"index 0 in the colour \(255, 255, 255\) and index 1"),
    "colours": (Image.fromarray(np.stack([SHAPE * 200, SHAPE, SHAPE], axis=2)), "mode RGB with colours; expected"),
    "16 bits": (Image.fromarray(SHAPE.astype(np.uint16) * 700), "values up to 700; expected ids from 1 to 255"),
    "numbers with fractions": (Image.fromarray(SHAPE.astype(np.float32)), "mode F; expected a palette"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unclear_mask_is_refused_with_what_was_found(tmp_path: Path, name: str) -> None:
    image, message = REFUSED[name]
    path = tmp_path / ("mask.tif" if image.mode == "F" else "mask.png")
    image.save(path)
    with pytest.raises(ValueError, match=message):
        read_object(MaskFile(path))


@pytest.mark.parametrize("suffix", [".tif", ".png", ".gif", ".webp"])
def test_file_with_several_images_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mask{suffix}"
    Image.fromarray(SHAPE * 255).save(path, save_all=True, append_images=[Image.fromarray(255 - SHAPE * 255)])
    with pytest.raises(ValueError, match="contains 2 images; expected one: save only the mask, as PNG"):
        read_object(MaskFile(path))


def test_jpeg_is_read_only_if_nothing_was_lost(tmp_path: Path) -> None:
    Image.fromarray(np.where(OBJECT, 30, 0).astype(np.uint8)).save(tmp_path / "lossy.jpg", quality=50)
    with pytest.raises(ValueError, match=r"grey values .* beside 0 and 255 \(JPEG compression changes values\)"):
        read_object(MaskFile(tmp_path / "lossy.jpg"))
    blocks = np.kron(np.eye(3, 4, dtype=np.uint8), np.full((8, 8), 255, dtype=np.uint8))
    Image.fromarray(blocks).save(tmp_path / "exact.jpg", quality=100)
    assert np.array_equal(read_object(MaskFile(tmp_path / "exact.jpg")), blocks > 0)


def test_object_is_chosen_by_its_value(tmp_path: Path) -> None:
    Image.fromarray(with_void(TWO)).save(tmp_path / "mask.png")
    assert read_mask_image(tmp_path / "mask.png").ids == (1, 2)
    assert np.array_equal(read_object(MaskFile(tmp_path / "mask.png", 2)), TWO == 2)
    assert np.array_equal(read_object(MaskFile(tmp_path / "mask.png", has_several_ids=True)), TWO > 0)
    with pytest.raises(ValueError, match=r"contains the values 1, 2; expected pixels of the value 3 \(mask_id\)"):
        read_object(MaskFile(tmp_path / "mask.png", 3))
