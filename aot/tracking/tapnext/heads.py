"""The heads: positions as probabilities of bins along y and x, and visibility; all in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from aot.tracking.tapnext.linear import Linear
from aot.tracking.tapnext.sizes import NUM_BINS
from aot.tracking.tapnext.weights import WeightReader

_NORM_EPS = 1e-5
_HIDDEN = 256
# A position is the mean of the bins around the most probable one, of probabilities at this temperature.
_SHARPNESS, _RADIUS_BINS = 0.5, 20
# The certainty is the probability of a disc, summed over a window of bins per axis.
_WINDOW, _DISC_RADIUS = 17, 8.0


class Prediction(NamedTuple):
    """What the network predicts for n query tokens of one frame."""

    logits: Tensor
    """(n, 512) float32: of the bins of y, then of those of x."""
    visible_logit: Tensor
    """(n,) float32."""


class Estimate(NamedTuple):
    """Positions and probabilities of n points on one frame."""

    xy: Tensor
    """(n, 2) in bins, 0..256, corner-based."""
    visibility: Tensor
    """(n,) probability in 0..1 that the point is visible."""
    certainty: Tensor
    """(n,) probability in 0..1 that the position is within 8 bins."""


class Heads(nn.Module):
    """The norm after the last block and the two heads."""

    def __init__(self, weights: WeightReader, width: int) -> None:
        super().__init__()
        self.norm = _norm(weights.under("encoder_norm"), width)
        self.coordinates = _head(weights.under("coordinate_head"), width, 2 * NUM_BINS)
        self.visible = _head(weights.under("visible_head"), width, 1)

    def forward(self, x: Tensor) -> Prediction:
        """Predictions for tokens (n, D) float32."""
        normed = self.norm(x)
        return Prediction(self.coordinates(normed), self.visible(normed)[:, 0])


def decoded(prediction: Prediction) -> Estimate:
    """Positions, visibility and certainty of predictions."""
    y_logits, x_logits = prediction.logits.chunk(2, dim=1)
    xy = torch.stack([_position(x_logits), _position(y_logits)], dim=1)
    certainty = _certainty(xy, x_logits.softmax(dim=1), y_logits.softmax(dim=1))
    return Estimate(xy, prediction.visible_logit.sigmoid(), certainty)


def _position(logits: Tensor) -> Tensor:
    """(n,) mean of the bins near the most probable one, for logits (n, bins)."""
    bins = torch.arange(NUM_BINS, device=logits.device)
    best = logits.argmax(dim=1, keepdim=True)
    probability = (_SHARPNESS * logits).softmax(dim=1) * ((bins - best).abs() <= _RADIUS_BINS)
    return 0.5 + (probability * bins).sum(dim=1) / probability.sum(dim=1)


def _certainty(xy: Tensor, x_probability: Tensor, y_probability: Tensor) -> Tensor:
    """(n,) probability of a disc of radius 8 around the position.

    The disc lies transposed against the probabilities, as in the authors' PyTorch code, which the published visibility
    rule of BootsTAPNext uses; in their JAX code it does not.
    """
    offsets = torch.arange(_WINDOW, device=xy.device)
    start = (xy - _WINDOW / 2).floor().clamp(0, NUM_BINS - _WINDOW).long()
    bins = start[:, :, None] + offsets  # (n, 2, window)
    x_window, y_window = x_probability.gather(1, bins[:, 0]), y_probability.gather(1, bins[:, 1])
    along = (bins + 0.5 - xy[:, :, None]).square()
    # Rows are offsets within y's window and columns those within x's; the distances are the other way round.
    is_inside = along[:, 0, :, None] + along[:, 1, None, :] <= _DISC_RADIUS**2 + 1e-8
    return ((y_window[:, :, None] * x_window[:, None, :]) * is_inside).sum(dim=(1, 2))


def _head(weights: WeightReader, width: int, num_outputs: int) -> nn.Sequential:
    """Two hidden layers, each with a norm and an exact GELU."""
    layers: list[nn.Module] = []
    for number, size in ((0, width), (3, _HIDDEN)):
        layers.append(_linear(weights.under(str(number)), size, _HIDDEN))
        layers.append(_norm(weights.under(str(number + 1)), _HIDDEN))
        layers.append(nn.GELU())
    return nn.Sequential(*layers, _linear(weights.under("6"), _HIDDEN, num_outputs))


def _linear(weights: WeightReader, num_inputs: int, num_outputs: int) -> Linear:
    return Linear(weights.take("weight", num_outputs, num_inputs), weights.take("bias", num_outputs))


class _Norm(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, _NORM_EPS)


def _norm(weights: WeightReader, width: int) -> _Norm:
    return _Norm(weights.take("weight", width), weights.take("bias", width))
