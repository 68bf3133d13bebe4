"""The engine with two small networks in place of the two large ones, for tests of everything else.

Frames, features' pyramid and storage, supports, correlations, embeddings, windows, directions and plans are the
engine's; only the layers between them are few, so that a track takes milliseconds. The large networks are compared with
the upstream package and with plain layers in test_golden.py, test_upstream.py and test_parts.py.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from aot.tracking.cotracker3 import CoTracker3
from aot.tracking.cotracker3.features import FeatureNet
from aot.tracking.cotracker3.sizes import CHANNELS, HIDDEN, STRIDE, WINDOW_LEN, Mode

# Standard deviations of the updates of positions (in pixels of the finest features) and logits.
_STEP, _LOGIT_STEP = 0.3, 1.0
# With initial weights the correlations would change the tokens little.
_CORRELATION_GAIN = 30.0


class _SmallFeatureNet(FeatureNet):
    """One convolution; the pyramid is the engine's."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.conv = nn.Conv2d(3, CHANNELS, STRIDE, stride=STRIDE)

    def forward(self, frames: Tensor) -> Tensor:
        pixels = self.conv(2 * (frames / 255) - 1).permute(0, 2, 3, 1)
        return functional.normalize(pixels - pixels.mean(dim=(1, 2), keepdim=True), dim=-1)


class _SmallTransformer(nn.Module):
    """Every point's update depends on its own tokens and, less, on those of all points in all frames."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.others = nn.Linear(HIDDEN, 4), nn.Linear(HIDDEN, 4)

    def forward(self, tokens: Tensor, max_tokens: int) -> Tensor:
        tokens = functional.layer_norm(tokens, tokens.shape[-1:])
        update = self.own(tokens) + self.others(tokens.mean(dim=(0, 1)))
        scale = update.new_tensor([_STEP, _STEP, _LOGIT_STEP, _LOGIT_STEP])
        return torch.tanh(update) * scale


@lru_cache
def small_model(mode: Mode = "offline", resolution: tuple[int, int] = (48, 64)) -> CoTracker3:
    """The engine with small networks, the same in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CoTracker3(mode=mode, window_len=WINDOW_LEN[mode], resolution=resolution, precision="fp32")
        model.fold()
        model.fnet, model.updateformer = _SmallFeatureNet(), _SmallTransformer()
        for layer in (model.updateformer.own, model.updateformer.others):
            nn.init.normal_(layer.weight, std=HIDDEN**-0.5)
            nn.init.zeros_(layer.bias)
        model.correlation_weight *= _CORRELATION_GAIN
    return model.eval().requires_grad_(False)
