"""Write a dataset with the package lerobot; run as a program, because the package is not in the environment.

    python lerobot_writer.py ROOT FOLDER [FOLDER …]

ROOT: the dataset folder to create; FOLDER: where the package and what it requires are installed.
"""

from __future__ import annotations

import sys

import numpy as np

FPS = 10
CAMERA = "observation.images.top"
LENGTHS = (7, 5, 9)
"""Frames of each episode."""
HEIGHT, WIDTH, SIDE, STEP = 64, 96, 20, 6
TOP = 20


def image(episode: int, frame: int) -> np.ndarray:
    """(64, 96, 3) uint8: a red square on a grey that tells the episode, at a position that tells the frame."""
    rgb = np.full((HEIGHT, WIDTH, 3), grey(episode), dtype=np.uint8)
    rgb[TOP : TOP + SIDE, left(frame) : left(frame) + SIDE] = (255, 20, 20)
    return rgb


def grey(episode: int) -> int:
    """Background of an episode."""
    return 40 + 60 * episode


def left(frame: int) -> int:
    """The first column of the square."""
    return 4 + STEP * frame


def main(root: str, *folders: str) -> None:
    sys.path += folders  # at the end: what the environment has comes first
    from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset  # type: ignore[import-not-found]

    features = {
        CAMERA: {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["episode", "frame"]},
    }
    dataset = LeRobotDataset.create("local/made", fps=FPS, features=features, root=root)
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            row = {CAMERA: image(episode, frame), "action": np.array([episode, frame], dtype=np.float32)}
            if CODEBASE_VERSION == "v2.1":
                dataset.add_frame(row, task="pick")
            else:
                dataset.add_frame(row | {"task": "pick"})
        dataset.save_episode()
    if CODEBASE_VERSION != "v2.1":
        dataset.finalize()


if __name__ == "__main__":
    main(*sys.argv[1:])
