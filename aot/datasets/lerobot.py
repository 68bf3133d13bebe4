"""LeRobot datasets, v2.1 and v3: episodes of a robot, recorded by one or more cameras.

In v2.1 there is one video file per episode and camera; in v3 a video file contains several episodes, each a time range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aot.datasets.ground_truth import GroundTruth
from aot.errors import ConfigError, DatasetError
from aot.manifest.assign import assign_prompts
from aot.system.listing import list_tree
from aot.system.nearest import suggestion
from aot.system.os_errors import os_reason
from aot.system.text import counted
from aot.system.text_files import MalformedFile, about_file, parse_json, placed, read_json, read_text
from aot.types import Clip

METADATA = "aot"
"""Key in the `info` of the features that `aot.export` has added; its value describes them."""


@dataclass(frozen=True)
class EpisodeVideo:
    """One episode seen by one camera."""

    number: int
    """Of the episode."""
    camera: str
    """Key of the camera, as in meta/info.json."""
    clip: Clip
    """Without prompts."""
    first_frame: int
    """The frame of the video file that is the first of the episode."""
    file: tuple[int, int] | None = None
    """chunk_index and file_index of the video file in v3; None in v2.1, and in an episode list that lacks them."""


class LeRobot:
    """One clip per episode and camera: `episode_000012/observation.images.top`.

    Args:
        root: folder that contains meta and videos.
        prompts: prompt manifest; its frame 0 is the first frame of each episode.
        cameras: keys of the cameras to use, as in meta/info.json; empty: all cameras.
    """

    def __init__(self, root: Path, prompts: Path, cameras: Sequence[str] = ()) -> None:
        self.root = root
        self.prompts = prompts
        self._cameras = tuple(cameras)
        self.unusable: Mapping[str, str] = {}

    def clips(self) -> list[Clip]:
        episodes = self.videos()
        if episodes and len(self.unusable) == len(episodes):
            raise DatasetError(next(iter(self.unusable.values())))
        usable = [episode.clip for episode in episodes if episode.clip.clip_id not in self.unusable]
        missing = sorted({clip.source for clip in usable if not clip.source.is_file()})
        if missing:
            raise DatasetError(
                f"{self.root / 'meta'} lists {counted(len(missing), 'missing video')}, starting with {missing[0]}; "
                f"download the videos, or choose the cameras that are present with dataset.cameras=[…]"
            )
        clips = [episode.clip for episode in episodes]
        prompted = assign_prompts(clips, self.prompts, dataset="lerobot", root=self.root)
        return [
            replace(
                clip,
                prompts=()
                if clip.clip_id in self.unusable
                else tuple(prompt.shifted(episode.first_frame) for prompt in clip.prompts),
            )
            for clip, episode in zip(prompted, episodes)
        ]

    def videos(self) -> list[EpisodeVideo]:
        """The episodes of all chosen cameras, ordered by episode; `unusable` names those without a time range.

        Raises:
            DatasetError: the metadata cannot be read; missing videos are not noticed.
            ConfigError: a chosen camera does not exist, or pyarrow is not installed.
        """
        info = self._info()
        read_episodes = self._episodes_v3 if info["codebase_version"].startswith("v3.") else self._episodes_v2
        return list(read_episodes(info))

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        return None

    def _info(self) -> dict[str, Any]:
        """Read meta/info.json: version, frame rate, video files and the chosen cameras."""
        path = self.root / "meta" / "info.json"
        try:
            info = read_json(path)
            version, fps, chunks_size = str(info["codebase_version"]), float(info["fps"]), info.get("chunks_size", 1000)
            types = {str(key): feature.get("dtype") for key, feature in info["features"].items() if not is_own(feature)}
            video_path = info["video_path"]
            if not (0 < fps < math.inf and isinstance(chunks_size, int) and chunks_size > 0):
                raise MalformedFile(f"fps is {fps} and chunks_size is {chunks_size}, expected numbers above 0")
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise DatasetError(
                f"{about_file(path, exc)}; expected metadata of LeRobot with codebase_version, fps, features and "
                f"video_path: set dataset.root to the folder that contains meta and videos"
            ) from exc
        if not version.startswith(("v2.", "v3.")):
            raise DatasetError(f"{path}: codebase_version {version!r}; expected v2.1 or v3.0: convert it with lerobot")
        return {
            "codebase_version": version, "fps": fps, "video_path": str(video_path),
            "chunks_size": chunks_size, "cameras": self._choose_cameras(types, video_path, path),
        }  # fmt: skip

    def _choose_cameras(self, types: Mapping[str, Any], video_path: Any, path: Path) -> tuple[str, ...]:
        """Keys of the chosen cameras, checked against the features in meta/info.json.

        Args:
            types: feature → dtype.
            video_path: template of the video files; None in datasets without videos.
            path: of meta/info.json, for the messages.
        Raises:
            DatasetError: the dataset has no videos.
            ConfigError: a chosen camera does not exist.
        """
        videos = [key for key, dtype in types.items() if dtype == "video"]
        if not videos or not video_path:
            images = [key for key, dtype in types.items() if dtype == "image"]
            stored = f" (the cameras {', '.join(images)} are stored as images in parquet)" if images else ""
            raise DatasetError(f"{path}: no feature of dtype video{stored}; expected cameras stored as videos")
        for camera in self._cameras:
            if camera not in videos:
                raise ConfigError(
                    f"dataset.cameras: {camera!r} is not a camera in {path}; {suggestion(camera, videos)}"
                )
        return self._cameras or tuple(sorted(videos))

    def _episodes_v2(self, info: dict[str, Any]) -> Iterator[EpisodeVideo]:
        path = self.root / "meta" / "episodes.jsonl"
        for number, length in sorted(_episode_numbers(path).items()):
            for camera in info["cameras"]:
                chunk = number // info["chunks_size"]
                source = self._video(info, episode_chunk=chunk, episode_index=number, video_key=camera)
                frames = None if length is None else (0, length)
                clip = Clip(clip_id=_clip_id(number, camera), source=source, expected_frames=frames)
                yield EpisodeVideo(number, camera, clip, first_frame=0)

    def _episodes_v3(self, info: dict[str, Any]) -> Iterator[EpisodeVideo]:
        # Frame i is shown at i / fps; with half a frame of tolerance, rounded times do not lose a frame.
        tolerance_seconds = 0.5 / info["fps"]
        unusable = {}
        for episode in sorted(self._parquet_rows(info["cameras"]), key=lambda row: int(row["episode_index"])):
            number = int(episode["episode_index"])
            for camera in info["cameras"]:
                values = {name: episode[f"videos/{camera}/{name}"] for name in _V3_COLUMNS}
                if wrong := [name for name, value in values.items() if not _is_number(value)]:
                    clip_id = _clip_id(number, camera)
                    unusable[clip_id] = (
                        f"clip {clip_id!r}: videos/{camera}/{wrong[0]} is {values[wrong[0]]!r} in "
                        f"{self.root / 'meta' / 'episodes'}; expected a number: complete the episode list"
                    )
                    frames = (0, _length(episode))
                    clip = Clip(clip_id=clip_id, source=self.root, expected_frames=frames)
                    yield EpisodeVideo(number, camera, clip, first_frame=0)
                    continue
                file = {name: int(values[name]) for name in ("chunk_index", "file_index")}
                source = self._video(info, video_key=camera, **file)
                start, end = float(values["from_timestamp"]), float(values["to_timestamp"])
                first_frame = round(start * info["fps"])
                clip = Clip(
                    clip_id=_clip_id(number, camera),
                    source=source,
                    start_seconds=start - tolerance_seconds,
                    end_seconds=end - tolerance_seconds,
                    expected_frames=(first_frame, _length(episode)),
                )
                place = (file["chunk_index"], file["file_index"])
                yield EpisodeVideo(number, camera, clip, first_frame, place)
        self.unusable = unusable

    def _video(self, info: dict[str, Any], **values: str | int) -> Path:
        return self.root / video_file(info["video_path"], self.root / "meta" / "info.json", **values)

    def _parquet_rows(self, cameras: Sequence[str]) -> Iterator[dict[str, Any]]:
        try:
            import pyarrow.parquet
        except ImportError as exc:
            raise ConfigError(
                "dataset=lerobot: the episodes of v3 are listed in parquet files, which need pyarrow: "
                "pip install 'auto-objects-tracker[lerobot]'"
            ) from exc
        folder = self.root / "meta" / "episodes"
        files = list_tree(folder).files if folder.is_dir() else []
        paths = [file for file in files if file.suffix == ".parquet"]
        if not paths:
            raise DatasetError(f"{folder}: no parquet file; expected chunk-000/file-000.parquet of LeRobot v3")
        columns = ["episode_index", *(f"videos/{camera}/{name}" for camera in cameras for name in _V3_COLUMNS)]
        for path in paths:
            try:
                file = pyarrow.parquet.ParquetFile(path)
                absent = sorted(set(columns) - set(file.schema_arrow.names))
                optional = ["length"] if "length" in file.schema_arrow.names else []
                rows = [] if absent else file.read(columns=[*columns, *optional]).to_pylist()
            except (OSError, pyarrow.ArrowException) as exc:
                reason = os_reason(exc, otherwise="it is damaged, cut off, or not a parquet file")
                raise DatasetError(f"{path} cannot be read: {reason}; copy it again") from exc
            if absent:
                raise DatasetError(f"{path}: no column {', '.join(absent)}; expected an episode list of LeRobot v3")
            for row in rows:
                if not _is_number(row["episode_index"]):
                    raise DatasetError(
                        f"{path}: episode_index is {row['episode_index']!r}; expected a number for every episode"
                    )
            yield from rows


def video_file(template: str, info_path: Path, **values: str | int) -> Path:
    """The path of a video below the dataset's root, such as chunk-000/observation.images.top/episode_000001.mp4.

    `str.format` is not used: the template is untrusted input, and a format string can read attributes of values.

    Args:
        template: `video_path` of meta/info.json, such as chunk-{episode_chunk:03d}/{video_key}.mp4.
        info_path: of meta/info.json, for the message.
        values: of the placeholders.
    Raises:
        DatasetError: the template contains another placeholder.
    """

    def filled(match: re.Match[str]) -> str:
        value = values.get(match["name"])
        if value is None:
            expected = ", ".join(f"{{{name}}}" for name in values)
            raise DatasetError(f"{info_path}: video_path {template!r} contains {match[0]}; expected {expected}")
        return str(value).zfill(int(match["digits"] or 0))

    return Path(_PLACEHOLDER.sub(filled, template))


def is_own(feature: Mapping[str, Any]) -> bool:
    """Whether an entry of `features` in meta/info.json describes an export of aot; label videos are no cameras."""
    info = feature.get("info")
    return isinstance(info, dict) and METADATA in info


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _length(episode: Mapping[str, Any]) -> int | None:
    """Number of frames of an episode; None if the list does not contain it."""
    length = episode.get("length")
    return int(length) if length is not None and _is_number(length) else None


def _episode_numbers(path: Path) -> dict[int, int | None]:
    """Number → length of the episodes in a list with one line of JSON per episode; None: unknown length."""
    numbers: dict[int, int | None] = {}
    expected = 'expected one line of JSON per episode, such as {"episode_index": 0}'
    try:
        lines = read_text(path).splitlines()
    except MalformedFile as exc:
        raise DatasetError(f"{exc.about(path)}; {expected}") from exc
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                episode = parse_json(line)
                numbers[int(episode["episode_index"])] = _length(episode)
        except (ValueError, KeyError, TypeError, OverflowError) as exc:
            raise DatasetError(f"{about_file(path, placed(exc, number))}; {expected}") from exc
    if not numbers:
        raise DatasetError(f"{path}: the file is empty; {expected}")
    return numbers


_PLACEHOLDER = re.compile(r"\{(?P<name>[^{}:]*)(?::0?(?P<digits>\d{1,2})d)?\}")
_V3_COLUMNS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def _clip_id(episode: int, camera: str) -> str:
    return f"episode_{episode:06d}/{camera}"
