"""Read the frames of a source to which a result refers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aot.decoding import open_source
from aot.images.resize import resized_rgb
from aot.types import Int64Array, UInt8Array
from aot.writing.schema import recorded_clip


def source_frames(
    attributes: Mapping[str, Any], index: Int64Array, size: tuple[int, int] | None = None
) -> Iterator[UInt8Array]:
    """Yield the (H, W, 3) RGB of source frames, one at a time.

    Args:
        attributes: of the result; they name the source.
        index: ascending source frames.
        size: width and height to resize to, px; None: as in the source.
    Raises:
        DecodeError: the source cannot be read.
    """
    with open_source(recorded_clip(attributes)) as frames:
        for block in frames.blocks(index):
            for rgb in block.rgb:
                yield rgb if size is None else resized_rgb(rgb, size)
