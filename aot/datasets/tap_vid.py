"""TAP-Vid: pickles of videos and the courses of points in them (DAVIS, RoboTAP, RGB-Stacking, Kinetics).

A pickle is a program. These are read by an unpickler that knows arrays, bytes and plain containers and refuses
everything else, once: frames are unpacked into folders of pictures, as any other clip's.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from aot.datasets.ground_truth import AnnotatedTruth, GroundTruth
from aot.errors import DatasetError
from aot.system.files import replacing_folder
from aot.types import Clip, Prompt

# What unpicklers, and numpy's own part of it, raise on what is no pickle of arrays.
_NO_PICKLE = (
    OSError, pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, ImportError, AttributeError,
    ArithmeticError, AssertionError, RecursionError, MemoryError, SystemError, SyntaxError, struct.error,
)  # fmt: skip
_TYPE_NAME = re.compile(r"[<>|=]?(?:[biufS][0-9]{1,9}|O8?)")
_SUFFIX_OF = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png"}
_OBJECT_ID = 1
_MAX_NAME_BYTES = 200
_MARKER = "unpacked.json"
_TRACKS = "tracks.npz"


class TapVid:
    """Clips whose points are tracked from queries; there are no masks.

    Args:
        path: a pickle, or a folder of them.
        unpacked: where their frames are kept; made on first use.
        queries: "first": each point from where it is first visible; "strided": from every `stride`-th frame on which
            it is visible. Tracks are scored accordingly.
        stride: frames from one strided query to the next.
        fps: frames per second, which the pickles do not tell.
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
        found = sorted(self.path.glob("*.pkl")) if self.path.is_dir() else []
        if not found:
            raise DatasetError(
                f"dataset.path={self.path}: no such pickle, and no folder with *.pkl in it; "
                f"expected tapvid_davis.pkl, or the folder of robotap_split*.pkl"
            )
        return found

    def _unpack(self, pickled: Path) -> list[Path]:
        """The folders of a pickle's clips, unpacked if they are not there or the pickle has changed."""
        folder = self.unpacked / pickled.stem
        state = {"size": pickled.stat().st_size, "mtime_ns": pickled.stat().st_mtime_ns}
        known = _read_marker(folder / _MARKER)
        if {key: known.get(key) for key in state} != state:
            examples = _load(pickled)
            with replacing_folder(folder) as part:
                ids = [_unpack_clip(name, example, part, pickled) for name, example in _named(examples, pickled)]
                (part / _MARKER).write_text(json.dumps(state | {"clips": ids}))
            known = _read_marker(folder / _MARKER)
        return [folder / clip_id for clip_id in known["clips"]]

    def _clip(self, folder: Path) -> Clip:
        with np.load(folder / _TRACKS) as arrays:
            xy, visible = arrays["points_xy"], arrays["visible"]
        if self._queries == "first":
            seen = [(int(row.argmax()), point) for point, row in enumerate(visible) if row.any()]
        else:
            seen = [
                (t, int(n)) for t in range(0, visible.shape[1], self._stride) for n in np.flatnonzero(visible[:, t])
            ]
        queries = tuple((t, float(xy[n, t, 0]), float(xy[n, t, 1])) for t, n in seen)
        first = min((query[0] for query in queries), default=0)
        prompts = (Prompt(object_id=_OBJECT_ID, frame=first, name="points", query_points=queries),) if queries else ()
        return Clip(clip_id=folder.name, source=folder / "frames", prompts=prompts, fps=self._fps)


class _Type:
    """In place of `numpy.dtype`."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(name, str) or not _TYPE_NAME.fullmatch(name):
            raise pickle.UnpicklingError(f"arrays of type {name!r}, expected numbers, booleans or bytes")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """In place of `numpy.ndarray`, whose own way of taking a state writes where a hostile one says."""

    array: NDArray[Any] = np.empty(0, dtype=np.uint8)
    """Empty until a state follows, which a hostile pickle may leave out."""

    def __setstate__(self, state: Any) -> None:
        _, shape, element, is_fortran, content = state
        if isinstance(content, list):
            self.array = np.empty(len(content), dtype=object)
            self.array[:] = content
        else:
            self.array = np.frombuffer(content, element.dtype)
        self.array = self.array.reshape(shape, order="F" if is_fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """In place of numpy's: the state that follows tells everything."""
    return _Array()


def _from_buffer(content: Any, element: _Type, shape: Any, order: Literal["C", "F"]) -> _Array:
    made = _Array()
    made.array = np.frombuffer(content, element.dtype).reshape(shape, order=order)
    return made


def _scalar(element: _Type, content: bytes) -> Any:
    return np.frombuffer(content, element.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as the oldest protocols write them."""
    return text.encode("latin-1")


# What arrays of numbers are made of, and bytes in the oldest protocols; the names before and since NumPy 2.
_STAND_INS = {
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type, ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}  # fmt: skip


class _Bounded:
    """A file that is not asked for more bytes than it has: each would be allocated before it is missed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._num_bytes = file, os.fstat(file.fileno()).st_size
        self.readline = file.readline

    def read(self, size: int = -1) -> bytes:
        if size > self._num_bytes:
            raise pickle.UnpicklingError(f"it asks for {size} bytes, the file has {self._num_bytes}")
        return self._file.read(size)


class _ArrayUnpickler(pickle._Unpickler):
    """Python's own, in Python: for a file of some bytes the one in C takes gigabytes where they ask for it (memo)."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(size)))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it wants to use {module}.{name}, which is not needed for arrays")
        return _STAND_INS[module, name]


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(_Bounded(file)).load()
    except _NO_PICKLE as exc:
        raise DatasetError(
            f"{path}: cannot be read ({type(exc).__name__}: {exc}); expected a TAP-Vid pickle of video, points and "
            f"occluded, and nothing else"
        ) from exc


def _named(examples: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Clip ids and examples: names as they are, and numbers after the pickle's own name."""
    if isinstance(examples, Mapping):
        names: set[str] = set()
        for name, example in examples.items():
            clip_id = _folder_name(str(name), path)
            if clip_id in names:
                raise DatasetError(
                    f"{path}: several clips are called {clip_id!r} as a folder; expected names that differ"
                )
            names.add(clip_id)
            yield clip_id, example
    elif isinstance(examples, Sequence) and not isinstance(examples, str | bytes):
        yield from ((f"{path.stem}_{number:05d}", example) for number, example in enumerate(examples))
    else:
        raise DatasetError(f"{path}: holds {type(examples).__name__}; expected a dictionary or a list of clips")


def _folder_name(name: str, path: Path) -> str:
    """A clip's name as that of one folder, in which it can do no harm."""
    folder = name.replace("/", "_")
    is_text = folder.isprintable() and len(folder.encode(errors="replace")) <= _MAX_NAME_BYTES
    if not is_text or folder in ("", ".", "..", _MARKER):
        raise DatasetError(f"{path}: a clip is called {name[:80]!r}, which no folder can be; expected a plain name")
    return folder


def _unpack_clip(clip_id: str, example: Any, root: Path, source: Path) -> str:
    """Write one clip's frames, and its points in px of the frames; returns its id."""
    where = f"{source}: clip {clip_id!r}"
    missing = sorted({"video", "points", "occluded"} - set(example if isinstance(example, Mapping) else ()))
    if missing:
        raise DatasetError(f"{where} has no {', '.join(missing)}; expected video, points and occluded")
    video = example["video"].array if isinstance(example["video"], _Array) else example["video"]
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
        raise DatasetError(f"{where}: visible points outside 0..1; expected positions as shares of width and height")
    frames = root / clip_id / "frames"
    frames.mkdir(parents=True)
    height, width = _write_frames(video, frames, where)
    # TAP-Vid's 0 and 1 are the frame's edges; here pixel centres are integers, so the left edge is at -0.5.
    xy = points * np.array([width, height]) - 0.5
    np.savez_compressed(root / clip_id / _TRACKS, points_xy=xy.astype(np.float32), visible=visible)
    return clip_id


def _array(given: Any, dtype: type[np.generic], where: str) -> NDArray[Any]:
    try:
        return np.asarray(given.array if isinstance(given, _Array) else given).astype(dtype)
    except (TypeError, ValueError, OverflowError) as exc:
        raise DatasetError(f"{where}: {exc}; expected an array of numbers") from exc


def _write_frames(video: Any, folder: Path, where: str) -> tuple[int, int]:
    """Write every frame as a picture without loss, coded ones as they are; returns height and width in px."""
    size: tuple[int, int] | None = None
    for number, frame in enumerate(video):
        if isinstance(frame, bytes):
            suffix, content = _suffix_of(frame, f"{where}: frame {number}"), frame
        else:
            suffix, content = ".png", _as_png(frame, f"{where}: frame {number}")
        (folder / f"{number:05d}{suffix}").write_bytes(content)
        size = size or _size_of(content, f"{where}: frame {number}")
    if size is None:
        raise DatasetError(f"{where}: no frames; expected one at least")
    return size


def _suffix_of(coded: bytes, where: str) -> str:
    suffix = next((suffix for start, suffix in _SUFFIX_OF.items() if coded.startswith(start)), None)
    if suffix is None:
        raise DatasetError(f"{where} starts with {coded[:4]!r}; expected JPEG or PNG")
    return suffix


def _as_png(frame: Any, where: str) -> bytes:
    import cv2

    try:
        rgb = frame.array if isinstance(frame, _Array) else np.asarray(frame)
    except ValueError as exc:
        raise DatasetError(f"{where}: {exc}; expected (H, W, 3) uint8") from exc
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise DatasetError(f"{where} is {rgb.shape} {rgb.dtype}; expected (H, W, 3) uint8")
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return bytes(cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]), options)[1].tobytes())


def _size_of(coded: bytes, where: str) -> tuple[int, int]:
    """Height and width in px."""
    import cv2

    try:
        picture = cv2.imdecode(np.frombuffer(coded, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a header that promises more pixels than OpenCV takes
        picture = None
    if picture is None:
        raise DatasetError(f"{where} cannot be decoded; expected JPEG or PNG")
    return picture.shape[0], picture.shape[1]


def _read_marker(path: Path) -> dict[str, Any]:
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}
