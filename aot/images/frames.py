"""Folders with one image a frame: which file is which source frame."""

from __future__ import annotations

import re
from pathlib import Path

from aot.errors import DecodeError

# What cv2.imread reads and datasets use for frames.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in the order of their numbers: file i is source frame i, whatever number its name bears.

    Raises:
        DecodeError: there is none, or two have the same number.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
    if not files:
        raise DecodeError(f"{folder}: no image in it, expected one file a frame ({', '.join(sorted(IMAGE_SUFFIXES))})")
    files.sort(key=_natural_order)
    by_number: dict[object, Path] = {}
    for file in files:
        other = by_number.setdefault(str(_natural_order(file)), file)
        if other != file:
            raise DecodeError(
                f"{folder}: {other.name} and {file.name} are the same frame, expected one file a frame: "
                f"move what are not the frames (masks?) to a folder of their own"
            )
    return files


def _natural_order(file: Path) -> list[tuple[int, int, str]]:
    # 2.jpg comes before 10.jpg, and frame_2_b.jpg before frame_10_a.jpg.
    parts = re.split(r"([0-9]+)", file.stem)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
