"""Small complete datasets in both layouts of LeRobot, with frames, statistics and tasks, written with pyarrow only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from tests.synthetic import moving_square, write_video

FPS = 30
TOP, WRIST = "observation.images.top", "observation.images.wrist"
LENGTHS = (7, 5, 9)
HEIGHT, WIDTH = 64, 96
MANIFEST = "clips: {'*': {objects: [{id: 1, name: square, frame: 0, box: [8, 20, 28, 40]}]}}\n"


def make(root: Path, version: str, cameras: tuple[str, ...] = (TOP,), lengths: tuple[int, ...] = LENGTHS) -> Path:
    """Write a dataset.

    Args:
        root: its folder.
        version: v2.1 or v3.0; in v3.0, the first two episodes share a video file and a data file.
        cameras: their keys.
        lengths: frames of each episode.
    """
    is_v3 = version == "v3.0"
    write_info(root, version, cameras, lengths)
    (root / "prompts.yaml").write_text(MANIFEST)
    (root / "README.md").write_text("A dataset.\n")
    rows = [frames_of(number, lengths) for number in range(len(lengths))]
    if is_v3:
        write_v3(root, cameras, lengths, rows)
    else:
        write_v2(root, cameras, lengths, rows)
    return root


def write_info(root: Path, version: str, cameras: tuple[str, ...], lengths: tuple[int, ...]) -> None:
    is_v3 = version == "v3.0"
    camera = {"dtype": "video", "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
    scalar = {"shape": [1], "names": None}
    features = {
        **dict.fromkeys(cameras, camera),
        "action": {"dtype": "float32", "shape": [2], "names": ["episode", "frame"]},
        "timestamp": {"dtype": "float32", **scalar},
        **{name: {"dtype": "int64", **scalar} for name in ("frame_index", "episode_index", "index", "task_index")},
    }
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    } if is_v3 else {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }  # fmt: skip
    info = {
        "codebase_version": version, "robot_type": "none", "total_episodes": len(lengths), "total_frames": sum(lengths),
        "total_tasks": 1, "chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"}, **paths, "features": features,
    }  # fmt: skip
    if not is_v3:
        info |= {"total_videos": len(lengths) * len(cameras), "total_chunks": 1}
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info, indent=4))


def frames_of(number: int, lengths: tuple[int, ...]) -> dict[str, list[Any]]:
    length = lengths[number]
    return {
        "action": [[float(number), float(frame)] for frame in range(length)],
        "timestamp": [frame / FPS for frame in range(length)],
        "frame_index": list(range(length)),
        "episode_index": [number] * length,
        "index": list(range(sum(lengths[:number]), sum(lengths[: number + 1]))),
        "task_index": [0] * length,
    }


def write_frames(path: Path, rows: list[dict[str, list[Any]]]) -> None:
    """A data file as the package `datasets` writes it: with its types in the metadata."""
    columns = {name: [value for each in rows for value in each[name]] for name in rows[0]}
    types = {"action": pyarrow.list_(pyarrow.float32(), 2), "timestamp": pyarrow.float32()}
    arrays = {name: pyarrow.array(values, type=types.get(name, pyarrow.int64())) for name, values in columns.items()}
    hub: dict[str, Any] = {name: {"dtype": "int64", "_type": "Value"} for name in columns}
    hub["action"] = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 2, "_type": "Sequence"}
    hub["timestamp"] = {"dtype": "float32", "_type": "Value"}
    table = pyarrow.table(arrays).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": hub}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, compression="snappy")


def statistics_of(rows: dict[str, list[Any]], *, cameras: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in rows.items():
        array = np.array(values, dtype=np.float64).reshape(len(values), -1)
        found[name] = {
            "min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist(), "mean": array.mean(axis=0).tolist(),
            "std": array.std(axis=0).tolist(), "count": [len(array)],
        }  # fmt: skip
    image = {name: [[[0.5]]] * 3 for name in ("min", "max", "mean", "std")} | {"count": [len(rows["index"])]}
    return found | dict.fromkeys(cameras, image)


def write_v2(root: Path, cameras: tuple[str, ...], lengths: tuple[int, ...], rows: list[dict[str, Any]]) -> None:
    episodes = [{"episode_index": n, "tasks": ["pick"], "length": length} for n, length in enumerate(lengths)]
    stats = [{"episode_index": n, "stats": statistics_of(each, cameras=cameras)} for n, each in enumerate(rows)]
    tasks = [{"task_index": 0, "task": "pick"}]
    for name, lines in (("episodes", episodes), ("episodes_stats", stats), ("tasks", tasks)):
        (root / "meta" / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for number, each in enumerate(rows):
        write_frames(root / "data" / "chunk-000" / f"episode_{number:06d}.parquet", [each])
        for camera in cameras:
            path = root / "videos" / "chunk-000" / camera / f"episode_{number:06d}.mp4"
            write_video(path, moving_square(lengths[number], seed=number), fps=FPS)


def write_v3(root: Path, cameras: tuple[str, ...], lengths: tuple[int, ...], rows: list[dict[str, Any]]) -> None:
    files = [[0, 1], list(range(2, len(lengths)))]
    columns: dict[str, Any] = {
        "episode_index": list(range(len(lengths))), "tasks": [["pick"]] * len(lengths), "length": list(lengths),
        "dataset_from_index": [each["index"][0] for each in rows],
        "dataset_to_index": [each["index"][-1] + 1 for each in rows],
        "meta/episodes/chunk_index": [0] * len(lengths), "meta/episodes/file_index": [0] * len(lengths),
    }  # fmt: skip
    place = {number: (file, sum(lengths[n] for n in numbers if n < number))
             for file, numbers in enumerate(files) for number in numbers}  # fmt: skip
    for prefix in ("data", *(f"videos/{camera}" for camera in cameras)):
        columns[f"{prefix}/chunk_index"] = [0] * len(lengths)
        columns[f"{prefix}/file_index"] = [place[number][0] for number in range(len(lengths))]
    for camera in cameras:
        columns[f"videos/{camera}/from_timestamp"] = [place[n][1] / FPS for n in range(len(lengths))]
        columns[f"videos/{camera}/to_timestamp"] = [(place[n][1] + lengths[n]) / FPS for n in range(len(lengths))]
    stats = [statistics_of(each, cameras=cameras) for each in rows]
    for feature, names in stats[0].items():
        for name in names:
            columns[f"stats/{feature}/{name}"] = [each[feature][name] for each in stats]
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    together = {name: [value for each in rows for value in each[name]] for name in rows[0]}
    (root / "meta" / "stats.json").write_text(json.dumps(statistics_of(together, cameras=cameras)))
    write_tasks(root / "meta" / "tasks.parquet")
    for file, numbers in enumerate(files):
        write_frames(root / "data" / "chunk-000" / f"file-{file:03d}.parquet", [rows[number] for number in numbers])
        shown = np.concatenate([moving_square(lengths[number], seed=number) for number in numbers])
        for camera in cameras:
            write_video(root / "videos" / camera / "chunk-000" / f"file-{file:03d}.mp4", shown, fps=FPS)


def write_tasks(path: Path) -> None:
    """A table whose index is the task, as pandas writes it."""
    index = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
         "metadata": None},
        {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object",
         "metadata": None},
    ]}  # fmt: skip
    table = pyarrow.table({"task_index": [0], "__index_level_0__": ["pick"]})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(index)}), path)
