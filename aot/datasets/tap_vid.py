"""TAP-Vid: pickles of videos with annotated point tracks (DAVIS, RoboTAP, RGB-Stacking, Kinetics).

Each pickle is read once, and its frames are unpacked into folders of images, from which clips stream like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from aot.datasets.annotations import AnnotatedTruth
from aot.datasets.array_pickle import as_array, read_pickle
from aot.datasets.ground_truth import GroundTruth
from aot.datasets.published import missing_dataset
from aot.errors import DatasetError
from aot.system.files import replacing_folder
from aot.system.listing import visible_entries
from aot.system.output_folder import check_output_folder
from aot.types import Clip, Prompt

_SUFFIX_OF = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png"}
_OBJECT_ID = 1
_MAX_NAME_BYTES = 200
_MARKER = "unpacked.json"
_TRACKS = "tracks.npz"


class TapVid:
    """Clips with query points and annotated tracks, without masks.

    Args:
        path: a pickle, or a folder of pickles.
        unpacked: folder for the unpacked frames; filled on first use.
        queries: "first": each point is tracked from the first frame on which it is visible; "strided": from every
            `stride`-th frame on which it is visible. Tracks are scored by the mode of the same name.
        stride: frames between two strided queries of a point, at least 1.
        fps: frames per second, above 0; the pickles do not contain it.
    """

    def __init__(
        self,
        path: Path,
        unpacked: Path,
        queries: Literal["first", "strided"] = "first",
        stride: Annotated[int, Ge(1)] = 5,
        fps: Annotated[float, Gt(0)] = 24.0,
    ) -> None:
        self.path = path
        self.unpacked = unpacked
        self._queries: Literal["first", "strided"] = queries
        self._stride = stride
        self._fps = fps

    def clips(self) -> list[Clip]:
        folders = [folder for pickled in self._pickles() for folder in self._unpack(pickled)]
        return [self._clip(folder) for folder in sorted(folders)]

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        for pickled in self._pickles():
            tracks = self.unpacked / pickled.stem / clip_id / _TRACKS
            if tracks.is_file():
                return AnnotatedTruth(tracks_file=tracks, query_mode=self._queries)
        return None

    def _pickles(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        found = [] if not self.path.is_dir() else [file for file in visible_entries(self.path) if file.suffix == ".pkl"]
        if not found:
            raise missing_dataset(
                "dataset.path", self.path, "a TAP-Vid pickle such as tapvid_davis.pkl, or a folder of such pickles"
            )
        return found

    def _unpack(self, pickled: Path) -> list[Path]:
        """Folders of a pickle's clips; it is unpacked if that is not done yet or the pickle has changed."""
        folder = self.unpacked / pickled.stem
        state = {"size": pickled.stat().st_size, "mtime_ns": pickled.stat().st_mtime_ns}
        marker = _read_marker(folder / _MARKER)
        if {key: marker.get(key) for key in state} != state:
            check_output_folder("dataset.unpacked", self.unpacked)
            examples = _read_examples(pickled)
            with replacing_folder(folder) as unfinished:
                ids = [_unpack_clip(name, example, unfinished, pickled) for name, example in _named(examples, pickled)]
                (unfinished / _MARKER).write_text(json.dumps(state | {"clips": ids}))
            marker = _read_marker(folder / _MARKER)
        return [folder / clip_id for clip_id in marker["clips"]]

    def _clip(self, folder: Path) -> Clip:
        with np.load(folder / _TRACKS) as arrays:
            xy, visible = arrays["points_xy"], arrays["visible"]
        if self._queries == "first":
            starts = [(int(row.argmax()), point) for point, row in enumerate(visible) if row.any()]
        else:
            starts = [
                (t, int(n)) for t in range(0, visible.shape[1], self._stride) for n in np.flatnonzero(visible[:, t])
            ]
        queries = tuple((t, float(xy[n, t, 0]), float(xy[n, t, 1])) for t, n in starts)
        first = min((query[0] for query in queries), default=0)
        prompts = (Prompt(object_id=_OBJECT_ID, frame=first, name="points", query_points=queries),) if queries else ()
        return Clip(clip_id=folder.name, source=folder / "frames", prompts=prompts, fps=self._fps)


def _read_examples(path: Path) -> Any:
    try:
        return read_pickle(path)
    except ValueError as exc:
        raise DatasetError(
            f"{path} cannot be read: {exc}; expected a TAP-Vid pickle that contains only video, points and occluded"
        ) from exc


def _named(examples: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """(clip id, example) of each clip: the name in a dictionary; the pickle's name and a number in a list."""
    if isinstance(examples, Mapping):
        names: set[str] = set()
        for name, example in examples.items():
            clip_id = _folder_name(str(name), path)
            if clip_id in names:
                raise DatasetError(
                    f"{path}: several clips have the folder name {clip_id!r}; expected names that differ"
                )
            names.add(clip_id)
            yield clip_id, example
    elif isinstance(examples, Sequence) and not isinstance(examples, str | bytes):
        yield from ((f"{path.stem}_{number:05d}", example) for number, example in enumerate(examples))
    else:
        raise DatasetError(f"{path}: contains {type(examples).__name__}; expected a dictionary or a list of clips")


def _folder_name(name: str, path: Path) -> str:
    """Clip name → name of one folder; names are untrusted input and must not lead out of the parent folder."""
    folder = name.replace("/", "_")
    is_text = folder.isprintable() and len(folder.encode(errors="replace")) <= _MAX_NAME_BYTES
    if not is_text or folder in ("", ".", "..", _MARKER):
        raise DatasetError(f"{path}: the clip name {name[:80]!r} cannot be a folder name; expected a plain name")
    return folder


def _unpack_clip(clip_id: str, example: Any, root: Path, source: Path) -> str:
    """Write the frames of one clip, and its points in px; returns the clip id."""
    where = f"{source}: clip {clip_id!r}"
    missing = sorted({"video", "points", "occluded"} - set(example if isinstance(example, Mapping) else ()))
    if missing:
        raise DatasetError(f"{where} has no {', '.join(missing)}; expected video, points and occluded")
    video = as_array(example["video"])
    points = _array(example["points"], np.float64, f"{where}: points")
    occluded = _array(example["occluded"], np.bool_, f"{where}: occluded")
    is_sequence = video.ndim > 0 if isinstance(video, np.ndarray) else isinstance(video, Sequence)
    num_frames = len(video) if is_sequence else 0
    if points.ndim != 3 or points.shape[2] != 2 or occluded.shape != points.shape[:2] or num_frames != points.shape[1]:
        raise DatasetError(
            f"{where}: got {num_frames} frames, points {points.shape} and occluded {occluded.shape}; "
            f"expected T frames, (N, T, 2) and (N, T)"
        )
    visible = ~occluded
    if not ((points[visible] >= 0) & (points[visible] <= 1)).all():
        raise DatasetError(f"{where}: visible points outside 0..1; expected fractions of width and height")
    frames = root / clip_id / "frames"
    frames.mkdir(parents=True)
    height, width = _write_frames(video, frames, where)
    # 0 and 1 are the edges of the frame in TAP-Vid; here pixel centres are integers, so the left edge is at -0.5.
    xy = points * np.array([width, height]) - 0.5
    np.savez_compressed(root / clip_id / _TRACKS, points_xy=xy.astype(np.float32), visible=visible)
    return clip_id


def _array(value: Any, dtype: type[np.generic], where: str) -> NDArray[Any]:
    try:
        return np.asarray(as_array(value)).astype(dtype)
    except (TypeError, ValueError, OverflowError) as exc:
        raise DatasetError(f"{where} cannot be converted to numbers; expected an array of numbers") from exc


def _write_frames(video: Any, folder: Path, where: str) -> tuple[int, int]:
    """Write raw frames as PNG and encoded frames unchanged; returns height and width in px."""
    size: tuple[int, int] | None = None
    for number, frame in enumerate(video):
        if isinstance(frame, bytes):
            suffix, content = _suffix_of(frame, f"{where}: frame {number}"), frame
        else:
            suffix, content = ".png", _as_png(frame, f"{where}: frame {number}")
        (folder / f"{number:05d}{suffix}").write_bytes(content)
        size = size or _size_of(content, f"{where}: frame {number}")
    if size is None:
        raise DatasetError(f"{where}: no frames; expected at least one")
    return size


def _suffix_of(encoded: bytes, where: str) -> str:
    suffix = next((suffix for start, suffix in _SUFFIX_OF.items() if encoded.startswith(start)), None)
    if suffix is None:
        raise DatasetError(f"{where} starts with {encoded[:4]!r}; expected JPEG or PNG")
    return suffix


def _as_png(frame: Any, where: str) -> bytes:
    import cv2

    try:
        rgb = np.asarray(as_array(frame))
    except ValueError as exc:  # lists of different lengths
        raise DatasetError(f"{where} is not an array; expected (H, W, 3) uint8") from exc
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise DatasetError(f"{where} is {rgb.shape} {rgb.dtype}; expected (H, W, 3) uint8")
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return bytes(cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]), options)[1].tobytes())


def _size_of(encoded: bytes, where: str) -> tuple[int, int]:
    """Height and width in px."""
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # the header claims more pixels than OpenCV accepts
        image = None
    if image is None:
        raise DatasetError(f"{where} cannot be decoded; expected JPEG or PNG")
    return image.shape[0], image.shape[1]


def _read_marker(path: Path) -> dict[str, Any]:
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}
