"""Rendering of a scene: textures, motion and composition of its layers, and the exact visible masks.

Frames are rendered at twice their size and averaged, which gives antialiased edges, and positions to 1/64 px (OpenCV
interpolates in steps of 1/32 px).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from aot.datasets.demo.scenes import HEIGHT, WIDTH, Layer, Pose, Scene
from aot.types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array

SEED = 20240613
SUPERSAMPLING = 2
NOISE_LEVELS = 2.0
"""Standard deviation of the camera noise, in grey levels of 255."""

_Number = TypeVar("_Number", np.uint8, np.float32)


def render(scene: Scene) -> Iterator[tuple[UInt8Array, BoolArray]]:
    """Render a scene frame by frame.

    Yields:
        (H, W, 3) uint8 RGB, and (K, H, W) bool: the visible part of each layer of an object, in their order.
    """
    noise = np.random.default_rng([SEED, *scene.clip_id.encode()])
    images = [_layer_image(layer, noise) for layer in scene.layers]
    motions = [motion_of(layer, scene.num_frames) for layer in scene.layers]
    for number in range(scene.num_frames):
        placed = [_place(*image, motion[number]) for image, motion in zip(images, motions)]
        rgb = _downsample(_compose(placed))
        coverage = np.stack([_downsample(alpha) for _, alpha in placed])
        visible = _visible_fraction(coverage)
        masks = [visible[row] >= 0.5 for row, layer in enumerate(scene.layers) if layer.object_id]
        yield _add_camera_effects(rgb, number / scene.num_frames, noise), np.stack(masks)


def _place(image: UInt8Array, alpha: Float32Array, motion: Float64Array) -> tuple[UInt8Array, Float32Array]:
    """Warp the image and the coverage of one layer into the supersampled frame."""
    factor = SUPERSAMPLING
    enlarged = motion * factor
    # The centre of pixel 0 of the frame is the centre of the first `factor` fine pixels.
    enlarged[:, 2] += (factor - 1) / 2
    size = (WIDTH * factor, HEIGHT * factor)
    colour = cv2.warpAffine(image, enlarged, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    cover = cv2.warpAffine(alpha, enlarged, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return cast(UInt8Array, colour), cast(Float32Array, cover)


def _compose(placed: list[tuple[UInt8Array, Float32Array]]) -> UInt8Array:
    """Blend the layers back to front."""
    frame = placed[0][0]
    for colour, cover in placed[1:]:
        frame = cast(UInt8Array, cv2.blendLinear(colour, frame, cover, 1 - cover))
    return frame


def _visible_fraction(coverage: Float32Array) -> Float32Array:
    """Coverage (L, H, W) of each layer that is not hidden by the layers in front of it."""
    free = np.cumprod(1 - coverage[:0:-1], axis=0)[::-1]
    return np.concatenate([coverage[:-1] * free, coverage[-1:]])


def _add_camera_effects(rgb: UInt8Array, moment: float, noise: np.random.Generator) -> UInt8Array:
    """Add what a camera adds: noise, and brightness that varies over the clip (`moment` in 0..1)."""
    light = 1 + 0.06 * np.sin(2 * np.pi * moment)
    grain = noise.standard_normal(rgb.shape, dtype=np.float32) * NOISE_LEVELS
    noisy: UInt8Array = np.clip(rgb * np.float32(light) + grain, 0, 255).astype(np.uint8)
    return noisy


def _downsample(fine: NDArray[_Number]) -> NDArray[_Number]:
    return cast(NDArray[_Number], cv2.resize(fine, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))


def motion_of(layer: Layer, num_frames: int) -> Float64Array:
    """(T, 2, 3) affine matrices from the layer's own image to the frame."""
    x, y, degrees, scale, squeeze = _smooth(layer.poses, num_frames).T
    cosine, sine = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    linear = np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)
    linear[..., 0] *= squeeze[:, None]
    shift = np.stack([x, y], axis=-1) - linear @ centre_of(layer)
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def _smooth(poses: tuple[Pose, ...], num_frames: int) -> Float64Array:
    """(T, 5) x, y, degrees, scale, squeeze: cubic Hermite curves through the poses; slopes are central differences."""
    times = np.array([pose.frame for pose in poses], dtype=float)
    values = np.array([[pose.x, pose.y, pose.degrees, pose.scale, pose.squeeze] for pose in poses])
    slopes = np.gradient(values, times, axis=0)
    frames = np.arange(num_frames)
    left = np.clip(np.searchsorted(times, frames, side="right") - 1, 0, len(poses) - 2)
    span = (times[left + 1] - times[left])[:, None]
    u = (frames - times[left])[:, None] / span
    smooth: Float64Array = (
        (1 + 2 * u) * (1 - u) ** 2 * values[left]
        + u * (1 - u) ** 2 * span * slopes[left]
        + u**2 * (3 - 2 * u) * values[left + 1]
        + u**2 * (u - 1) * span * slopes[left + 1]
    )
    return smooth


def centre_of(layer: Layer) -> Float64Array:
    """(2,) centre (x, y) of the layer's own image in px."""
    width, height = layer.size
    return np.array([(width - 1) / 2, (height - 1) / 2])


def _layer_image(layer: Layer, random: np.random.Generator) -> tuple[UInt8Array, Float32Array]:
    """(h, w, 3) RGB and (h, w) coverage in 0..1 of one layer, in its own image."""
    width, height = layer.size
    texture = _texture(layer, random)
    if layer.shape == "plain":
        return texture, np.ones((height, width), np.float32)
    outline = _blob_outline(layer) if layer.shape == "blob" else _bar_outline(layer)
    return texture, _fill(outline, width, height)


def _texture(layer: Layer, random: np.random.Generator) -> UInt8Array:
    """(h, w, 3) patches of the layer's colours at three sizes, with corners that can be tracked."""
    width, height = layer.size
    colours = np.array(layer.colours, dtype=np.float32)
    coarse = colours[_patches(random, width, height, layer.grain * 4, len(colours))]
    fine = colours[_patches(random, width, height, layer.grain, len(colours))]
    shade = cv2.resize(random.uniform(0.8, 1.2, (height // 3 + 1, width // 3 + 1)), (width, height))
    mixed = (0.5 * coarse + 0.5 * fine) * shade[:, :, None]
    return cast(UInt8Array, cv2.GaussianBlur(np.clip(mixed, 0, 255).astype(np.uint8), (0, 0), 0.7))


def _patches(random: np.random.Generator, width: int, height: int, size: int, count: int) -> Int64Array:
    """(h, w) integers in [0, count), constant on patches of about `size` px with curved borders."""
    votes = random.random((height // size + 3, width // size + 3, count)).astype(np.float32)
    smooth = cv2.resize(votes, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth[:height, :width].argmax(axis=2), dtype=np.int64)


def _blob_outline(layer: Layer) -> Float64Array:
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = 0.8 + 0.13 * np.cos(layer.lobes * angle) + 0.05 * np.sin(2 * angle + 1)
    half = np.array(layer.size) / 2 - 1
    corners: Float64Array = half * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return centre_of(layer) + corners


def _bar_outline(layer: Layer) -> Float64Array:
    half = np.array(layer.size) / 2 - 2
    corners: Float64Array = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return centre_of(layer) + corners


def _fill(outline: Float64Array, width: int, height: int, factor: int = 8) -> Float32Array:
    """(h, w) fraction of each pixel that a polygon covers."""
    canvas = np.zeros((height * factor, width * factor), np.uint8)
    corners = np.round((outline + 0.5) * factor - 0.5).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 255)
    fraction = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(fraction / 255, dtype=np.float32)
