"""Add the tracks and masks of a run to the LeRobot dataset that it has processed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from aot.datasets.lerobot import EpisodeVideo, LeRobot, video_file
from aot.errors import AotError, ConfigError, DatasetError, ExportError
from aot.export.base import ExportedClip
from aot.export.lerobot.episodes import Episode, EpisodeTracks, Facts, camera_metadata, check_clip
from aot.export.lerobot.features import (
    UNLABELLED,
    MaskForm,
    Names,
    hub_type,
    mask_features,
    names_of,
    track_features,
)
from aot.export.lerobot.folder import dataset_state, rebuilt_dataset, remove_leftovers
from aot.export.lerobot.labels import MAX_OBJECT_ID, labels_of, npz_path, npz_paths, write_npz, write_video
from aot.export.lerobot.metadata import (
    EPISODES_STATS,
    INFO,
    STATS,
    Info,
    data_files,
    episode_files,
    write_episode_file,
    write_episodes_stats,
    write_stats,
)
from aot.export.lerobot.statistics import Statistics, complete, of_labels, of_rows, of_tracks
from aot.export.lerobot.tables import add_columns, check_rows, frame_columns, require_pyarrow
from aot.export.options import ExportOptions
from aot.system.nearest import suggestion
from aot.system.text import counted, first_names
from aot.types import Int64Array, UInt8Array

FORMAT = "lerobot"
_TARGET = "aot.datasets.lerobot.LeRobot"
_MAX_NAMED = 10


@dataclass(frozen=True)
class Outcome:
    """What an export has written."""

    folder: Path
    """The dataset with the new features."""
    summary: str
    errors: list[str]
    """One message per clip that was not exported."""


@dataclass
class _Camera:
    """What is added for one camera."""

    key: str
    names: Names
    facts: list[Facts]
    episodes: dict[int, Episode]
    """Number → episode; all episodes of the dataset."""

    @property
    def size(self) -> tuple[int, int]:
        return self.facts[0].size

    @property
    def with_result(self) -> int:
        return sum(episode.clip is not None for episode in self.episodes.values())


def write_back(run: Mapping[str, Any], clips: Sequence[ExportedClip], options: ExportOptions, out: Path) -> Outcome:
    """Write a copy of the dataset with the features of a run, or replace it.

    Args:
        run: the content of run.json.
        clips: finished clips of the run.
        options: `dataset`, `in_place`, `masks`, `points`.
        out: the folder of the copy; not used with `in_place`.
    Raises:
        ConfigError: the run has processed another kind of dataset, or an option does not fit.
        DatasetError: the dataset is not complete.
        ExportError: no clip belongs to the dataset.
        WriteError: the folder cannot be written.
    """
    require_pyarrow()
    root = (options.dataset or _dataset_of(run)).resolve()
    target = root if options.in_place else out.absolute()
    remove_leftovers(target)
    if not (root / INFO).is_file():
        hint = "" if options.dataset else ", as the run has read it: if it has moved, give its folder with --dataset"
        raise ConfigError(f"{root}: no {INFO}; expected the folder of a LeRobot dataset{hint}")
    before = dataset_state(root)
    videos = LeRobot(root, root / "prompts.yaml").videos()
    info = Info(root)
    found, errors = _checked(clips, {video.clip.clip_id: video for video in videos}, info, options)
    if not found:
        more = [f"… and {len(errors) - _MAX_NAMED} more"] if len(errors) > _MAX_NAMED else []
        raise ExportError("\n".join([*errors[:_MAX_NAMED], *more, "Nothing was written."]))
    lengths = check_rows(
        [root / path for path in data_files(root)],
        {video.number: (video.clip.expected_frames or (0, None))[1] for video in videos},
    )
    cameras = _cameras(videos, found, lengths, names_of(info.cameras()))
    if not options.in_place:
        _check_target(root, target, info, cameras)
    num_points = options.points or max(facts.num_points for _, facts in found.values())
    job = _Job(root, info, cameras, num_points, _mask_form(options, cameras), run["choices"])
    with rebuilt_dataset(root, target, job.rewritten(), before) as part:
        job.write(part)
    return Outcome(target, job.summary(target), errors)


def _dataset_of(run: Mapping[str, Any]) -> Path:
    """The root of the dataset that a run has processed."""
    config = run.get("config", {}).get("dataset", {})
    if config.get("_target_") != _TARGET:
        raise ConfigError(
            f"--format lerobot: the run has processed dataset={run.get('choices', {}).get('dataset')}; expected a run "
            f"with dataset=lerobot, whose clips are the episodes of a LeRobot dataset"
        )
    return Path(config["root"])


def _checked(
    clips: Sequence[ExportedClip], videos: Mapping[str, EpisodeVideo], info: Info, options: ExportOptions
) -> tuple[dict[str, tuple[ExportedClip, Facts]], list[str]]:
    """The clips that belong to the dataset, and a message for each of the others."""
    found: dict[str, tuple[ExportedClip, Facts]] = {}
    errors = []
    sizes: dict[str, tuple[int, int]] = {}
    for clip in clips:
        try:
            video = videos.get(clip.clip_id)
            if video is None:
                raise ExportError(_no_such_episode(clip.clip_id, videos, info))
            facts = check_clip(clip, video, info.size(video.camera) or sizes.get(video.camera))
            max_object_id = max(facts.object_names, default=0)
            if options.masks in (None, "video") and max_object_id > MAX_OBJECT_ID:
                raise ExportError(
                    f"{clip.clip_id}: object id {max_object_id} does not fit into a label video; expected at "
                    f"most {MAX_OBJECT_ID}: use --masks npz or --masks none"
                )
        except AotError as error:
            errors.append(str(error))
        else:
            sizes.setdefault(video.camera, facts.size)
            found[clip.clip_id] = clip, facts
    return found, errors


def _no_such_episode(clip_id: str, videos: Mapping[str, EpisodeVideo], info: Info) -> str:
    _, _, camera = clip_id.partition("/")
    cameras = info.cameras()
    if camera not in cameras:
        return f"{clip_id}: the dataset has no camera {camera!r}; {suggestion(camera, cameras)}"
    numbers = [video.number for video in videos.values()]
    return f"{clip_id}: the dataset has no such episode; it has episodes {min(numbers)} to {max(numbers)}"


def _cameras(
    videos: Iterable[EpisodeVideo],
    found: Mapping[str, tuple[ExportedClip, Facts]],
    lengths: Mapping[int, int],
    names: Mapping[str, Names],
) -> list[_Camera]:
    cameras: dict[str, _Camera] = {}
    for video in videos:
        camera = cameras.setdefault(video.camera, _Camera(video.camera, names[video.camera], [], {}))
        clip, facts = found.get(video.clip.clip_id, (None, None))
        camera.episodes[video.number] = Episode(video, lengths[video.number], clip)
        camera.facts += [] if facts is None else [facts]
    return [camera for camera in cameras.values() if camera.facts]


def _check_target(root: Path, target: Path, info: Info, cameras: Sequence[_Camera]) -> None:
    """Refuse a folder for the copy that holds something that would be lost."""
    place = target.resolve()
    if place == root or root in place.parents or place in root.parents:
        raise ConfigError(
            f"--out {target}: it is the dataset itself, or a folder in or above it; choose another folder, or use "
            f"--in-place to replace {root}"
        )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    exported = _exported_cameras(target)
    if not exported:
        raise ConfigError(f"--out {target}: the folder is not empty, and is not an earlier export; choose another one")
    lost = exported - _exported_cameras(root) - {camera.key for camera in cameras}
    if lost:
        raise ConfigError(
            f"--out {target}: an earlier export has written tracks of {first_names(sorted(lost))} there, which would "
            f"be lost; choose another folder, or add to it with --dataset {target} --in-place"
        )


def _exported_cameras(root: Path) -> set[str]:
    """The cameras for which a dataset has features that aot has added; none if it is not a dataset."""
    if not (root / INFO).is_file():
        return set()
    info = Info(root)
    names = names_of(info.cameras())
    return {camera for camera in names if info.own(names[camera])}


def _mask_form(options: ExportOptions, cameras: Sequence[_Camera]) -> MaskForm:
    """The form of the masks; none where no clip has masks."""
    has_masks = any(facts.num_masks for camera in cameras for facts in camera.facts)
    if options.masks in ("video", "npz") and not has_masks:
        raise ExportError(
            f"--masks {options.masks}: no clip has masks; use a segmenter (segmenter=sam2), or --masks none"
        )
    return (options.masks or "video") if has_masks else "none"


class _Job:
    """Writes the changed files of one dataset.

    Args:
        root: of the dataset.
        info: of the dataset.
        cameras: that have results.
        num_points: of every row; 0: without tracks.
        masks: their form.
        choices: the options of the run, by group.
    """

    def __init__(
        self,
        root: Path,
        info: Info,
        cameras: Sequence[_Camera],
        num_points: int,
        masks: MaskForm,
        choices: Mapping[str, Any],
    ) -> None:
        self._root = root
        self._info = info
        self._cameras = cameras
        self._num_points = num_points
        self._masks = masks
        self._choices = choices
        self._stale: set[str] = set().union(*(info.own(camera.names) for camera in cameras))
        self._data_files, self._episode_files = data_files(root), episode_files(root) if info.is_v3 else []

    def rewritten(self) -> set[Path]:
        """The files of the dataset, relative to its root, that are written again or are left out."""
        labels = {
            path.relative_to(self._root)
            for path in (self._root / "videos").rglob("*")
            if not {camera.names.masks for camera in self._cameras}.isdisjoint(path.parts)
        }
        npz = {
            path.relative_to(self._root)
            for camera in self._cameras
            if camera.names.mask_path in self._stale
            for path in (self._root / _npz_folder(camera)).glob("*.npz")
        }
        return {INFO, STATS, EPISODES_STATS, *self._data_files, *self._episode_files, *labels, *npz}

    def summary(self, target: Path) -> str:
        points = f"tracks of {counted(self._num_points, 'point')}" if self._num_points else "no tracks"
        masks = {"video": "masks as label videos", "npz": "masks as NPZ files", "none": "no masks"}[self._masks]
        num_episodes = len(self._cameras[0].episodes)
        cameras = ", ".join(
            f"{camera.key} ({camera.with_result} of {counted(num_episodes, 'episode')})" for camera in self._cameras
        )
        return f"{target}: {points}, {masks}: {cameras}"

    def write(self, part: Path) -> None:
        """Write the changed files into the folder `part`, which has all others."""
        statistics: dict[str, dict[int, Statistics]] = {}
        features: dict[str, Any] = {}
        videos: dict[str, dict[int, dict[str, Any]]] = {}
        for camera in self._cameras:
            metadata = camera_metadata(camera.key, camera.facts, self._choices)
            if self._num_points:
                features |= track_features(camera.names, self._num_points, metadata)
                statistics |= self._track_statistics(camera)
            if self._masks != "none":
                features |= mask_features(camera.names, self._masks, camera.size, self._info.fps, metadata)
            if self._masks == "video":
                places, of_video = self._write_label_videos(part, camera)
                videos[camera.names.masks], statistics[camera.names.masks] = places, of_video
            elif self._masks == "npz":
                for episode in camera.episodes.values():
                    write_npz(part / npz_path(episode, _npz_folder(camera)), episode)
        columns = {name: each for name, each in features.items() if each["dtype"] != "video"}
        self._write_frames(part, {name: hub_type(each) for name, each in columns.items()})
        for path in self._episode_files:
            write_episode_file(self._root / path, part / path, stale=self._stale, statistics=statistics, videos=videos)
        self._remove_empty_folders(part)
        write_stats(self._root, part, self._stale, statistics)
        write_episodes_stats(self._root, part, self._stale, statistics)
        self._info.write(part, self._stale, features)

    def _remove_empty_folders(self, part: Path) -> None:
        """Remove the folders whose label videos or NPZ files of an earlier export are left out."""
        for camera in self._cameras:
            for folder in [*(part / "videos").rglob(camera.names.masks), part / _npz_folder(camera)]:
                for below in [*sorted(folder.rglob("*"), reverse=True), folder]:
                    if below.is_dir() and not any(below.iterdir()):
                        below.rmdir()

    def _write_frames(self, part: Path, hub_types: Mapping[str, Any]) -> None:
        tracks: list[tuple[Names, Callable[[int], EpisodeTracks]]] = []
        mask_paths: dict[str, Callable[[int], list[str]]] = {}
        for camera in self._cameras:
            if self._num_points:
                tracks.append((camera.names, _cached_tracks(camera, self._num_points)))
            if self._masks == "npz":
                mask_paths[camera.names.mask_path] = _cached_paths(camera)
        for path in self._data_files:
            add_columns(
                self._root / path,
                part / path,
                stale=self._stale.__contains__,
                new=partial(frame_columns, path=self._root / path, tracks=tracks, mask_paths=mask_paths),
                hub_types=hub_types,
            )

    def _track_statistics(self, camera: _Camera) -> dict[str, dict[int, Statistics]]:
        """Feature → episode → statistics.

        LeRobot refuses those of a feature with "image" in its name that are not of an image. Version 0.3, which reads
        v2.1, requires them of all observations; 0.4, which reads v3, cannot normalise bool values, and needs none.
        """
        if "image" in camera.names.tracks:
            return {}
        of_xy: dict[int, Statistics | None] = {}
        others: dict[str, dict[int, Statistics]] = {camera.names.visible: {}, camera.names.object_id: {}}
        for number, episode in camera.episodes.items():
            tracks = episode.tracks(self._num_points)
            of_xy[number] = of_tracks(tracks)
            others[camera.names.visible][number] = of_rows(tracks.visible)
            repeated = np.broadcast_to(tracks.object_id, tracks.visible.shape)
            others[camera.names.object_id][number] = of_rows(repeated)
        found = {camera.names.tracks: complete(of_xy)}
        return {name: each for name, each in (found if self._info.is_v3 else found | others).items() if each}

    def _write_label_videos(
        self, part: Path, camera: _Camera
    ) -> tuple[dict[int, dict[str, Any]], dict[int, Statistics]]:
        """Write the label videos of a camera, with its own division into files.

        Returns:
            Episode → its place in v3; episode → statistics.
        """
        histograms = {number: np.zeros(256, dtype=np.int64) for number in camera.episodes}
        places: dict[int, dict[str, Any]] = {}
        fps = self._info.fps
        for file, episodes in self._files(camera).items():
            write_video(part / file, self._labels(camera, episodes, histograms), camera.size, fps)
            for episode in episodes:
                if episode.video.file is not None:
                    first = episode.video.first_frame
                    chunk, number = episode.video.file
                    places[episode.video.number] = {
                        "chunk_index": chunk, "file_index": number, "from_timestamp": first / fps,
                        "to_timestamp": (first + episode.length) / fps,
                    }  # fmt: skip
        return places, {
            number: of_labels(histogram, camera.episodes[number].length)
            for number, histogram in histograms.items()
            if histogram.any()
        }

    def _files(self, camera: _Camera) -> dict[Path, list[Episode]]:
        """Label video → its episodes, in their order in the video of the camera."""
        files: dict[Path, list[Episode]] = {}
        for number, episode in camera.episodes.items():
            values: dict[str, str | int] = {"video_key": camera.names.masks}
            if not self._info.is_v3:
                values |= {"episode_chunk": number // self._info.chunks_size, "episode_index": number}
            elif episode.video.file is not None:
                values |= {"chunk_index": episode.video.file[0], "file_index": episode.video.file[1]}
            else:  # without a time range, the loader cannot read the episode
                continue
            path = video_file(self._info.content["video_path"], self._info.path, **values)
            if path.is_absolute() or ".." in path.parts:
                raise DatasetError(f"{self._info.path}: video_path leads to {path}, outside of the dataset")
            files.setdefault(path, []).append(episode)
        return {path: sorted(episodes, key=lambda each: each.video.first_frame) for path, episodes in files.items()}

    def _labels(
        self, camera: _Camera, episodes: Sequence[Episode], histograms: Mapping[int, Int64Array]
    ) -> Iterator[UInt8Array]:
        """Yield the labels of the episodes of one video file, with frames between them as in the camera's."""
        position = 0
        for episode in episodes:
            first = episode.video.first_frame
            if first < position:
                raise DatasetError(
                    f"{self._root / 'meta'}: episode {episode.video.number} begins with frame {first} of its video, "
                    f"before the end of the episode before it; correct the times in the episode list"
                )
            for _ in range(first - position):
                yield np.full(camera.size, UNLABELLED, dtype=np.uint8)
            for labels in labels_of(episode, camera.size):
                histograms[episode.video.number][:] += np.bincount(labels.reshape(-1), minlength=256)
                yield labels
            position = first + episode.length


def _npz_folder(camera: _Camera) -> str:
    return f"masks/{camera.names.camera}"


def _cached_tracks(camera: _Camera, num_points: int) -> Callable[[int], EpisodeTracks]:
    """Episode number → its tracks; rows are ordered by episode, so that few are needed at a time."""
    return lru_cache(maxsize=2)(lambda number: camera.episodes[number].tracks(num_points))


def _cached_paths(camera: _Camera) -> Callable[[int], list[str]]:
    return lru_cache(maxsize=2)(lambda number: npz_paths(camera.episodes[number], _npz_folder(camera)))
