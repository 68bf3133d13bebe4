"""LeRobot datasets, v2.1 and v3: what a robot's cameras saw, episode by episode.

In v2.1 every episode and camera has a video of its own; in v3 a video holds many episodes, each a time range of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from aot.datasets.ground_truth import GroundTruth
from aot.errors import ConfigError, DatasetError
from aot.manifest.assign import assign_prompts
from aot.types import Clip, Prompt


class LeRobot:
    """One clip an episode and camera: `episode_000012/observation.images.top`.

    Args:
        root: the folder that holds meta and videos.
        prompts: the manifest; its frames count from each episode's own first frame.
        cameras: keys of the cameras to use, as meta/info.json names them; none given means all.
    """

    def __init__(self, root: Path, prompts: Path, cameras: Sequence[str] = ()) -> None:
        self.root = root
        self.prompts = prompts
        self._cameras = tuple(cameras)

    def clips(self) -> list[Clip]:
        info = self._info()
        episodes = list(self._episodes_v3(info) if info["codebase_version"].startswith("v3.") else self._v2(info))
        missing = sorted({clip.source for clip, _ in episodes if not clip.source.is_file()})
        if missing:
            raise DatasetError(
                f"{len(missing)} videos that {self.root / 'meta'} lists are not there, the first {missing[0]}; "
                f"download them, or name the cameras that are there with dataset.cameras=[…]"
            )
        prompted = assign_prompts([clip for clip, _ in episodes], self.prompts, dataset="lerobot", root=self.root)
        return [
            replace(clip, prompts=tuple(_shifted(prompt, first_frame) for prompt in clip.prompts))
            for clip, (_, first_frame) in zip(prompted, episodes)
        ]

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        return None

    def _info(self) -> dict[str, Any]:
        path = self.root / "meta" / "info.json"
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
            version, fps, chunks_size = str(info["codebase_version"]), float(info["fps"]), info.get("chunks_size", 1000)
            types = {str(key): feature.get("dtype") for key, feature in info["features"].items()}
            video_path = info["video_path"]
            if not (0 < fps < math.inf and isinstance(chunks_size, int) and chunks_size > 0):
                raise ValueError(f"fps {fps}, chunks_size {chunks_size}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise DatasetError(
                f"{path}: not LeRobot's ({type(exc).__name__}: {exc}); expected codebase_version, fps, features, "
                f"video_path; dataset.root is the folder that holds meta and videos"
            ) from exc
        if not version.startswith(("v2.", "v3.")):
            raise DatasetError(f"{path}: codebase_version {version!r}; expected v2.1 or v3.0: convert it with lerobot")
        videos = [key for key, dtype in types.items() if dtype == "video"]
        if not videos or not video_path:
            images = [key for key, dtype in types.items() if dtype == "image"]
            kept = f"; its cameras {', '.join(images)} are kept as images in parquet" if images else ""
            raise DatasetError(f"{path}: no feature of dtype video{kept}; expected cameras kept as videos")
        for camera in self._cameras:
            if camera not in videos:
                near = get_close_matches(camera, videos, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(videos)}"
                raise ConfigError(f"dataset.cameras: {camera!r} is not among the videos of {path}; {hint}")
        return {
            "codebase_version": version, "fps": fps, "video_path": str(video_path),
            "chunks_size": chunks_size, "cameras": self._cameras or tuple(sorted(videos)),
        }  # fmt: skip

    def _v2(self, info: dict[str, Any]) -> Iterator[tuple[Clip, int]]:
        path = self.root / "meta" / "episodes.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            numbers = [int(json.loads(line)["episode_index"]) for line in lines if line.strip()]
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
            raise DatasetError(f"{path}: cannot be read ({exc}); expected one JSON line an episode") from exc
        for number in sorted(numbers):
            for camera in info["cameras"]:
                chunk = number // info["chunks_size"]
                source = self._video(info, episode_chunk=chunk, episode_index=number, video_key=camera)
                yield Clip(clip_id=_clip_id(number, camera), source=source), 0

    def _episodes_v3(self, info: dict[str, Any]) -> Iterator[tuple[Clip, int]]:
        # A frame is shown at its number / fps; half a frame of slack keeps rounded times from losing one.
        slack_seconds = 0.5 / info["fps"]
        for episode in sorted(self._parquet_rows(info["cameras"]), key=lambda row: int(row["episode_index"])):
            number = int(episode["episode_index"])
            for camera in info["cameras"]:
                about = {name: episode[f"videos/{camera}/{name}"] for name in _V3_COLUMNS}
                places = {name: int(about[name]) for name in ("chunk_index", "file_index")}
                source = self._video(info, video_key=camera, **places)
                start, end = float(about["from_timestamp"]), float(about["to_timestamp"])
                clip = Clip(
                    clip_id=_clip_id(number, camera),
                    source=source,
                    start_seconds=start - slack_seconds,
                    end_seconds=end - slack_seconds,
                )
                yield clip, round(start * info["fps"])

    def _video(self, info: dict[str, Any], **values: str | int) -> Path:
        """The file that `video_path` names, a template such as chunk-{episode_chunk:03d}/{video_key}.mp4.

        Python's own format would do whatever a template says, and that comes from strangers.
        """

        def filled(match: re.Match[str]) -> str:
            value = values.get(match["name"])
            if value is None:
                raise DatasetError(
                    f"{self.root / 'meta' / 'info.json'}: video_path {info['video_path']!r} asks for {match[0]}; "
                    f"expected {', '.join(f'{{{name}}}' for name in values)}"
                )
            return str(value).zfill(int(match["digits"] or 0))

        return self.root / _PLACE.sub(filled, info["video_path"])

    def _parquet_rows(self, cameras: Sequence[str]) -> Iterator[dict[str, Any]]:
        try:
            import pyarrow.parquet
        except ImportError as exc:
            raise ConfigError(
                "dataset=lerobot: v3 keeps its episodes in parquet, which needs pyarrow: "
                "pip install 'auto-objects-tracker[lerobot]'"
            ) from exc
        folder = self.root / "meta" / "episodes"
        paths = sorted(folder.rglob("*.parquet"))
        if not paths:
            raise DatasetError(f"{folder}: no parquet file; expected chunk-000/file-000.parquet, as LeRobot v3 has it")
        columns = ["episode_index", *(f"videos/{camera}/{name}" for camera in cameras for name in _V3_COLUMNS)]
        for path in paths:
            try:
                file = pyarrow.parquet.ParquetFile(path)
                absent = sorted(set(columns) - set(file.schema_arrow.names))
                rows = [] if absent else file.read(columns=columns).to_pylist()
            except (OSError, pyarrow.ArrowException) as exc:
                raise DatasetError(f"{path}: cannot be read ({exc}); copy it again") from exc
            if absent:
                raise DatasetError(f"{path}: no column {', '.join(absent)}; expected the episodes of LeRobot v3")
            yield from rows


_PLACE = re.compile(r"\{(?P<name>[^{}:]*)(?::0?(?P<digits>\d{1,2})d)?\}")
_V3_COLUMNS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def _clip_id(episode: int, camera: str) -> str:
    return f"episode_{episode:06d}/{camera}"


def _shifted(prompt: Prompt, first_frame: int) -> Prompt:
    """From frames of the episode to frames of the video that holds it."""
    queries = tuple((frame + first_frame, x, y) for frame, x, y in prompt.query_points)
    return replace(prompt, frame=prompt.frame + first_frame, query_points=queries)
