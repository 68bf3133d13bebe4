"""The data types that all stages share. All are frozen, and check dtypes and shapes when they are constructed.

Frames are always SOURCE frame numbers, positions are pixels of the source video with pixel centres at integers,
x to the right and y down. T counts rows (kept frames), K objects, N query points; H and W are source pixels.
"""

from __future__ import annotations

if __name__ == "types":
    # `python aot/run.py` puts aot/ first on the path, and Python finds this file in place of its own module `types`.
    import sys

    print("started by its path; use: python -m aot.run, python -m aot.status and so on, or aot VERB", file=sys.stderr)
    raise SystemExit(2)

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aot.coordinates import as_fractions
from aot.errors import ConfigError
from aot.lifetimes import Lifetimes
from aot.motion import ObjectMotion, Per, flow_between, measure_mask, measure_points
from aot.system.array_fields import ArrayFields

if TYPE_CHECKING:
    import pandas

BoolArray = NDArray[np.bool_]
UInt8Array = NDArray[np.uint8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

LOWEST_OBJECT_ID = 1
JSON_ATTRIBUTES = frozenset(
    "attempts checks notes peak_device_bytes precision prompts seconds source_range versions weights words".split()
)
"""The attributes of results that files hold as JSON."""


@dataclass(frozen=True)
class MaskFile:
    """A mask in an image file, which is read when the mask is needed."""

    path: Path
    """PNG or JPEG; of a palette image, the indices are read."""
    value: int | None = None
    """The palette index or grey value of the object; None: the image has only one."""
    has_several_ids: bool = False
    """All ids in the image are parts of this object, as in datasets whose objects are merged; `value` is None."""


@dataclass(frozen=True)
class RleMask:
    """A mask as COCO's compressed run-length encoding: some hundred bytes, decoded when the mask is needed."""

    height: int
    """px."""
    width: int
    """px."""
    counts: str
    """Column-major run lengths, in the string encoding of pycocotools."""


MAX_FOUND = 20
"""Objects that one description finds, at most."""


@dataclass(frozen=True)
class Words:
    """A description of objects that a detector is to find in the clip."""

    text: str
    """Such as "red mug"."""
    frames: tuple[int, ...]
    """Source frames, in the order in which they are looked at until the objects are found."""
    count: int | None = 1
    """Number of objects to find; None: all, at most `MAX_FOUND`. They get successive ids, the best score the first."""
    min_score: float | None = None
    """Boxes below this score, 0..1, are not the object; None: the detector's own limit."""


@dataclass(frozen=True)
class Found:
    """The origin of a box or mask that a detector has found."""

    text: str
    """The description."""
    score: float | None
    """Of the detector, 0..1; None: not known."""
    model: str
    """Name of the detector's model; empty: not known."""


@dataclass(frozen=True, eq=False, repr=False)
class Prompt(ArrayFields):
    """A prompt: marks one object on one frame."""

    object_id: int
    """≥ 1, the same in every prompt of the object."""
    frame: int
    """Source frame of the prompt."""
    name: str = ""
    """Name of the object, for people."""
    box: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 in px."""
    points: tuple[tuple[float, float], ...] = ()
    """(x, y) in px."""
    labels: tuple[int, ...] = ()
    """One per point: 1 object, 0 background."""
    mask: MaskFile | RleMask | BoolArray | None = None
    """The object's mask on the frame: (H, W) bool, or a file or run-length encoding that is not decoded yet."""
    query_points: tuple[tuple[float, float, float], ...] = ()
    """(source frame, x, y) of points to track instead of sampled ones."""
    words: Words | None = None
    """What a detector is to find, starting on `frame`; a prompt that has been found has a box or a mask instead."""
    found: Found | None = None
    """Which detection gave the box or mask; None: it was given by people or annotations."""

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
        if self.words is not None and (self.is_visual or self.frame not in self.words.frames):
            raise ValueError(
                f"Prompt.words: got {self.words} on frame {self.frame}, expected one of its frames, and no box, "
                f"points or mask"
            )

    @property
    def is_visual(self) -> bool:
        """Whether the prompt locates the object; a prompt may also consist of query points only."""
        return self.box is not None or bool(self.points) or self.mask is not None

    @property
    def max_objects(self) -> int:
        """Number of objects that the prompt marks, at most; more than one only for words."""
        return 1 if self.words is None else self.words.count or MAX_FOUND

    def shifted(self, num_frames: int) -> Prompt:
        """The prompt with all its frames later by this number."""
        words = self.words
        if words is not None:
            words = replace(words, frames=tuple(frame + num_frames for frame in words.frames))
        queries = tuple((frame + num_frames, x, y) for frame, x, y in self.query_points)
        return replace(self, frame=self.frame + num_frames, query_points=queries, words=words)


@dataclass(frozen=True)
class Clip:
    """One video of a dataset, and the objects to track in it."""

    clip_id: str
    """Unique in the dataset: the path below the dataset's root without suffix, with `/` between folders."""
    source: Path
    """A video file, or a folder with one image per frame."""
    prompts: tuple[Prompt, ...] = ()
    """Ordered by object_id, then by frame."""
    fps: float | None = None
    """Frame rate of a frame folder; video files have their own time stamps."""
    start_seconds: float | None = None
    """Frames with an earlier presentation time are left out."""
    end_seconds: float | None = None
    """Frames with this or a later presentation time are left out."""
    pattern: str | None = None
    """Which images of a frame folder are its frames, by the pattern of their names; None: all."""
    stream: int | None = None
    """Number of the stream to read of a video file with several, see `aot.decoding.streams`; None: the one that the
    `ffmpeg` command takes."""
    expected_frames: tuple[int, int | None] | None = None
    """First source frame and number of frames (None: unknown) in the time range, according to the dataset; a clip that
    has others is refused. None: not known."""
    part_seconds: tuple[float | None, float | None] | None = None
    """Start and end of the part to read, from the start of a time range with expected frames; None: all of it."""

    @property
    def manifest_frame_0(self) -> int:
        """The source frame that a manifest calls 0: the first of the file, or of an episode in a longer video."""
        return (self.expected_frames or (0, None))[0]

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ascending ids of the objects that have a prompt."""
        return tuple(sorted({prompt.object_id for prompt in self.prompts}))

    @property
    def words(self) -> tuple[Prompt, ...]:
        """The prompts that a detector has to find."""
        return tuple(prompt for prompt in self.prompts if prompt.words is not None)

    @property
    def num_objects(self) -> int:
        """Number of objects, as far as it is known before words are looked up: "all" counts as one."""
        counts = (prompt.words.count for prompt in self.prompts if prompt.words is not None)
        return len(self.object_ids) + sum((count or 1) - 1 for count in counts)

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of these objects; empty where no prompt has one."""
        names: dict[int, str] = {}
        for prompt in self.prompts:
            if not names.get(prompt.object_id):
                names[prompt.object_id] = prompt.name
        return tuple(names[object_id] for object_id in self.object_ids)


@dataclass(frozen=True, eq=False, repr=False)
class FrameBlock(ArrayFields):
    """Decoded frames, in the order in which they were requested."""

    index: Int64Array
    """(B,) source frame numbers."""
    time: Float64Array
    """(B,) presentation times in the container, in s."""
    rgb: UInt8Array
    """(B, H, W, 3); not to be changed, because the frames may be kept for other readers."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("index", np.int64, ("B",), sizes)
        self._check("time", np.float64, ("B",), sizes)
        self._check("rgb", np.uint8, ("B", "H", "W", 3), sizes)


@dataclass(frozen=True, eq=False, repr=False)
class MaskBlock(ArrayFields):
    """Masks of some objects on some frames; blocks come in any order, each (frame, object) at most once."""

    index: Int64Array
    """(B,) source frame numbers."""
    object_id: Int32Array
    """(K,) the objects of this block."""
    masks: BoolArray
    """(B, K, H, W)."""
    score: Float32Array
    """(B, K) the model's confidence in each mask, 0..1."""

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
    """(N,) the object that each point belongs to."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("txy", np.float32, ("N", 3), sizes)
        self._check("object_id", np.int32, ("N",), sizes)

    def __len__(self) -> int:
        return len(self.txy)


@dataclass(frozen=True, eq=False, repr=False)
class Tracks(ArrayFields):
    """The position and visibility of every query point on every kept frame."""

    xy: Float32Array
    """(T, N, 2) px."""
    visible: BoolArray
    """(T, N) whether the tracker reports the point as visible."""
    visibility: Float32Array
    """(T, N) probability in 0..1 that the point is visible."""
    confidence: Float32Array
    """(T, N) probability in 0..1 that the position is correct."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("xy", np.float32, ("T", "N", 2), sizes)
        self._check("visible", np.bool_, ("T", "N"), sizes)
        self._check("visibility", np.float32, ("T", "N"), sizes)
        self._check("confidence", np.float32, ("T", "N"), sizes)


class MaskArray(Protocol):
    """Masks that are read when they are indexed; they behave like a NumPy array (Tm, K, H, W) of bool."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[np.bool_]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> BoolArray: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]: ...

    def take(self, rows: Int64Array, columns: Int64Array) -> MaskArray:
        """A selection of frames (along Tm) and objects (along K), still unread."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class ClipResult(ArrayFields):
    """The contents of one clip's HDF5 file."""

    index: Int64Array
    """(T,) source frame of every row."""
    time: Float64Array
    """(T,) presentation times in the container, in s."""
    object_id: Int32Array
    """(K,) ascending."""
    object_name: tuple[str, ...]
    """K names; empty if none was given."""
    object_prompts: tuple[list[dict[str, Any]], ...] = field(repr=False)
    """K lists of prompts, with the keys of the manifest."""
    object_error: tuple[str, ...]
    """K messages; empty for an object that did not fail."""
    mask_row: Int64Array
    """(Tm,) rows of `index` that have masks."""
    masks: BoolArray | MaskArray | None
    """(Tm, K, H, W); a lazy array or None if the reader was called that way."""
    mask_score: Float32Array
    """(Tm, K); NaN where an object has no mask on that frame."""
    coverage: Float32Array
    """(Tm, K) fraction of each mask that its object's valid points cover; NaN for an empty mask."""
    query: Float32Array
    """(N, 3): source frame, x, y."""
    track_object_id: Int32Array
    """(N,)."""
    tracks: Tracks
    """(T, N, …)."""
    in_mask: BoolArray
    """(T, N) whether the position is inside its object's mask; False where there is no mask."""
    lifetimes: Lifetimes
    """(N,) for which frames each track is meant, and (T, N) where it is valid."""
    attributes: dict[str, Any] = field(default_factory=dict, repr=False)
    """Provenance: clip_id, source, source_sha256, width, height, config_yaml, versions, attempts, seconds, …"""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("index", np.int64, ("T",), sizes)
        self._check("time", np.float64, ("T",), sizes)
        self._check("object_id", np.int32, ("K",), sizes)
        self._check("mask_row", np.int64, ("Tm",), sizes)
        if isinstance(self.masks, np.ndarray):
            self._check("masks", np.bool_, ("Tm", "K", "H", "W"), sizes)
        elif self.masks is not None and self.masks.shape[:2] != (sizes["Tm"], sizes["K"]):
            raise ValueError(
                f"ClipResult.masks: got {self.masks.shape}, expected ({sizes['Tm']}, {sizes['K']}, H, W), "
                f"as in the fields before it"
            )
        self._check("mask_score", np.float32, ("Tm", "K"), sizes)
        self._check("coverage", np.float32, ("Tm", "K"), sizes)
        self._check("query", np.float32, ("N", 3), sizes)
        self._check("track_object_id", np.int32, ("N",), sizes)
        self._check("in_mask", np.bool_, ("T", "N"), sizes)
        for name in ("object_name", "object_prompts", "object_error"):
            if len(getattr(self, name)) != sizes["K"]:
                raise ValueError(
                    f"ClipResult.{name}: got {len(getattr(self, name))}, expected {sizes['K']}, one per object"
                )
        for name, values in (("tracks", self.tracks.visible), ("lifetimes", self.lifetimes.valid)):
            if values.shape != self.in_mask.shape:
                raise ValueError(
                    f"ClipResult.{name}: got {values.shape} (T, N), expected {self.in_mask.shape}, "
                    f"as in the fields before it"
                )

    def xy(self, *, normalised: bool = False) -> Float32Array:
        """Positions of every point on every row: (T, N, 2) px of the source, pixel centres at integers.

        Args:
            normalised: instead, fractions of its width and height, 0 and 1 at the edges of the frame:
                ((x + 0.5) / width, (y + 0.5) / height).
        """
        if not normalised:
            return self.tracks.xy
        return as_fractions(self.tracks.xy, int(self.attributes["width"]), int(self.attributes["height"]))

    def flow(self, *, valid: bool = False, per: Per | None = None, step: int = 1) -> Float32Array:
        """Displacement of every point from each row to the row `step` rows later: (T − step, N, 2) px.

        Args:
            valid: NaN where the position is not valid on either row (`lifetimes`); otherwise all positions count.
            per: "frame" or "second": px per source frame or per s; None: px.
            step: number of rows, ≥ 1.
        """
        is_valid = self.lifetimes.valid if valid else None
        return flow_between(self.tracks.xy, is_valid, self.index, self.time, per=per, step=step)

    def motion(self) -> ObjectMotion:
        """Place and motion of every object on every row, from its masks and its valid points.

        Raises:
            ValueError: the masks were not loaded; `aot.load(path, masks="lazy")` is enough.
        """
        if self.masks is None:
            raise ValueError("motion() needs the masks: load the result with masks='lazy' or masks=True")
        shape = (len(self.index), len(self.object_id))
        area, coverage = (np.full(shape, np.nan, dtype=np.float32) for _ in range(2))
        centroid = np.full((*shape, 2), np.nan, dtype=np.float32)
        box = np.full((*shape, 4), np.nan, dtype=np.float32)
        coverage[self.mask_row] = self.coverage
        for position, row in enumerate(self.mask_row.tolist()):
            for k, mask in enumerate(self.masks[position]):
                measured = measure_mask(mask)
                if measured is not None:
                    area[row, k], centroid[row, k], box[row, k] = measured
        object_ids = self.object_id.tolist()
        of_points = measure_points(self.tracks.xy, self.lifetimes.valid, self.track_object_id, object_ids)
        return ObjectMotion(self.index, self.object_id, area, centroid, box, coverage, *of_points)

    def select(
        self,
        objects: int | str | Iterable[int | str] | None = None,
        frames: slice | Sequence[int] | Int64Array | None = None,
    ) -> ClipResult:
        """Select objects and frames; lazy masks stay unread.

        Args:
            objects: object ids or names; None: all.
            frames: a slice of source frame numbers, as `slice(30, 60)`, or a list of kept source frames; None: all.
        Raises:
            KeyError: an object does not exist, or a frame was not kept.
        """
        columns, rows = self._columns(objects), self._rows(frames)
        points = np.isin(self.track_object_id, self.object_id[columns])
        with_masks = np.flatnonzero(np.isin(self.mask_row, rows))
        masks = self.masks
        if isinstance(masks, np.ndarray):
            masks = masks[np.ix_(with_masks, columns)]
        elif masks is not None:
            masks = masks.take(with_masks, columns)

        def of_points(values: NDArray[Any]) -> NDArray[Any]:
            return values[np.ix_(rows, np.flatnonzero(points))]

        return replace(
            self,
            index=self.index[rows],
            time=self.time[rows],
            object_id=self.object_id[columns],
            object_name=tuple(self.object_name[k] for k in columns),
            object_prompts=tuple(self.object_prompts[k] for k in columns),
            object_error=tuple(self.object_error[k] for k in columns),
            mask_row=np.searchsorted(rows, self.mask_row[with_masks]).astype(np.int64),
            masks=masks,
            mask_score=self.mask_score[np.ix_(with_masks, columns)],
            coverage=self.coverage[np.ix_(with_masks, columns)],
            query=self.query[points],
            track_object_id=self.track_object_id[points],
            tracks=Tracks(**{item.name: of_points(getattr(self.tracks, item.name)) for item in fields(Tracks)}),
            in_mask=of_points(self.in_mask),
            lifetimes=Lifetimes(
                self.lifetimes.born[points], self.lifetimes.ended[points], of_points(self.lifetimes.valid)
            ),
        )

    def object(self, object_id: int | str) -> ClipResult:
        """One object, by its id or its name.

        Raises:
            KeyError: the object does not exist.
        """
        return self.select(objects=object_id)

    @property
    def provenance(self) -> dict[str, Any]:
        """The attributes; lists and mappings, which files hold as JSON, are parsed."""
        return {
            name: json.loads(value) if name in JSON_ATTRIBUTES else value for name, value in self.attributes.items()
        }

    def frames(self, size: tuple[int, int] | None = None) -> Iterator[UInt8Array]:
        """Read the source: yield the (H, W, 3) RGB of every row of `index`, one at a time.

        Args:
            size: width and height to resize to, px; None: as in the source.
        Raises:
            DecodeError: the source cannot be read.
        """
        from aot.source_frames import source_frames

        return source_frames(self.attributes, self.index, size)

    def to_torch(self) -> dict[str, Any]:
        """The tracks as tensors, without masks.

        Returns:
            clip_id (str); index (T,), time (T,), xy (T, N, 2), visible (T, N), visibility (T, N), confidence (T, N),
            in_mask (T, N), valid (T, N), query (N, 3), object_id (N,).
        """
        import torch

        tracks = self.tracks
        arrays = {
            "index": self.index, "time": self.time, "xy": tracks.xy, "visible": tracks.visible,
            "visibility": tracks.visibility, "confidence": tracks.confidence, "in_mask": self.in_mask,
            "valid": self.lifetimes.valid, "query": self.query, "object_id": self.track_object_id,
        }  # fmt: skip
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        return {"clip_id": str(self.attributes["clip_id"]), **tensors}

    def to_pandas(self) -> pandas.DataFrame:
        """The tracks as a long table: one row per frame and point, ordered by frame, then by point.

        Returns:
            Columns frame, time, point, object_id, object_name, x, y, visible, visibility, confidence, in_mask,
            valid.
        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as exc:
            raise ConfigError("to_pandas needs pandas: pip install 'auto-objects-tracker[pandas]'") from exc
        num_frames, num_points = self.in_mask.shape
        names = dict(zip(self.object_id.tolist(), self.object_name))
        return pandas.DataFrame(
            {
                "frame": np.repeat(self.index, num_points),
                "time": np.repeat(self.time, num_points),
                "point": np.tile(np.arange(num_points), num_frames),
                "object_id": np.tile(self.track_object_id, num_frames),
                "object_name": [names.get(i, "") for i in self.track_object_id.tolist()] * num_frames,
                "x": self.tracks.xy[..., 0].ravel(),
                "y": self.tracks.xy[..., 1].ravel(),
                "visible": self.tracks.visible.ravel(),
                "visibility": self.tracks.visibility.ravel(),
                "confidence": self.tracks.confidence.ravel(),
                "in_mask": self.in_mask.ravel(),
                "valid": self.lifetimes.valid.ravel(),
            }
        )

    def _columns(self, objects: int | str | Iterable[int | str] | None) -> Int64Array:
        """Positions of objects, in the order of the file."""
        if objects is None:
            return np.arange(len(self.object_id), dtype=np.int64)
        wanted = [objects] if isinstance(objects, int | str) else list(objects)
        keys: list[Any] = [*self.object_id.tolist(), *(name for name in self.object_name if name)]
        unknown = [one for one in wanted if one not in keys]
        if unknown:
            raise KeyError(f"no object {unknown[0]!r}; expected one of {', '.join(map(repr, keys))}")
        both = zip(self.object_id.tolist(), self.object_name)
        return np.array([k for k, (i, name) in enumerate(both) if i in wanted or name in wanted], dtype=np.int64)

    def _rows(self, frames: slice | Sequence[int] | Int64Array | None) -> Int64Array:
        """Ascending rows of source frames."""
        if frames is None:
            return np.arange(len(self.index), dtype=np.int64)
        if isinstance(frames, slice):
            numbers = np.arange(int(self.index[-1]) + 1)[frames] if len(self.index) else self.index
            return np.flatnonzero(np.isin(self.index, numbers)).astype(np.int64)
        missing = np.setdiff1d(np.asarray(frames, dtype=np.int64), self.index)
        if len(missing):
            raise KeyError(f"source frames {missing[:5].tolist()} are not among the {len(self.index)} kept frames")
        return np.flatnonzero(np.isin(self.index, frames)).astype(np.int64)
