"""Masks as people keep them: pictures whose pixels are numbers, one an object; and COCO's run lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aot.types import BoolArray, RleMask, UInt8Array


def read_indices(path: Path) -> UInt8Array:
    """Read a mask picture as numbers: palette indices, or grey values.

    Returns:
        (H, W) uint8.
    Raises:
        ValueError: the file is not a picture, or one whose pixels are colours; the message says which.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.mode in ("LA", "PA"):  # some of DAVIS-2016's masks carry an alpha channel
                return np.asarray(picture, dtype=np.uint8)[..., 0]
            if picture.mode == "1":
                return np.asarray(picture.convert("L"), dtype=np.uint8)
            if picture.mode not in ("P", "L"):
                raise ValueError(
                    f"{path}: a picture of mode {picture.mode}; expected a palette or 8-bit grey one, "
                    f"with one value an object"
                )
            return np.asarray(picture, dtype=np.uint8)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as exc:
        raise ValueError(f"{path}: not a readable picture ({exc}); expected a PNG") from exc


def decode_rle(mask: RleMask) -> BoolArray:
    """Unpack run lengths.

    Returns:
        (H, W) bool.
    Raises:
        ValueError: they do not add up to the size.
    """
    # pycocotools would not notice: it hands out memory that nobody wrote where runs are missing.
    runs = _run_lengths(mask)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(columns.reshape(mask.width, mask.height).T, dtype=np.bool_)


def encode_rle(mask: BoolArray) -> RleMask:
    """Pack a (H, W) mask into run lengths."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    return RleMask(height=mask.shape[0], width=mask.shape[1], counts=encoded["counts"].decode("ascii"))


def rle_area(mask: RleMask) -> int:
    """Number of pixels set; what `decode_rle` would refuse is refused here too."""
    return sum(_run_lengths(mask)[1::2])


def _run_lengths(mask: RleMask) -> list[int]:
    """The runs, first of pixels that are not set, then of those that are, and so on.

    Each number is written 5 bits a letter from "0" on, lowest first; the next bit of a letter says that more follow,
    the highest of the last one is the sign. From the fourth run on, it is the difference to the run before the last.
    """
    runs: list[int] = []
    number = shift = 0
    for letter in mask.counts:
        bits = ord(letter) - ord("0")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (bits & 16) << (shift - 4)
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    if shift or sum(runs) != mask.height * mask.width or min(runs, default=0) < 0:
        raise ValueError(
            f"run lengths {mask.counts[:20]!r}… add up to {sum(runs)} px; expected {mask.width}x{mask.height}"
        )
    return runs
