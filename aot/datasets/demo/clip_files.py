"""Files of one demo clip: the video, its ground truth and its entry in the prompt manifest."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from aot.datasets.demo.rendering import centre_of, motion_of, render
from aot.datasets.demo.scenes import FPS, HEIGHT, WIDTH, Layer, Scene, ScenePrompt
from aot.types import BoolArray, Float64Array

# These options give the same bytes on every run: one thread, and no macroblock tree, whose vector code is not
# repeatable on every processor (3 of 4 encodings differed on one).
ENCODER_OPTIONS = {"crf": "12", "preset": "fast", "threads": "1", "x264-params": "mbtree=0"}

_BOX_MARGIN = 2


def write_video(scene: Scene, path: Path) -> BoolArray:
    """Render and encode a clip; returns the visible masks of the layers of its objects, (T, K, H, W) bool."""
    masks = []
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, (rgb, visible) in enumerate(render(scene)):
            masks.append(visible)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.stack(masks)


def write_truth(scene: Scene, masks: BoolArray, path: Path) -> None:
    """Write the masks (T, K, H, W) and the motion of a clip's objects, as `SceneTruth` reads them."""
    objects = [layer for layer in scene.layers if layer.object_id]
    np.savez_compressed(
        path,
        masks_packed=np.packbits(masks),
        masks_shape=np.array(masks.shape, dtype=np.int64),
        object_id=np.array([layer.object_id for layer in objects], dtype=np.int32),
        motion=np.stack([motion_of(layer, scene.num_frames) for layer in objects], axis=1),
    )


def manifest_entry(scene: Scene, masks: BoolArray, folder: Path) -> str:
    """YAML entry of one clip in the manifest; masks that serve as prompts are written below `folder`/masks."""
    lines = [f"  {scene.clip_id}:  # {scene.comment}\n", "    objects:\n"]
    objects = [layer for layer in scene.layers if layer.object_id]
    ids = [layer.object_id for layer in objects]
    for prompt in scene.prompts:
        row = ids.index(prompt.object_id)
        mask = masks[prompt.frame, np.equal(ids, prompt.object_id)].any(axis=0)
        lines.append(f"      - id: {prompt.object_id}\n        name: {prompt.name}\n        frame: {prompt.frame}\n")
        if prompt.box:
            lines.append(f"        box: {_loose_box(mask)}\n")
        if prompt.points:
            motion = motion_of(objects[row], scene.num_frames)[prompt.frame]
            lines.append(f"        points: {_frame_points(prompt, objects[row], motion)}\n")
            labels = [label for _, _, label in prompt.points]
            about = "  # 1: on the object, 0: on the background" if 0 in labels else ""
            lines.append(f"        labels: {labels}{about}\n")
        if prompt.mask:
            name = f"masks/{scene.clip_id}_{prompt.object_id}.png"
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
            lines.append(f"        mask: {name}\n")
    return "".join(lines)


def _loose_box(mask: BoolArray) -> list[int]:
    """[x0, y0, x1, y1] px of a mask with a small margin, as a person would draw it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    low = np.maximum([columns[0] - _BOX_MARGIN, rows[0] - _BOX_MARGIN], 0)
    high = np.minimum([columns[-1] + _BOX_MARGIN, rows[-1] + _BOX_MARGIN], [WIDTH - 1, HEIGHT - 1])
    return [int(value) for value in (*low, *high)]


def _frame_points(prompt: ScenePrompt, layer: Layer, motion: Float64Array) -> list[list[int]]:
    """[[x, y], …] px: the prompt's points in the frame."""
    half = np.array(layer.size) / 2
    own = centre_of(layer) + half * np.array([point[:2] for point in prompt.points])
    return [[round(x), round(y)] for x, y in (own @ motion[:, :2].T + motion[:, 2]).tolist()]
