"""Correlation of the patch around each estimate with the patch around its query.

Two facts make this cheap and change nothing. The 7x7 samples of a patch share one fractional offset, so 8x8 whole
pixels are enough, and since bilinear blending is linear it can wait until after the products with the support. And
whole pixels clamped to the frame are what sampling with a repeated border gives.

Source: CoTracker3 (arXiv:2410.11831), section 3.1, "4D correlation features".
"""

from __future__ import annotations

import torch
from torch import Tensor

from aot.tracking.cotracker3.features import Pyramid
from aot.tracking.cotracker3.sizes import CHANNELS, PATCH, RADIUS, TAPS

Support = tuple[Tensor, ...]
"""One tensor a level: (N, CHANNELS, PATCH), the patch around each query in its own frame; x outer, y inner."""


def gather(level: Tensor, size: tuple[int, int], xy: Tensor) -> tuple[Tensor, Tensor]:
    """The whole pixels that the patches around some positions are blended from.

    Args:
        level: (F, h·w, C) one level's features.
        size: (h, w).
        xy: (N, F, 2) positions in the level's pixels, any real numbers.
    Returns:
        (N, F, TAPS, TAPS, C), x outer, y inner; and (N, F, 2) the fractions to blend with.
    """
    height, width = size
    # Further out than a patch every tap is the border's; without a bound the integers might overflow.
    xy = torch.stack([xy[..., 0].clamp(-TAPS, width + TAPS), xy[..., 1].clamp(-TAPS, height + TAPS)], dim=-1)
    floor = xy.floor()
    whole = floor.long()
    offsets = torch.arange(-RADIUS, RADIUS + 2, device=xy.device)
    x = (whole[..., 0, None] + offsets).clamp_(0, width - 1)
    y = (whole[..., 1, None] + offsets).clamp_(0, height - 1)
    y = y * width + torch.arange(level.shape[0], device=xy.device)[:, None] * (height * width)
    index = (x[..., :, None] + y[..., None, :]).view(-1)
    taps = level.reshape(-1, level.shape[-1]).index_select(0, index)
    return taps.view(*xy.shape[:2], TAPS, TAPS, level.shape[-1]), xy - floor


def blend(taps: Tensor, fraction: Tensor) -> Tensor:
    """Bilinear samples (R, SIDE, SIDE, K) between whole pixels (R, TAPS, TAPS, K) at fractions (R, 2)."""
    fraction = fraction.to(taps.dtype)[:, :, None, None, None]
    along_x = torch.lerp(taps[:, :-1], taps[:, 1:], fraction[:, 0])
    return torch.lerp(along_x[:, :, :-1], along_x[:, :, 1:], fraction[:, 1])


def sample_support(pyramid: Pyramid, sizes: list[tuple[int, int]], frame: int, xy: Tensor) -> Support:
    """Patches around queries of one frame.

    Args:
        pyramid: of some frames.
        frame: which of them.
        xy: (N, 2) positions in pixels of the finest level.
    """
    support = []
    for number, (level, size) in enumerate(zip(pyramid, sizes)):
        taps, fraction = gather(level[frame : frame + 1], size, xy[:, None] / 2**number)
        patch = blend(taps[:, 0].float(), fraction[:, 0])
        support.append(patch.reshape(-1, PATCH, CHANNELS).transpose(1, 2).to(level.dtype).contiguous())
    return tuple(support)


def correlate(level: Tensor, size: tuple[int, int], xy: Tensor, support: Tensor) -> Tensor:
    """Products of every sample around each estimate with every sample of its query's support.

    Args:
        level: (F, h·w, C).
        size: (h, w).
        xy: (N, F, 2) estimates in the level's pixels.
        support: (N, C, PATCH).
    Returns:
        (N·F, PATCH·PATCH).
    """
    taps, fraction = gather(level, size, xy)
    num_points, num_frames = xy.shape[:2]
    # All frames of a point in one product, so that its support is read once and nothing is repeated.
    products = torch.bmm(taps.view(num_points, num_frames * TAPS * TAPS, -1), support)
    samples = blend(products.view(-1, TAPS, TAPS, PATCH), fraction.view(-1, 2))
    return samples.reshape(-1, PATCH * PATCH)
