"""The parts of a token besides its correlations: the motion of its point, and the time.

Source: CoTracker3 (arXiv:2410.11831), section 3.1, "iterative updates".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from aot.tracking.cotracker3.sizes import NUM_FREQUENCIES, TOKEN_SIZE


def motion_embedding(xy: Tensor, size: tuple[float, float]) -> Tensor:
    """Displacement between a frame and its next and previous frames, and sines and cosines of it at ten frequencies.

    Args:
        xy: (N, T, 2) positions.
        size: width and height in the same unit.
    Returns:
        (N, T, MOTION_SIZE).
    """
    step = xy[:, :-1] - xy[:, 1:]
    step = torch.stack([step[..., 0] / size[0], step[..., 1] / size[1]], dim=-1)
    forward = functional.pad(step, (0, 0, 0, 1))
    backward = functional.pad(-step, (0, 0, 1, 0))
    motion = torch.cat([forward, backward], dim=-1)
    scales = 2.0 ** torch.arange(NUM_FREQUENCIES, device=xy.device, dtype=xy.dtype)
    angles = (motion[:, :, None] * scales[:, None]).flatten(2)
    return torch.cat([motion, angles.sin(), (angles + math.pi / 2).sin()], dim=-1)


def time_table(window_len: int) -> Tensor:
    """Sines, then cosines of 0..window_len−1 at falling frequencies: (1, window_len, TOKEN_SIZE)."""
    half = TOKEN_SIZE // 2
    frequencies = 1 / 10000 ** (torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(window_len, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[None].float()


def time_embedding(table: Tensor, num_frames: int) -> Tensor:
    """The table (1, window_len, TOKEN_SIZE) interpolated to (1, num_frames, TOKEN_SIZE)."""
    if num_frames == table.shape[1]:
        return table
    return functional.interpolate(table.transpose(1, 2), num_frames, mode="linear").transpose(1, 2)
