"""Quality and speed of GrabCut: mean region similarity J against ground truth masks, and time per frame.

    python benchmarks/segmentation_quality.py --data FOLDER

FOLDER contains one folder per clip: `clip.mp4`, `prompt.json` and `Annotations/*.png`, one image per frame, 0
background, any other value the object. In `Annotations_2obj/`, if present, the values are object ids, and J is the mean
over objects. Frames on which object and mask are both absent count as 1.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from aot.decoding import open_source
from aot.errors import AotError
from aot.segmentation.grabcut import GrabCutSegmenter
from aot.types import BoolArray, Clip, Float64Array, Prompt

PROMPT_KINDS = ("box+points", "box", "points", "mask")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per clip")
    parser.add_argument("--clips", nargs="*", help="only these clips")
    parser.add_argument("--prompt", choices=PROMPT_KINDS, default="box+points", help="the parts of each prompt to use")
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=VALUE", help="the segmenter's arguments")
    parser.add_argument("--masks", type=Path, help="write the masks as NAME.npz into this folder")
    arguments = parser.parse_args()
    options = {name: json.loads(value) for name, value in (option.split("=", 1) for option in arguments.option)}
    segmenter = GrabCutSegmenter(**options)

    print(f"{'clip':24}{'J':>8}{'J, all but first':>18}{'J at prompt':>13}{'frames':>8}{'ms/frame':>10}{'CPU ms':>8}")
    rows = []
    for folder in sorted(arguments.data.iterdir()):
        if (folder / "prompt.json").is_file() and (not arguments.clips or folder.name in arguments.clips):
            row = measure(segmenter, folder, arguments.prompt, arguments.masks)
            print(f"{folder.name:24}{row[0]:8.3f}{row[1]:18.3f}{row[2]:13.3f}{row[3]:8.0f}{row[4]:10.1f}{row[5]:8.1f}")
            rows.append(row)
    mean = np.mean(rows, axis=0)
    print(f"{'mean':24}{mean[0]:8.3f}{mean[1]:18.3f}{mean[2]:13.3f}{mean[3]:8.0f}{mean[4]:10.1f}{mean[5]:8.1f}")


def measure(
    segmenter: GrabCutSegmenter, folder: Path, kind: str, masks_folder: Path | None
) -> tuple[float, float, float, int, float, float]:
    """J on frames 1..T-2, on 1..T-1 and on 0; number of frames; wall and CPU ms per frame, without decoding."""
    truth = true_masks(folder)
    prompts = read_prompts(folder, kind, truth)
    with open_source(Clip(clip_id=folder.name, source=folder / "clip.mp4", prompts=prompts)) as frames:
        masks = np.zeros((len(prompts), len(frames.index), frames.height, frames.width), np.bool_)
        wall, cpu = time.perf_counter(), time.process_time()
        for block in segmenter.segment(frames, prompts, on_object_error=print_error):
            for column, object_id in enumerate(block.object_id):
                masks[list(truth).index(int(object_id)), frames.rows(block.index)] = block.masks[:, column]
        cpu = time.process_time() - cpu
        wall = time.perf_counter() - wall - frames.wait_seconds
    if masks_folder:
        masks_folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(masks_folder / folder.name, masks=masks)
    similarity = np.mean([region_similarity(mask, truth[i]) for mask, i in zip(masks, truth)], axis=0)
    num_frames = masks.shape[1]
    return (
        float(similarity[1:-1].mean()),
        float(similarity[1:].mean()),
        float(similarity[0]),
        num_frames,
        1e3 * wall / num_frames,
        1e3 * cpu / num_frames,
    )


def region_similarity(masks: BoolArray, truth: BoolArray) -> Float64Array:
    """(T,) intersection over union; 1 where both are empty."""
    intersection = np.count_nonzero(masks & truth, axis=(1, 2))
    union = np.count_nonzero(masks | truth, axis=(1, 2))
    return np.where(union == 0, 1.0, intersection / np.maximum(union, 1))


def true_masks(folder: Path) -> dict[int, BoolArray]:
    """(T, H, W) for each object id."""
    several = folder / "Annotations_2obj"
    files = sorted((several if several.is_dir() else folder / "Annotations").glob("*.png"))
    values = np.stack([first_channel(np.asarray(Image.open(file))) for file in files])
    if not several.is_dir():
        return {1: values > 0}
    return {int(value): values == value for value in np.unique(values) if value}


def first_channel(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else image[..., 0]


def read_prompts(folder: Path, kind: str, truth: dict[int, BoolArray]) -> tuple[Prompt, ...]:
    content = json.loads((folder / "prompt.json").read_text())
    frame = content["frame"]
    prompts = []
    for item in content["objects"]:
        has_points = kind in ("box+points", "points")
        prompts.append(
            Prompt(
                object_id=item["id"],
                frame=frame,
                box=tuple(map(float, item["box"])) if kind in ("box+points", "box") else None,
                points=tuple((float(x), float(y)) for x, y in item["points"]) if has_points else (),
                labels=tuple(item["labels"]) if has_points else (),
                mask=truth[item["id"]][frame] if kind == "mask" else None,
            )
        )
    return tuple(prompts)


def print_error(object_id: int, error: AotError) -> None:
    print(f"object {object_id} failed: {error}")


if __name__ == "__main__":
    main()
