"""Correlation of the patch around each estimate with the patch around its query.

Two properties make this cheap without changing the result. The 7x7 samples of a patch share one fractional offset, so
8x8 integer pixels are sufficient, and since bilinear interpolation is linear it can follow the products with the
support. And clamping integer pixels to the frame is equivalent to sampling with border padding.

Source: CoTracker3 (arXiv:2410.11831), section 3.1, "4D correlation features".
"""

from __future__ import annotations

import torch
from torch import Tensor

from aot.tracking.cotracker3.features import Pyramid
from aot.tracking.cotracker3.sizes import CHANNELS, PATCH, RADIUS, TAPS
from aot.tracking.onednn import batched_product

Support = tuple[Tensor, ...]
"""One tensor per level: (N, PATCH, CHANNELS), the patch around each query on its query frame; x outer, y inner."""


def gather(level: Tensor, size: tuple[int, int], xy: Tensor) -> tuple[Tensor, Tensor]:
    """The integer pixels from which the patches around positions are interpolated.

    Args:
        level: (F, h·w, C) features of one level.
        size: (h, w) of the level.
        xy: (N, F, 2) positions in the level's pixels, any finite numbers.
    Returns:
        (N, F, TAPS, TAPS, C), x outer, y inner; and (N, F, 2) the fractions for the interpolation.
    """
    height, width = size
    # More than a patch outside the frame every tap is a border pixel; unbounded integers might overflow.
    xy = torch.stack([xy[..., 0].clamp(-TAPS, width + TAPS), xy[..., 1].clamp(-TAPS, height + TAPS)], dim=-1)
    floor = xy.floor()
    pixel = floor.long()
    offsets = torch.arange(-RADIUS, RADIUS + 2, device=xy.device)
    x = (pixel[..., 0, None] + offsets).clamp_(0, width - 1)
    y = (pixel[..., 1, None] + offsets).clamp_(0, height - 1)
    y = y * width + torch.arange(level.shape[0], device=xy.device)[:, None] * (height * width)
    index = (x[..., :, None] + y[..., None, :]).view(-1)
    taps = level.reshape(-1, level.shape[-1]).index_select(0, index)
    return taps.view(*xy.shape[:2], TAPS, TAPS, level.shape[-1]), xy - floor


def interpolate(taps: Tensor, fraction: Tensor) -> Tensor:
    """Bilinear samples (R, SIDE, SIDE, K) between integer pixels (R, TAPS, TAPS, K) at fractions (R, 2)."""
    fraction = fraction.to(taps.dtype)[:, :, None, None, None]
    along_x = torch.lerp(taps[:, :-1], taps[:, 1:], fraction[:, 0])
    return torch.lerp(along_x[:, :, :-1], along_x[:, :, 1:], fraction[:, 1])


def sample_support(pyramid: Pyramid, sizes: list[tuple[int, int]], frame: int, xy: Tensor) -> Support:
    """Patches around the queries on one frame.

    Args:
        pyramid: features of a block of frames.
        sizes: (h, w) of every level.
        frame: index of the frame in the block.
        xy: (N, 2) positions in pixels of the finest level.
    """
    support = []
    for number, (level, size) in enumerate(zip(pyramid, sizes)):
        taps, fraction = gather(level[frame : frame + 1], size, xy[:, None] / 2**number)
        patch = interpolate(taps[:, 0].float(), fraction[:, 0])
        support.append(patch.reshape(-1, PATCH, CHANNELS).to(level.dtype))
    return tuple(support)


def correlate(level: Tensor, size: tuple[int, int], xy: Tensor, support: Tensor) -> Tensor:
    """Products of every sample around each estimate with every sample of its query's support.

    Args:
        level: (F, h·w, C) features of one level.
        size: (h, w) of the level.
        xy: (N, F, 2) estimates in the level's pixels.
        support: (N, PATCH, C).
    Returns:
        (N·F, PATCH·PATCH).
    """
    taps, fraction = gather(level, size, xy)
    num_points, num_frames = xy.shape[:2]
    # One product for all frames of a point, so that its support is read once and not copied.
    products = batched_product(taps.view(num_points, num_frames * TAPS * TAPS, -1), support)
    samples = interpolate(products.view(-1, TAPS, TAPS, PATCH), fraction.view(-1, 2))
    return samples.reshape(-1, PATCH * PATCH)
