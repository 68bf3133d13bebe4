"""The tokens of one frame: image patches, and queries at their positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from aot.errors import CheckpointError
from aot.tracking.tapnext.linear import Linear
from aot.tracking.tapnext.sizes import PATCH, Sizes
from aot.tracking.tapnext.weights import WeightReader

# Values of the stored table of positions may differ by this much from the product of its two axes.
_TABLE_TOLERANCE = 1e-5


class ImageTokens(nn.Module):
    """One token per patch of 8x8 px: a linear layer of its pixels, and its position."""

    def __init__(self, weights: WeightReader, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        projection = weights.take("lin_proj.weight", width, 3, PATCH, PATCH)
        self.project = Linear(projection.flatten(1), weights.take("lin_proj.bias", width))
        stored = weights.take("image_pos_emb", 1, None, width)
        side = int(stored.shape[1] ** 0.5)
        if side**2 != stored.shape[1]:
            raise CheckpointError(f"image_pos_emb has {stored.shape[1]} positions, expected those of a square grid")
        square = stored.view(1, side, side, width).permute(0, 3, 1, 2)
        if side != sizes.grid:
            square = functional.interpolate(square, (sizes.grid, sizes.grid), mode="bicubic", align_corners=False)
        self.position: Tensor
        self.register_buffer("position", square[0].flatten(1).t().contiguous())

    def forward(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Tokens of an image (3, R, R), values -1..1, row by row: (tokens, D) float32."""
        patches = image.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
        patches = patches.permute(1, 2, 0, 3, 4).reshape(len(self.position), -1)
        projected: Tensor = self.project(patches.to(dtype))
        return projected.float() + self.position


class QueryTokens(nn.Module):
    """The tokens of queries: at their own frame `point` + position, before it `unknown`, after it `mask`."""

    def __init__(self, weights: WeightReader, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.point: Tensor
        self.unknown: Tensor
        self.mask: Tensor
        self.table_x: Tensor
        self.table_y: Tensor
        self.register_buffer("point", weights.take("point_query_token", 1, 1, 1, width).view(width))
        self.register_buffer("unknown", weights.take("unknown_token", 1, 1, width).view(width))
        self.register_buffer("mask", weights.take("mask_token", 1, 1, 1, width).view(width))
        table_x, table_y = _axis_tables(weights, sizes)
        self.register_buffer("table_x", table_x)
        self.register_buffer("table_y", table_y)

    def beginning(self, xy: Tensor) -> Tensor:
        """Tokens (n, D) of queries at their own frame; xy (n, 2) in px of the model's image, corner-based."""
        x, y = (_interpolated(table, xy[:, axis]) for axis, table in enumerate((self.table_x, self.table_y)))
        # Outside the image the stored table counts as zero, which reduces both halves.
        halves = [x[0] * y[1], y[0] * x[1]]
        return self.point + torch.cat(halves, dim=1)


def _axis_tables(weights: WeightReader, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """(image_size, D/2) each: the halves of the position table that depend on x and on y.

    The table of the weights files, of one vector per pixel (201 MB), is the pair of them.
    """
    size, width = sizes.image_size, sizes.width
    if not weights.has("query_pos_embed"):
        table = _sine_table(size, width)
        return table, table
    stored = weights.take("query_pos_embed", 1, size * size, width).view(size, size, width)
    table_x, table_y = stored[0, :, : width // 2].clone(), stored[:, 0, width // 2 :].clone()
    difference = torch.maximum(
        (stored[..., : width // 2] - table_x).abs().amax(), (stored[..., width // 2 :] - table_y[:, None]).abs().amax()
    )
    if difference > _TABLE_TOLERANCE:
        raise CheckpointError(
            f"query_pos_embed is not a table of separate axes (it differs by {float(difference):.2g}); expected the "
            f"weights of TAPNext, or a state dict without it, for which it is computed"
        )
    return table_x, table_y


def _sine_table(size: int, width: int) -> Tensor:
    """(size, D/2): sines and cosines of every pixel's number at D/4 frequencies from 1 down to 1/10000."""
    num_frequencies = width // 4
    exponents = torch.arange(num_frequencies, dtype=torch.float32) / (num_frequencies - 1)
    angles = torch.arange(size, dtype=torch.float32)[:, None] * 10000.0**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _interpolated(table: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """The table (size, K) at corner-based positions (n,), zero outside, as (n, K); and the weight inside, (n, 1)."""
    centred = position - 0.5
    low = centred.floor()
    values, inside = table.new_zeros(len(position), table.shape[1]), table.new_zeros(len(position), 1)
    for number, weight in ((low, low + 1 - centred), (low + 1, centred - low)):
        is_inside = (number >= 0) & (number < len(table))
        share = (weight * is_inside)[:, None]
        values += share * table[number.clamp(0, len(table) - 1).long()]
        inside += share
    return values, inside
