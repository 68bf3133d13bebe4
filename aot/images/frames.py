"""Folders with one image file per frame: which file is which source frame."""

from __future__ import annotations

import re
from pathlib import Path

from aot.errors import DecodeError

# What cv2.imread reads and datasets use for frames.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, ordered by the numbers in their names: file i is source frame i.

    Raises:
        DecodeError: the folder has no image, or two images with the same number.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
    if not files:
        raise DecodeError(
            f"{folder}: contains no image; expected one file per frame ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    files.sort(key=_natural_order)
    by_number: dict[object, Path] = {}
    for file in files:
        other = by_number.setdefault(str(_natural_order(file)), file)
        if other != file:
            raise DecodeError(
                f"{folder}: {other.name} and {file.name} have the same frame number; expected one file per "
                f"frame: move other images, such as masks, to another folder"
            )
    return files


def _natural_order(file: Path) -> list[tuple[int, int, str]]:
    # 2.jpg comes before 10.jpg, and frame_2_b.jpg before frame_10_a.jpg.
    parts = re.split(r"([0-9]+)", file.stem)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
