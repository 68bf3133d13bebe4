"""Read a dataset with the package lerobot; run as a program, because the package is not in the environment.

    python lerobot_reader.py plain|merged|converted ROOT OUT [FOLDER …]

merged: the dataset and itself, by the package's tool; converted: from v2.1 to v3.0 by the package's tool.
ROOT: the dataset; OUT: the NPZ file to write, with every value of every frame, and the statistics of the dataset;
FOLDER: where the package and what it requires are installed, if not in the environment.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def decode(path: Path, timestamps: list[float], tolerance_s: float, *_: Any) -> torch.Tensor:
    """In place of lerobot's decoder, where torchcodec is not installed: the frames nearest to the requested times."""
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    times = np.array([frame.time for frame in frames])
    nearest = [int(np.abs(times - each).argmin()) for each in timestamps]
    assert np.abs(times[nearest] - timestamps).max() < tolerance_s
    rgb = np.stack([frames[number].to_ndarray(format="rgb24") for number in nearest])
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255


def converted(root: Path, new: Path) -> Path:
    from lerobot.datasets.v30 import convert_dataset_v21_to_v30 as convert  # type: ignore[import-not-found]

    convert.convert_info(root, new, 100, 200)
    convert.convert_tasks(root, new)
    data = convert.convert_data(root, new, 100)
    convert.convert_episodes_metadata(root, new, data, convert.convert_videos(root, new, 200))
    return new


def main(form: str, root: str, out: str, *folders: str) -> None:
    sys.path += folders  # at the end: what the environment has comes first
    from lerobot.datasets import lerobot_dataset  # type: ignore[import-not-found]

    if importlib.util.find_spec("torchcodec") is None:
        lerobot_dataset.decode_video_frames = decode
    # Version 0.3 was written for version 3 of the package datasets, where a column is a list.
    stack = torch.stack
    torch.stack = lambda tensors, *args, **options: stack(list(tensors), *args, **options)  # type: ignore[assignment]
    if form == "converted":
        root = str(converted(Path(root), Path(f"{root}_converted")))
    dataset = lerobot_dataset.LeRobotDataset("local/made", root=root)
    if form == "merged":
        from lerobot.datasets.dataset_tools import merge_datasets  # type: ignore[import-not-found]

        dataset = merge_datasets([dataset] * 2, output_repo_id="local/merged", output_dir=f"{root}_merged")
    items = [dataset[number] for number in range(len(dataset))]
    batch = torch.utils.data.default_collate(items)
    found = {name: np.array(value) for name, value in batch.items()}
    for feature, statistics in dataset.meta.stats.items():
        found |= {f"stats/{feature}/{name}": np.asarray(value) for name, value in statistics.items()}
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
