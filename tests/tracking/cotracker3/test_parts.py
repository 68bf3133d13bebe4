"""The network's parts compared with direct formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aot.tracking.cotracker3 import CoTracker3
from aot.tracking.cotracker3.correlation import correlate, sample_support
from aot.tracking.cotracker3.embeddings import motion_embedding, time_embedding, time_table
from aot.tracking.cotracker3.frames import grid_points, points_in_mask, resized, scale_between
from aot.tracking.cotracker3.sizes import CHANNELS, HIDDEN, PATCH, RADIUS, TOKEN_SIZE, level_sizes
from aot.tracking.onednn import Activation, batched_product, linear, packed
from tests.tracking.cotracker3.allocations import peak_allocated_bytes
from tests.tracking.cotracker3.weights import golden_weights

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1e-4
Size = tuple[int, int]
"""Height and width of one level's features."""

# In the longer side, points more than a patch beyond the end of the shorter one.
LANDSCAPE, PORTRAIT = (5, 29), (29, 5)
shapes = pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT], ids=["landscape", "portrait"])
positions = pytest.mark.parametrize("position", ["inside", "border", "outside"])


def points_of(position: str, size: Size) -> list[tuple[float, float]]:
    """Positions (x, y) in a level of a size, on its border, or outside it."""
    right, bottom = size[1] - 1.0, size[0] - 1.0
    return {
        "inside": [(right / 2, bottom / 2), (0.55 * right, 0.6 * bottom), (right - 1.999, bottom - 2.001), (2.25, 2)],
        "border": [(0, 0), (right, bottom), (0.4, bottom - 0.1), (right, 0.2)],
        "outside": [(-0.5, 4), (-30.25, 2.5), (500, -500), (right + 0.7, bottom + 0.9), (1e9, -1e9), (3, -2.5)],
    }[position]


def features(num_frames: int, size: Size, seed: int = 0) -> Tensor:
    """(F, h·w, C) of one level."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_frames, size[0] * size[1], CHANNELS, generator=generator)


def patches(level: Tensor, size: Size, xy: Tensor) -> Tensor:
    """(N, F, 7, 7, C) by grid_sample; the first index moves x."""
    image = level.view(-1, *size, CHANNELS).permute(0, 3, 1, 2)
    steps = torch.arange(-RADIUS, RADIUS + 1.0)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
    at = xy.transpose(0, 1)[:, :, None, None] + offsets  # (F, N, 7, 7, 2)
    scaled = 2 * at / torch.tensor([size[1] - 1, size[0] - 1]) - 1
    found = functional.grid_sample(image, scaled.flatten(2, 3), padding_mode="border", align_corners=True)
    return found.unflatten(3, (7, 7)).permute(2, 0, 3, 4, 1)


@shapes
@positions
def test_correlation_equals_that_of_sampled_patches(position: str, size: Size) -> None:
    level, points = features(3, size), points_of(position, size)
    estimates = torch.tensor(points)[:, None] + torch.tensor([[0.0, 0.0], [0.25, -0.5], [1.75, 0.125]])
    own = torch.tensor(points_of("inside", size)[:1] * len(points))
    (support,) = sample_support((level,), [size], 1, own)
    found = correlate(level, size, estimates, support).view(len(points), 3, PATCH, PATCH)

    expected_support = patches(level[1:2], size, own[:, None])[:, 0].flatten(1, 2)
    torch.testing.assert_close(support, expected_support, atol=ROUNDING, rtol=0)
    samples = patches(level, size, estimates.double().clamp(-100, 100).float()).flatten(2, 3)
    expected = torch.einsum("nfpc,nqc->nfpq", samples, expected_support)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@shapes
@positions
def test_support_equals_the_sampled_patch(position: str, size: Size) -> None:
    """Beyond the border of the frame it repeats the border."""
    level = features(2, size)
    for number, point in enumerate(points_of(position, size)):
        frame = number % 2
        (support,) = sample_support((level,), [size], frame, torch.tensor([point], dtype=torch.float32))
        inside = torch.tensor([[point]]).clamp(-20, 60)  # farther outside the patch does not change
        expected = patches(level[frame : frame + 1], size, inside)[0, 0].flatten(0, 1)
        torch.testing.assert_close(support[0], expected, atol=ROUNDING, rtol=0)


def test_support_positions_are_scaled_per_level() -> None:
    levels = (features(1, (9, 13)), torch.randn(1, 4 * 6, CHANNELS))
    support = sample_support(levels, [(9, 13), (4, 6)], 0, torch.tensor([[6.0, 4.0]]))
    middle = PATCH // 2
    torch.testing.assert_close(support[0][0, middle], levels[0][0, 4 * 13 + 6])
    torch.testing.assert_close(support[1][0, middle], levels[1][0, 2 * 6 + 3])


@pytest.mark.parametrize("num_frames", [1, 2, 7, 16, 23, 61])
def test_time_embedding_of_any_length(num_frames: int) -> None:
    """Linear interpolation of the table at the centre of each frame's interval."""
    table = time_table(16)
    found = time_embedding(table, num_frames)[0]
    at = np.clip((np.arange(num_frames) + 0.5) * 16 / num_frames - 0.5, 0, 15)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, 15)
    fraction = torch.tensor(at - low, dtype=torch.float32)[:, None]
    expected = (1 - fraction) * table[0, low] + fraction * table[0, high]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_time_table_is_sines_then_cosines() -> None:
    table = time_table(60)
    assert table.shape == (1, 60, TOKEN_SIZE)
    for t, i in [(0, 0), (1, 0), (59, 554), (30, 100)]:
        angle = t / 10000 ** (i / 555)
        assert table[0, t, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[0, t, 555 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_motion_embedding() -> None:
    xy = torch.tensor([[[2.0, 1.0], [6.0, 2.0], [5.0, 8.0]]])
    found = motion_embedding(xy, (16.0, 8.0))[0]
    steps = {0: (-0.25, -0.125, 0, 0), 1: (0.0625, -0.75, 0.25, 0.125), 2: (0, 0, -0.0625, 0.75)}
    for t, v in steps.items():
        angles = [component * 2**j for j in range(10) for component in v]
        expected = [*v, *map(math.sin, angles), *(math.sin(angle + math.pi / 2) for angle in angles)]
        np.testing.assert_allclose(found[t], expected, atol=1e-4)


def test_motion_of_one_frame_is_zero() -> None:
    found = motion_embedding(torch.tensor([[[2.0, 1.0]]]), (16.0, 8.0))
    np.testing.assert_allclose(found[0, 0, :44], 0)
    np.testing.assert_allclose(found[0, 0, 44:], 1, atol=1e-6)


@pytest.mark.parametrize(("num_frames", "resolution"), [(1, (32, 32)), (1, (37, 53)), (1, (64, 41)), (3, (37, 53))])
def test_features_equal_those_of_plain_layers(large: CoTracker3, num_frames: int, resolution: tuple[int, int]) -> None:
    frames = torch.rand(num_frames, 3, *resolution, generator=torch.Generator().manual_seed(1)) * 255
    with torch.inference_mode():
        pyramid = large.fnet.pyramid(frames, torch.float32)
    expected = plain_features(frames)
    for number, (level, size) in enumerate(zip(pyramid, level_sizes(resolution))):
        expected = functional.avg_pool2d(expected, 2) if number else expected
        assert expected.shape[2:] == size
        rows = expected.permute(0, 2, 3, 1).reshape(num_frames, -1, CHANNELS)
        torch.testing.assert_close(level, rows, atol=ROUNDING, rtol=0)


def plain_features(frames: Tensor) -> Tensor:
    """(F, C, H/4, W/4) computed with PyTorch's plain layers."""
    weights = golden_weights()

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        return functional.conv2d(x, weights[f"fnet.{name}.weight"], weights[f"fnet.{name}.bias"], stride, padding)

    def norm_relu(x: Tensor) -> Tensor:
        return functional.instance_norm(x, eps=1e-5).relu()

    x = norm_relu(conv(2 * (frames / 255) - 1, "conv1", 2, 3))
    stages = []
    for number in range(1, 5):
        for block, stride in ((0, 1 if number == 1 else 2), (1, 1)):
            name = f"layer{number}.{block}"
            y = norm_relu(conv(norm_relu(conv(x, f"{name}.conv1", stride)), f"{name}.conv2"))
            if stride != 1:
                x = functional.instance_norm(conv(x, f"{name}.downsample.0", stride, 0), eps=1e-5)
            x = (x + y).relu()
        size = (frames.shape[2] // 4, frames.shape[3] // 4)
        stages.append(functional.interpolate(x, size, mode="bilinear", align_corners=True))
    x = conv(norm_relu(conv(torch.cat(stages, 1), "conv2")), "conv3", padding=0)
    return x / x.square().sum(1, keepdim=True).clamp_min(1e-12).sqrt()


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_fused_layers_equal_plain_layers(approximate: str) -> None:
    x, layer = torch.randn(2, 5, 24), torch.nn.Linear(24, 7)
    with torch.inference_mode():
        plain = functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(linear(x, layer.weight, layer.bias), plain, atol=1e-5, rtol=0)
        activated = functional.gelu(plain, approximate=approximate)
        activation: Activation = "gelu" if approximate == "none" else "gelu_tanh"
        for weight in (layer.weight, packed(layer.weight)):
            found = linear(x, weight, layer.bias, activation)
            torch.testing.assert_close(found, activated, atol=1e-5, rtol=0)
        assert linear(x[:0], layer.weight, layer.bias).shape == (0, 5, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batched_product_multiplies_each_pair(dtype: torch.dtype) -> None:
    x, weights = torch.randn(3, 5, 24).to(dtype), torch.randn(3, 7, 24).to(dtype)
    with torch.inference_mode():
        found = batched_product(x, weights)
    expected = torch.einsum("bri,boi->bro", x.double(), weights.double())
    torch.testing.assert_close(found.double(), expected, atol=1e-5 if dtype is torch.float32 else 0.1, rtol=0)


def test_both_released_models_have_the_same_network() -> None:
    offline, online = golden_weights(), golden_weights(mode="online")
    differing = {key for key in offline if offline[key].shape != online[key].shape}
    assert set(offline) == set(online)
    assert differing == {"time_emb"}


def test_grid_margin_is_a_fraction_of_the_width() -> None:
    points = grid_points(3, (384, 512), frame=4)
    assert points[:, 0].tolist() == [4] * 9
    assert points[:3, 1:].tolist() == [[8, 8], [256, 8], [504, 8]]
    assert points[-1].tolist() == [4, 504, 376]
    assert grid_points(1, (384, 512)).tolist() == [[0, 256, 192]]


def test_points_in_mask_are_rounded_half_to_even() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[2, 4] = True
    points = torch.tensor([[0, 4.5, 2.5], [0, 3.5, 1.5], [0, 4.51, 2], [0, 5.5, 2], [0, 4, 2.4]])
    assert points_in_mask(points, mask, (6, 8)).tolist() == [[0, 4.5, 2.5], [0, 3.5, 1.5], [0, 4, pytest.approx(2.4)]]


def test_larger_mask_is_sampled_at_the_nearest_pixel() -> None:
    mask = np.zeros((12, 16), np.uint8)
    mask[4:6, 8:10] = 255
    assert points_in_mask(torch.tensor([[0, 4.0, 2.0], [0, 5.0, 2.0]]), mask, (6, 8)).tolist() == [[0, 4, 2]]


def test_resizing_maps_corners_to_corners() -> None:
    frame = torch.arange(5 * 7 * 3, dtype=torch.uint8).view(5, 7, 3)
    small = resized(frame, (3, 4))
    assert small[0, :, -1, -1].tolist() == frame[-1, -1].tolist()
    assert (scale_between((5, 7), (3, 4)) * [6, 4]).tolist() == pytest.approx([3, 2])
    assert scale_between((1, 1), (48, 64)).tolist() == [63, 47]


def test_attention_does_not_allocate_a_matrix_of_scores(large: CoTracker3) -> None:
    """A track of 2000 frames: the scores of one head would take 16 MB, more than all other tensors together."""
    tokens = torch.randn(1, 2000, HIDDEN)
    with torch.inference_mode():
        attention = large.updateformer.time_blocks[0].attn
        assert peak_allocated_bytes(lambda: attention(tokens, tokens)) < 16e6


@pytest.mark.parametrize(("num_points", "num_frames"), [(1, 1), (3, 2), (70, 1)])
def test_blocks_of_tokens_do_not_change_the_update(large: CoTracker3, num_points: int, num_frames: int) -> None:
    """Blocks of one track or frame, of a few, and all at once."""
    tokens = torch.randn(num_points, num_frames, HIDDEN, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = large.updateformer(tokens.clone(), 10**6)
        assert expected.shape == (num_points, num_frames, 4)
        for max_tokens in (1, 5, 67):
            found = large.updateformer(tokens.clone(), max_tokens)
            torch.testing.assert_close(found, expected, atol=ROUNDING, rtol=0)
