"""What the trackers that run a network share: their memory besides the network, and the check of its results."""

from __future__ import annotations

import numpy as np

from aot.decoding.base import BACKWARD_BYTES, BLOCK_BYTES
from aot.errors import TrackingError
from aot.types import Tracks

# Blocks of frames that exist at once: in use, in transfer, and decoded ahead.
_BLOCKS = 3
# Bytes per pixel of one source frame while it is resized: uint8 and float32.
_FRAME_BYTES = 3 * (1 + 4)
# Bytes per point and row while results are collected: position and two probabilities as float32, three copies.
_RESULT_BYTES = 3 * 4 * 4


def bytes_beside_network(*, num_frames: int, num_points: int, width: int, height: int, is_read_backwards: bool) -> int:
    """Upper bound in bytes of the memory for source frames and results.

    Args:
        num_frames: kept frames of the clip.
        num_points: tracked points.
        width, height: size of the source in px.
        is_read_backwards: whether the tracker reads the frames in descending order too.
    """
    block = max(BACKWARD_BYTES if is_read_backwards else BLOCK_BYTES, 3 * width * height)
    return _BLOCKS * block + _FRAME_BYTES * width * height + _RESULT_BYTES * num_frames * num_points


def check_finite(tracks: Tracks, *, network: str, precision: str) -> None:
    """Raise TrackingError if positions are not finite: the network's numbers exceeded the range of its precision."""
    if not np.isfinite(tracks.xy).all():
        raise TrackingError(
            f"{network} computed positions that are not finite with precision={precision}; use tracker.precision=fp32"
        )
