"""Prompt frames and their masks as PNG files, for viewing and for other tools."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from aot.system.files import replacing, write_errors
from aot.types import BoolArray, FrameBlock


def write_images(folder: Path, frame: FrameBlock, masks: dict[int, BoolArray]) -> list[Path]:
    """Write one frame and one mask per object: 255 object, 0 background.

    Args:
        folder: receives `frame_000012.png` and `frame_000012_object_1.png`.
        frame: a block of one frame.
        masks: (H, W) by object id.
    Returns:
        The files written.
    Raises:
        WriteError: a file could not be written.
    """
    name = f"frame_{frame.index[0]:06d}"
    images = {name: Image.fromarray(frame.rgb[0])}
    images |= {f"{name}_object_{i}": Image.fromarray(mask).convert("L") for i, mask in masks.items()}
    paths = []
    for stem, image in images.items():
        path = folder / f"{stem}.png"
        with replacing(path) as part, write_errors(path):
            image.save(part, format="PNG")
        paths.append(path)
    return paths
