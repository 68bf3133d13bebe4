"""The frames that exports include or refer to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aot.decoding import open_source
from aot.export.base import ExportedClip
from aot.images.resize import resized_rgb
from aot.types import Int64Array, UInt8Array
from aot.writing.schema import recorded_clip

_JPEG_QUALITY = 95


def frames_of(clip: ExportedClip, index: Int64Array, size: tuple[int, int] | None = None) -> Iterator[UInt8Array]:
    """Yield the (H, W, 3) RGB of source frames, one at a time.

    Args:
        clip: its source is decoded.
        index: ascending source frames.
        size: width and height to resize to, px; None: as in the source.
    Raises:
        DecodeError: the source cannot be read.
    """
    with open_source(recorded_clip(clip.result.attributes)) as frames:
        for block in frames.blocks(index):
            for rgb in block.rgb:
                yield rgb if size is None else resized_rgb(rgb, size)


def save_image(path: Path, rgb: UInt8Array) -> None:
    """Write a JPEG or PNG, as the suffix says, in a folder that exists or is made."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, quality=_JPEG_QUALITY)
