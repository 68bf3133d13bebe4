"""Read and rewrite the files in `meta` of a LeRobot dataset."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from aot.datasets.lerobot import is_own
from aot.errors import ConfigError, DatasetError
from aot.export.lerobot.features import Names
from aot.export.lerobot.statistics import Statistics, as_lists, combined
from aot.export.lerobot.tables import Columns, add_columns, integers
from aot.system.files import write_text
from aot.system.listing import list_tree
from aot.system.text_files import MalformedFile, about_file, parse_json, placed, read_json, read_text

INFO, STATS, EPISODES_STATS = Path("meta/info.json"), Path("meta/stats.json"), Path("meta/episodes_stats.jsonl")
EPISODES = Path("meta/episodes")

EpisodeStatistics = Mapping[str, Mapping[int, Statistics]]
"""Feature → episode number → statistics."""


class Info:
    """meta/info.json, whose form `LeRobot.videos` has checked.

    Args:
        root: of the dataset.
    Raises:
        DatasetError: the file cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / INFO
        try:
            self.content: dict[str, Any] = read_json(self.path)
        except MalformedFile as exc:
            raise DatasetError(f"{exc.about(self.path)}; expected metadata of LeRobot") from exc

    @property
    def is_v3(self) -> bool:
        return str(self.content["codebase_version"]).startswith("v3.")

    @property
    def fps(self) -> float:
        return float(self.content["fps"])

    @property
    def features(self) -> dict[str, Any]:
        return dict(self.content["features"])

    @property
    def chunks_size(self) -> int:
        return int(self.content.get("chunks_size", 1000))

    def cameras(self) -> list[str]:
        """The keys of all videos that aot has not added."""
        return [key for key, each in self.features.items() if each.get("dtype") == "video" and not is_own(each)]

    def size(self, camera: str) -> tuple[int, int] | None:
        """Height and width of a camera, px; None if its shape does not say."""
        shape, names = self.features[camera].get("shape"), self.features[camera].get("names")
        if not (isinstance(shape, list) and len(shape) == 3 and all(isinstance(each, int) for each in shape)):
            return None
        if isinstance(names, list) and {"height", "width"} <= set(map(str, names)):
            return shape[names.index("height")], shape[names.index("width")]
        return shape[0], shape[1]

    def own(self, names: Names) -> set[str]:
        """The features of a camera that an earlier export has added.

        Raises:
            ConfigError: a feature of that name is not from aot.
        """
        present = [name for name in names.all if name in self.features]
        foreign = [name for name in present if not is_own(self.features[name])]
        if foreign:
            raise ConfigError(
                f"{self.path}: it has a feature {foreign[0]} already, which aot has not added; remove it from the "
                f"dataset, or rename it"
            )
        return set(present)

    def write(self, root: Path, stale: Collection[str], new: Mapping[str, Any]) -> None:
        """Write the file of another folder with other features."""
        features = {name: each for name, each in self.features.items() if name not in stale} | dict(new)
        content = self.content | {"features": features}
        if "total_videos" in content and "total_episodes" in content:  # v2.1
            num_cameras = sum(each.get("dtype") == "video" for each in features.values())
            content["total_videos"] = content["total_episodes"] * num_cameras
        write_text(root / INFO, json.dumps(content, indent=4, ensure_ascii=False))


def write_stats(root: Path, part: Path, stale: Collection[str], statistics: EpisodeStatistics) -> None:
    """Write meta/stats.json, the statistics of the dataset, where it has this file."""
    if not (root / STATS).is_file():
        return
    try:
        content = read_json(root / STATS)
        kept = {name: each for name, each in content.items() if name not in stale}
    except (MalformedFile, AttributeError) as exc:
        raise DatasetError(f"{about_file(root / STATS, exc)}; expected the statistics of every feature") from exc
    for name, by_episode in statistics.items():
        kept[name] = as_lists(combined(list(by_episode.values())), with_quantiles=True)
    write_text(part / STATS, json.dumps(kept, indent=4, ensure_ascii=False))


def write_episodes_stats(root: Path, part: Path, stale: Collection[str], statistics: EpisodeStatistics) -> None:
    """Write meta/episodes_stats.jsonl of v2.1, the statistics of the episodes, where the dataset has this file."""
    path, lines = root / EPISODES_STATS, []
    if not path.is_file():
        return
    try:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                item = parse_json(line)
                index = int(item["episode_index"])
                stats = {name: each for name, each in item["stats"].items() if name not in stale}
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                raise placed(exc, number) from exc
            for name, by_episode in statistics.items():
                if index in by_episode:
                    stats[name] = as_lists(by_episode[index], with_quantiles=False)
            lines.append(json.dumps(item | {"stats": stats}))
    except MalformedFile as exc:
        raise DatasetError(f"{exc.about(path)}; expected one line of JSON with the statistics of each episode") from exc
    write_text(part / EPISODES_STATS, "".join(f"{line}\n" for line in lines))


def episode_files(root: Path) -> list[Path]:
    """The files of the episode list of v3, relative to the root; none in v2.1."""
    return _parquet_files(root, EPISODES)


def data_files(root: Path) -> list[Path]:
    """The files with one row per frame, relative to the root.

    Raises:
        DatasetError: there are none.
    """
    found = _parquet_files(root, Path("data"))
    if not found:
        raise DatasetError(f"{root / 'data'}: no parquet file; expected the frames of all episodes: download them")
    return found


def write_episode_file(
    path: Path,
    target: Path,
    *,
    stale: Collection[str],
    statistics: EpisodeStatistics,
    videos: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> None:
    """Write one file of the episode list of v3, with the places of the label videos and the statistics.

    Args:
        path, target: the file, and where to write it.
        stale: features whose columns to leave out.
        statistics: of the new features; written if the file has statistics.
        videos: label video → episode number → values of its columns.
    Raises:
        DatasetError: the file cannot be read.
        WriteError: the target cannot be written.
    """
    import pyarrow

    def is_stale(column: str) -> bool:
        kind, _, rest = column.partition("/")
        return kind in ("stats", "videos") and rest.rpartition("/")[0] in stale

    def columns(table: Any) -> Columns:
        numbers = integers(table, "episode_index", path).tolist()
        new: Columns = {}
        for video, by_episode in videos.items():
            for name, kind in _VIDEO_COLUMNS.items():
                values = [by_episode.get(number, {}).get(name) for number in numbers]
                new[f"videos/{video}/{name}"] = pyarrow.array(values, type=getattr(pyarrow, kind)())
        if any(name.startswith("stats/") and not is_stale(name) for name in table.column_names):
            for feature, stats in statistics.items():
                lists = {number: as_lists(each, with_quantiles=True) for number, each in stats.items()}
                for name in next(iter(lists.values())):
                    values = [lists[number][name] if number in lists else None for number in numbers]
                    number_type = pyarrow.int64() if name == "count" else pyarrow.float64()
                    depth = stats[next(iter(stats))][name].ndim
                    new[f"stats/{feature}/{name}"] = pyarrow.array(values, type=_nested(number_type, depth))
        return new

    add_columns(path, target, stale=is_stale, new=columns, hub_types={})


_VIDEO_COLUMNS = {
    "chunk_index": "int64", "file_index": "int64", "from_timestamp": "float64", "to_timestamp": "float64",
}  # fmt: skip


def _nested(number_type: Any, depth: int) -> Any:
    import pyarrow

    for _ in range(depth):
        number_type = pyarrow.list_(number_type)
    return number_type


def _parquet_files(root: Path, below: Path) -> list[Path]:
    folder = root / below
    files = list_tree(folder).files if folder.is_dir() else []
    return [path.relative_to(root) for path in files if path.suffix == ".parquet"]
