"""The nouns that flow through aot. All are frozen and check themselves when they are made.

Frames are always SOURCE frame numbers, positions are pixels of the source video with pixel centres at integers,
x to the right and y down. T counts rows (kept frames), K objects, N query points; H and W are source pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
UInt8Array = NDArray[np.uint8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

LOWEST_OBJECT_ID = 1


class ArrayFields:
    """Shared by the dataclasses that hold arrays: one check and a repr of shapes, never of contents."""

    def _check(self, name: str, dtype: type, shape: tuple[int | str, ...], sizes: dict[str, int]) -> None:
        """Check one field's dtype and shape; a letter in `shape` stands for one size throughout the object."""
        owner, array = type(self).__name__, getattr(self, name)
        expected = f"({', '.join(map(str, shape))}) {np.dtype(dtype).name}"
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{owner}.{name}: got {type(array).__name__}, expected an array {expected}")
        if array.dtype != dtype or array.ndim != len(shape):
            raise ValueError(f"{owner}.{name}: got {array.shape} {array.dtype}, expected {expected}")
        for size, letter in zip(array.shape, shape):
            wanted = sizes.setdefault(letter, size) if isinstance(letter, str) else letter
            if size != wanted:
                raise ValueError(
                    f"{owner}.{name}: got {array.shape}, expected {expected} with {letter} = {wanted}, "
                    f"as in the fields before it"
                )

    def __repr__(self) -> str:
        parts = []
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            shown = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else repr(value)
            parts.append(f"{item.name}={shown}")
        return f"{type(self).__name__}({', '.join(parts)})"


@dataclass(frozen=True)
class MaskFile:
    """A mask that lies in an image file, read when it is needed."""

    path: Path
    """PNG or JPEG; a palette image is read by its indices."""
    value: int | None = None
    """The palette index or grey value of the object; None: every pixel that is not 0."""


@dataclass(frozen=True, eq=False, repr=False)
class Prompt(ArrayFields):
    """What marks one object on one frame."""

    object_id: int
    """≥ 1, the same in every prompt of the object."""
    frame: int
    """Source frame of the prompt."""
    name: str = ""
    """What people call the object."""
    box: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 in px."""
    points: tuple[tuple[float, float], ...] = ()
    """(x, y) in px."""
    labels: tuple[int, ...] = ()
    """One a point: 1 object, 0 background."""
    mask: MaskFile | BoolArray | None = None
    """The object's mask on the frame: still a file, or (H, W) bool."""
    query_points: tuple[tuple[float, float, float], ...] = ()
    """(source frame, x, y) to track in place of sampled points."""

    def __post_init__(self) -> None:
        if self.object_id < LOWEST_OBJECT_ID:
            raise ValueError(f"Prompt.object_id: got {self.object_id}, expected an integer ≥ {LOWEST_OBJECT_ID}")
        if self.frame < 0:
            raise ValueError(f"Prompt.frame: got {self.frame}, expected a source frame number ≥ 0")
        if len(self.points) != len(self.labels):
            raise ValueError(
                f"Prompt.labels: got {len(self.labels)} labels for {len(self.points)} points, expected one each"
            )
        if not set(self.labels) <= {0, 1}:
            raise ValueError(f"Prompt.labels: got {self.labels}, expected 1 (object) or 0 (background) for each point")
        if self.box is not None and not (self.box[0] <= self.box[2] and self.box[1] <= self.box[3]):
            raise ValueError(f"Prompt.box: got {self.box}, expected x0, y0, x1, y1 with x0 ≤ x1 and y0 ≤ y1")
        if isinstance(self.mask, np.ndarray):
            self._check("mask", np.bool_, ("H", "W"), {})

    @property
    def is_visual(self) -> bool:
        """Whether it says where the object is (a prompt may hold query points alone)."""
        return self.box is not None or bool(self.points) or self.mask is not None


@dataclass(frozen=True)
class Clip:
    """One video of a dataset and what to follow in it."""

    clip_id: str
    """Unique in the dataset; its path below the dataset's root without the suffix, with `/` between folders."""
    source: Path
    """A video file, or a folder with one image a frame."""
    prompts: tuple[Prompt, ...] = ()
    """Ordered by object_id, then by frame."""
    fps: float | None = None
    """Frames per second of a frame folder; video files carry their own time stamps."""
    start_seconds: float | None = None
    """Frames shown before this presentation time are left out."""
    end_seconds: float | None = None
    """Frames shown at or after this presentation time are left out."""

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ascending ids of the objects that have a prompt."""
        return tuple(sorted({prompt.object_id for prompt in self.prompts}))


@dataclass(frozen=True, eq=False, repr=False)
class FrameBlock(ArrayFields):
    """Some decoded frames, in the order in which they were asked for."""

    index: Int64Array
    """(B,) source frame numbers."""
    time: Float64Array
    """(B,) presentation times in the container, in s."""
    rgb: UInt8Array
    """(B, H, W, 3)."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("index", np.int64, ("B",), sizes)
        self._check("time", np.float64, ("B",), sizes)
        self._check("rgb", np.uint8, ("B", "H", "W", 3), sizes)


@dataclass(frozen=True, eq=False, repr=False)
class MaskBlock(ArrayFields):
    """Masks of some objects on some frames; blocks may come in any order, each (frame, object) once."""

    index: Int64Array
    """(B,) source frame numbers."""
    object_id: Int32Array
    """(K,) the objects this block speaks of."""
    masks: BoolArray
    """(B, K, H, W)."""
    score: Float32Array
    """(B, K) how sure the model is of each mask, 0..1."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("index", np.int64, ("B",), sizes)
        self._check("object_id", np.int32, ("K",), sizes)
        self._check("masks", np.bool_, ("B", "K", "H", "W"), sizes)
        self._check("score", np.float32, ("B", "K"), sizes)


@dataclass(frozen=True, eq=False, repr=False)
class QueryPoints(ArrayFields):
    """The points to track."""

    txy: Float32Array
    """(N, 3): source frame, x, y in px."""
    object_id: Int32Array
    """(N,) the object each point lies on."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("txy", np.float32, ("N", 3), sizes)
        self._check("object_id", np.int32, ("N",), sizes)

    def __len__(self) -> int:
        return len(self.txy)


@dataclass(frozen=True, eq=False, repr=False)
class Tracks(ArrayFields):
    """Where every query point is on every kept frame."""

    xy: Float32Array
    """(T, N, 2) px."""
    visible: BoolArray
    """(T, N) the tracker's decision."""
    visibility: Float32Array
    """(T, N) probability in 0..1 that the point is seen."""
    confidence: Float32Array
    """(T, N) probability in 0..1 that the position is right."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("xy", np.float32, ("T", "N", 2), sizes)
        self._check("visible", np.bool_, ("T", "N"), sizes)
        self._check("visibility", np.float32, ("T", "N"), sizes)
        self._check("confidence", np.float32, ("T", "N"), sizes)


@dataclass(frozen=True, eq=False, repr=False)
class ClipResult(ArrayFields):
    """All that one clip's HDF5 file holds."""

    index: Int64Array
    """(T,) source frame of every row."""
    time: Float64Array
    """(T,) its presentation time in the container, in s."""
    object_id: Int32Array
    """(K,) ascending."""
    object_name: tuple[str, ...]
    """K names, empty where none was given."""
    object_prompts: tuple[list[dict[str, Any]], ...]
    """K lists of prompts, as the manifest writes them."""
    object_error: tuple[str, ...]
    """K messages; empty for an object that did not fail."""
    mask_row: Int64Array
    """(Tm,) rows of `index` that have masks."""
    masks: BoolArray | None
    """(Tm, K, H, W); None when the reader was told to leave them out."""
    mask_score: Float32Array
    """(Tm, K); NaN where an object has no mask on that frame."""
    query: Float32Array
    """(N, 3): source frame, x, y."""
    track_object_id: Int32Array
    """(N,)."""
    tracks: Tracks
    """(T, N, …)."""
    in_mask: BoolArray
    """(T, N) the position lies inside its object's mask; False where there is no mask."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Provenance: clip_id, source, source_sha256, width, height, config_yaml, versions, attempts, seconds, …"""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("index", np.int64, ("T",), sizes)
        self._check("time", np.float64, ("T",), sizes)
        self._check("object_id", np.int32, ("K",), sizes)
        self._check("mask_row", np.int64, ("Tm",), sizes)
        if self.masks is not None:
            self._check("masks", np.bool_, ("Tm", "K", "H", "W"), sizes)
        self._check("mask_score", np.float32, ("Tm", "K"), sizes)
        self._check("query", np.float32, ("N", 3), sizes)
        self._check("track_object_id", np.int32, ("N",), sizes)
        self._check("in_mask", np.bool_, ("T", "N"), sizes)
        for name in ("object_name", "object_prompts", "object_error"):
            if len(getattr(self, name)) != sizes["K"]:
                raise ValueError(
                    f"ClipResult.{name}: got {len(getattr(self, name))}, expected {sizes['K']}, one an object"
                )
        if self.tracks.visible.shape != self.in_mask.shape:
            raise ValueError(
                f"ClipResult.tracks: got {self.tracks.visible.shape} (T, N), expected {self.in_mask.shape}, "
                f"as in the fields before it"
            )

    def flow(self) -> Float32Array:
        """Displacement of every point between consecutive rows: (T−1, N, 2) px."""
        return np.diff(self.tracks.xy, axis=0)
