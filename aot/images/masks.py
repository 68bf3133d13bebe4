"""COCO's run lengths of masks, and why an image cannot be read."""

from __future__ import annotations

import numpy as np

from aot.system.os_errors import os_reason
from aot.types import BoolArray, RleMask

MAX_RLE_PIXELS = 2**28
"""Pixels of the largest mask that is decoded: 16384x16384."""

# Of one encoded number: more than the pixels of any mask need.
_MAX_NUMBER_BITS = 50


def image_reason(error: Exception) -> str:
    """Why Pillow cannot read an image, in plain words."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is not an image, or its beginning is damaged"
    if isinstance(error, Image.DecompressionBombError):
        return "it has too many pixels"
    return os_reason(error, otherwise="it is damaged or cut off")


def decode_rle(mask: RleMask) -> BoolArray:
    """Decode run lengths.

    Returns:
        (H, W) bool.
    Raises:
        ValueError: the runs do not add up to the mask's size.
    """
    # pycocotools does not check the sum: for missing runs it returns uninitialised memory.
    runs = _run_lengths(mask)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(columns.reshape(mask.width, mask.height).T, dtype=np.bool_)


def encode_rle(mask: BoolArray) -> RleMask:
    """Encode a (H, W) bool mask as run lengths."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    return RleMask(height=mask.shape[0], width=mask.shape[1], counts=encoded["counts"].decode("ascii"))


def rle_area(mask: RleMask) -> int:
    """Number of pixels set.

    Raises:
        ValueError: as `decode_rle`.
    """
    return sum(_run_lengths(mask)[1::2])


def _run_lengths(mask: RleMask) -> list[int]:
    """Lengths of alternating runs of pixels, starting with pixels that are not set.

    Each number is encoded in characters from "0" on, 5 bits per character, lowest first. If the sixth bit of a
    character is set, more follow; the highest bit of the last one is the sign. From the fourth run on, the difference
    to the run two places before is encoded.
    """
    if mask.height * mask.width > MAX_RLE_PIXELS:
        raise ValueError(f"of {mask.width}x{mask.height} px; expected at most {MAX_RLE_PIXELS} px")
    runs: list[int] = []
    number = shift = total = 0
    for letter in mask.counts:
        bits = ord(letter) - ord("0")
        number |= (bits & 31) << shift
        shift += 5
        if shift > _MAX_NUMBER_BITS:  # longer numbers would take time that grows with the square of their length
            break
        if not bits & 32:
            number -= (bits & 16) << (shift - 4)
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            total += runs[-1]
            number = shift = 0
            if runs[-1] < 0 or total > mask.height * mask.width:
                break
    if shift or total != mask.height * mask.width or min(runs, default=0) < 0:
        raise ValueError(
            f"run lengths {mask.counts[:20]!r}… do not add up to the pixels of the mask; expected "
            f"{mask.width}x{mask.height}"
        )
    return runs
