"""What counts as an object in a mask image; decided here for all readers: manifests, options and annotations.

    0 and 1, 0 and 255, or 0 and any other single value     everything that is not 0 is the object
    several ids                                             a reader must name the id (`mask_id` in a manifest)
    255 beside other ids                                    void: belongs to no object
    grey values of soft edges or JPEG compression,          refused, with what was found
    an object in the alpha channel only, inverted palettes

Of a palette image, the indices count, not the colours; a channel of constant alpha is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aot.images.masks import image_reason
from aot.system.text import first_names
from aot.types import BoolArray, MaskFile, UInt8Array

VOID = 255
"""Value of pixels that belong to no object and are not background, in images with other ids; else the object."""

# Label images number their objects from 1 on. Higher values beside 255 are the soft edges of an object.
_HIGHEST_ID_BESIDE_255 = 100


@dataclass(frozen=True)
class MaskImage:
    """A mask image that can be interpreted."""

    path: Path
    values: UInt8Array
    """(H, W): palette indices or grey values."""
    is_palette: bool

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Ascending ids of the objects in the image, without void."""
        found = [int(value) for value in np.unique(self.values) if value]
        return tuple(found if found == [VOID] else [value for value in found if value != VOID])

    def any_object(self) -> BoolArray:
        """(H, W): the pixels of all objects together."""
        return np.isin(self.values, self.ids)

    def only_object(self) -> BoolArray:
        """(H, W): the pixels of the only object; none if the image is empty.

        Raises:
            ValueError: the image has several ids, or it cannot be known whether 255 is void.
        """
        if len(self.ids) > 1:
            raise ValueError(
                f"{self.path}: contains the values {first_names(self.ids)}; expected a mask of one object (0 and one "
                f"other value), or the value of the object to use: mask_id: {self.ids[0]}"
            )
        num_void, num_object = np.count_nonzero(self.values == VOID), np.count_nonzero(self.values)
        if not self.is_palette and self.ids and self.ids != (VOID,) and 2 * num_void > num_object:
            raise ValueError(
                f"{self.path}: contains the values {self.ids[0]} ({num_object - num_void} px) and 255 ({num_void} px); "
                f"expected a mask of one object (0 and one other value), or the value of the object: mask_id: 255"
            )
        return self.any_object()

    def object_of(self, value: int) -> BoolArray:
        """(H, W): the pixels of one id.

        Raises:
            ValueError: there are none.
        """
        mask: BoolArray = self.values == value
        if not mask.any():
            found = f"contains the values {first_names(self.ids)}" if self.ids else "is empty"
            raise ValueError(f"{self.path}: {found}; expected pixels of the value {value} (mask_id)")
        return mask


def read_object(file: MaskFile) -> BoolArray:
    """Read the object that a prompt refers to: (H, W) bool.

    Raises:
        ValueError: the file is not a mask image, or has several objects; the message names the file.
    """
    image = read_mask_image(file.path)
    if file.has_several_ids:
        return image.any_object()
    return image.only_object() if file.value is None else image.object_of(file.value)


def read_mask_image(path: Path) -> MaskImage:
    """Read a mask image.

    Raises:
        ValueError: the file is not an image, or its values are not clear; the message names the file.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            num_images = getattr(image, "n_frames", 1)
            if num_images > 1:
                raise ValueError(f"{path}: contains {num_images} images; expected one: save only the mask, as PNG")
            image.load()
            values = _values(path, image)
            is_lossy = image.format in ("JPEG", "MPO")
            is_palette = image.mode in ("P", "PA")
            colours = np.asarray(image.getpalette("RGB") or [], dtype=np.int64).reshape(-1, 3) if is_palette else None
    except (OSError, SyntaxError, Image.DecompressionBombError) as exc:
        raise ValueError(f"{path}: not a readable image: {image_reason(exc)}; expected a PNG") from exc
    _refuse_shades(path, values, is_palette=is_palette, is_lossy=is_lossy)
    if colours is not None:
        _refuse_inverted(path, values, colours)
    return MaskImage(path, values, is_palette)


def _values(path: Path, image: Any) -> UInt8Array:
    """(H, W): the palette indices or grey values of an image that Pillow has read."""
    if image.mode == "1":
        return np.asarray(image.convert("L"), dtype=np.uint8)
    if image.mode in ("P", "L"):
        return np.asarray(image, dtype=np.uint8)
    if image.mode == "PA":
        return _without_alpha(path, np.asarray(image, dtype=np.uint8)[..., 0], np.asarray(image.getchannel("A")))
    if image.mode in ("LA", "RGB", "RGBA"):
        channels = np.asarray(image.convert("RGBA"), dtype=np.uint8)
        grey = channels[..., 0]
        if not (channels[..., :3] == grey[..., None]).all():
            raise ValueError(
                f"{path}: got an image of mode {image.mode} with colours; expected a palette or 8-bit grey image, with "
                f"one pixel value per object"
            )
        return _without_alpha(path, grey, channels[..., 3])
    deep = np.asarray(image)
    if image.mode.startswith("I"):
        return _eight_bits(path, deep)
    raise ValueError(
        f"{path}: got an image of mode {image.mode}; expected a palette or 8-bit grey image, with one pixel value per "
        f"object"
    )


def _without_alpha(path: Path, values: UInt8Array, alpha: NDArray[np.uint8]) -> UInt8Array:
    """The values of an image with an alpha channel, if that says nothing else."""
    is_constant = alpha.size == 0 or (alpha == alpha.flat[0]).all()
    if is_constant or np.array_equal(alpha != 0, values != 0):
        return values
    raise ValueError(
        f"{path}: its alpha channel marks other pixels than its values do; expected the object in the values: save the "
        f"mask without transparency"
    )


def _eight_bits(path: Path, values: NDArray[Any]) -> UInt8Array:
    """16-bit values as 8-bit ones: ids up to 255, or 0 and 65535."""
    highest = int(values.max(initial=0))
    if highest <= np.iinfo(np.uint8).max and int(values.min(initial=0)) >= 0:
        return values.astype(np.uint8)
    if set(np.unique(values).tolist()) <= {0, 65535}:
        return np.asarray((values > 0) * np.uint8(VOID), dtype=np.uint8)
    raise ValueError(f"{path}: contains values up to {highest}; expected ids from 1 to 255, or 0 and 65535")


def _refuse_shades(path: Path, values: UInt8Array, *, is_palette: bool, is_lossy: bool) -> None:
    """Raise if the values are grey shades: an object with soft edges, or compressed with losses."""
    shades = [int(value) for value in np.unique(values) if value not in (0, VOID)]
    has_soft_edge = not is_palette and VOID in values and max(shades, default=0) > _HIGHEST_ID_BESIDE_255
    # A JPEG has exact values only if nothing was lost; then they are 0 and 255.
    if has_soft_edge or (is_lossy and shades):
        cause = "JPEG compression changes values" if is_lossy else "as soft edges and compression leave them"
        raise ValueError(
            f"{path}: contains the grey values {first_names(shades)} beside 0 and 255 ({cause}); expected a mask "
            f"without shades: set every pixel to 0 or 255, and save it as PNG"
        )


def _refuse_inverted(path: Path, values: UInt8Array, colours: NDArray[np.int64]) -> None:
    """Raise if the background, index 0, is shown in a colour, and an object in black."""
    used = [int(value) for value in np.unique(values) if value < len(colours)]
    black = [value for value in used if not colours[value].any()]
    if 0 in used and 0 not in black and black:
        raise ValueError(
            f"{path}: its palette shows index 0 in the colour {tuple(colours[0].tolist())} and index {black[0]} in "
            f"black; expected index 0 to be the background: save the mask as a grey image with 0 and 255"
        )
