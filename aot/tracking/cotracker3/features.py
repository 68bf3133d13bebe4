"""The feature network: frames in, pyramids of unit-length features out.

Source: CoTracker3 (arXiv:2410.11831), section 3.1, "feature maps".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from aot.tracking.cotracker3.sizes import CHANNELS, NUM_LEVELS, STRIDE
from aot.tracking.onednn import linear

Pyramid = tuple[Tensor, ...]
"""One tensor per level, finest first: (F, h·w, CHANNELS) for F frames, in row-major order."""


def layout(device: torch.device) -> torch.memory_format:
    """The layout of images and weights: on CUDA the only one in which several frames can be normalized at once."""
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last


def _instance_norm(x: Tensor) -> Tensor:
    if len(x) > 1:
        return functional.instance_norm(x)
    # For a single image, batch norm with its own statistics is instance norm; PyTorch's instance norm leaves the
    # channels-last layout, which multiplies the time of the complete network by 1.7.
    return functional.batch_norm(x, None, None, training=True, eps=1e-5)


class _ResidualBlock(nn.Module):
    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.downsample = nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride=stride)) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _instance_norm(self.conv1(x)).relu_()
        y = _instance_norm(self.conv2(y)).relu_()
        if self.downsample is not None:
            x = _instance_norm(self.downsample(x))
        return y.add_(x).relu_()


def _stage(num_in: int, num_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_ResidualBlock(num_in, num_out, stride), _ResidualBlock(num_out, num_out, 1))


class FeatureNet(nn.Module):
    """A small residual network; the outputs of its four stages are resized to one size and combined."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.layer1 = _stage(64, 64, 1)
        self.layer2 = _stage(64, 96, 2)
        self.layer3 = _stage(96, 128, 2)
        self.layer4 = _stage(128, 128, 2)
        self.conv2 = nn.Conv2d(64 + 96 + 128 + 128, 2 * CHANNELS, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Features of F frames.

        Args:
            frames: (F, 3, H, W), values 0..255; at least MIN_SIDE_PX per side.
        Returns:
            (F, H/4, W/4, CHANNELS) float32, each pixel's vector of length 1.
        """
        size = (frames.shape[2] // STRIDE, frames.shape[3] // STRIDE)
        x = (2 * (frames / 255) - 1).to(self.conv1.weight.dtype).contiguous(memory_format=layout(frames.device))
        x = _instance_norm(self.conv1(x)).relu_()
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            stages.append(functional.interpolate(x, size, mode="bilinear", align_corners=True))
        x = torch.cat(stages, dim=1)
        del stages
        x = _instance_norm(self.conv2(x)).relu_()
        pixels = x.permute(0, 2, 3, 1)  # in memory order on a CPU; a 1x1 convolution is a linear layer per pixel
        pixels = linear(pixels, self.conv3.weight[:, :, 0, 0], self.conv3.bias).float()
        length = pixels.square().sum(dim=-1, keepdim=True).clamp_min(1e-12).sqrt()
        return pixels / length

    def pyramid(self, frames: Tensor, dtype: torch.dtype) -> Pyramid:
        """Features of frames (F, 3, H, W) at every level, each level the mean of 2x2 pixels of the previous one."""
        x = self(frames).permute(0, 3, 1, 2)
        levels = []
        for level in range(NUM_LEVELS):
            if level:
                x = functional.avg_pool2d(x, 2)
            levels.append(x.permute(0, 2, 3, 1).reshape(len(x), -1, CHANNELS).to(dtype))
        return tuple(levels)
