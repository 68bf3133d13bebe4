"""Prompt frames and their masks as PNG files, for people to look at and other tools to read."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from aot.system.files import replacing, write_errors
from aot.types import BoolArray, FrameBlock


def write_pictures(folder: Path, frame: FrameBlock, masks: dict[int, BoolArray]) -> list[Path]:
    """Write one frame, and a mask for each object on it: 255 object, 0 background.

    Args:
        folder: gets `frame_000012.png` and `frame_000012_object_1.png`.
        frame: a block of one frame.
        masks: (H, W) by object id.
    Returns:
        The files.
    Raises:
        WriteError: one of them could not be written.
    """
    name = f"frame_{frame.index[0]:06d}"
    pictures = {name: Image.fromarray(frame.rgb[0])}
    pictures |= {f"{name}_object_{i}": Image.fromarray(mask).convert("L") for i, mask in masks.items()}
    paths = []
    for stem, picture in pictures.items():
        path = folder / f"{stem}.png"
        with replacing(path) as part, write_errors(path):
            picture.save(part, format="PNG")
        paths.append(path)
    return paths
