"""Masks as people keep them: pictures whose pixels are numbers, one an object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aot.types import UInt8Array


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
