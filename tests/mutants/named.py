"""Changes that once passed all tests, and changes that cannot be noticed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """A change of a module; `old` occurs exactly once in it."""

    module: str
    description: str
    old: str
    new: str


_VIDEO_FILE = "aot/decoding/video_file.py"
_PROBE = "aot/decoding/probe.py"
_COMPLETENESS = "aot/decoding/completeness.py"
_DISPLAYED = "aot/decoding/displayed.py"
_STREAMS = "aot/decoding/streams.py"
_PACKETS = "aot/decoding/packets.py"
_CORRELATION = "aot/tracking/cotracker3/correlation.py"
_STREAMING = "aot/segmentation/sam2/streaming.py"
_HDF5 = "aot/writing/hdf5.py"
_DISK = "aot/writing/disk.py"
_SCHEMA = "aot/writing/schema.py"
_READER = "aot/writing/reader.py"
_FILES = "aot/system/files.py"
_PLAN = "aot/launching/plan.py"
_RETRY = "aot/retry.py"
_TRACKS = "aot/evaluate/tracks.py"
_MASKS = "aot/evaluate/masks.py"
_ADAPTIVE = "aot/query_points/adaptive.py"
_SPREADING = "aot/query_points/spreading.py"
_MASK_FOLDERS = "aot/datasets/mask_folders.py"
_ANNOTATIONS = "aot/datasets/annotations.py"

NAMED = (
    Named(
        _VIDEO_FILE, "a frame that the decoder reports as damaged is accepted",
        "if decoded.is_corrupt:", "if False:",
    ),
    Named(_VIDEO_FILE, "no first frame taken before a seek", "if self._next == 0:", "if False:"),
    Named(
        _VIDEO_FILE, "a change of the orientation is accepted",
        "if orientation_of(decoded, self._path) != orientation:", "if False:",
    ),
    Named(_VIDEO_FILE, "the size is not checked", "if size != (self.width, self.height):", "if False:"),
    Named(_COMPLETENESS, "frames that the header lists are not missed", "< num_listed", "< 0"),
    Named(
        _PACKETS, "packets that FFmpeg marks as corrupt are accepted",
        "packet.is_corrupt or (", "False or (",
    ),
    Named(_PACKETS, "a first packet without a key frame is accepted", "if not rows[0].is_key:", "if False:"),
    Named(_COMPLETENESS, "hours counted as minutes", "3600 * hours", "60 * hours"),
    Named(_COMPLETENESS, "the file's duration used for one of two streams", " and len(container.streams) == 1", ""),
    Named(
        _PROBE, "a file replaced at equal size is not read again",
        "_probe(path, stream, path.absolute(), stat.st_size, stat.st_mtime_ns)",
        "_probe(path, stream, path.absolute(), stat.st_size, 0)",
    ),
    Named(
        _PROBE, "average rate of one frame too many",
        "num_steps, seconds = len(time) - 1,", "num_steps, seconds = len(time),",
    ),
    Named(_PROBE, "AVI files begin late", "(pts - delay) * time_base", "pts * time_base"),
    Named(_PROBE, "the shape of pixels is not turned", "1 / aspect if orientation.turns % 2 else aspect", "aspect"),
    Named(_DISPLAYED, "frames are not mirrored", "image[::-1] if self.is_mirrored else image", "image"),
    Named(_DISPLAYED, "a matrix of zeros is an angle", "if not (first and second):", "if False:"),
    Named(_DISPLAYED, "fields are converted on their own", "if frame.interlaced_frame else", "if False else"),
    Named(_DISPLAYED, "angles are not rounded", "-round(math.degrees(", "-int(math.degrees("),
    Named(_STREAMS, "covers are video streams", "if not stream.disposition & _PICTURES", "if True"),
    Named(_STREAMS, "the default stream is not preferred", "_DEFAULT_BONUS * bool(", "0 * bool("),
    Named(
        _CORRELATION, "y clamped by the width",
        "xy[..., 1].clamp(-TAPS, height + TAPS)", "xy[..., 1].clamp(-TAPS, width + TAPS)",
    ),
    Named(
        _CORRELATION, "y clamped to the columns",
        "(pixel[..., 1, None] + offsets).clamp_(0, height - 1)", "(pixel[..., 1, None] + offsets).clamp_(0, width - 1)",
    ),
    Named(_STREAMING, "one memory too many kept", "(self.num_maskmem - 2)", "(self.num_maskmem - 1)"),
    Named(
        _DISK, "a short write is not continued",
        "while self.error is None and rest:", "if self.error is None and rest:",
    ),
    Named(_DISK, "size of what is read back from memory", "size = max(size, end - start)", "pass"),
    Named(_DISK, "a failed truncate is forgotten", "self.error = self.error or exc", "pass"),
    Named(_DISK, "a failed write is forgotten", "self.error = exc", "pass"),
    Named(_READER, "files are locked", '{"locking": False}', "{}"),
    Named(_SCHEMA, "a row beyond the last", "set(range(len(result.index)))", "set(range(len(result.index) + 1))"),
    Named(
        _SCHEMA, "the shape of the masks is not checked",
        "if masks.shape != expected or masks.dtype != np.bool_:", "if masks.dtype != np.bool_:",
    ),
    Named(_READER, "the last row is not verified", "range(file[name].shape[0])", "range(file[name].shape[0] - 1)"),
    Named(_SCHEMA, "object id 0 allowed", "(objects < 1).any()", "(objects < 0).any()"),
    Named(_SCHEMA, "masks are not compressed", '"compression_opts": 1', '"compression_opts": 0'),
    Named(_HDF5, "a new file is not checked", "            check_file(part)\n", "            pass\n"),
    Named(_FILES, "the file is not flushed", "            _flush(part)\n", ""),
    Named(_FILES, "the folder is not flushed", "            _flush(path.parent)\n", ""),
    Named(
        _FILES, "copy in place of a rename",
        "            part.replace(path)\n", "            shutil.copy(part, path)\n",
    ),
    Named(
        _PLAN, "clips that fail again are retried by the same command",
        "        if not retries:\n            return self.context.tasks_for(clips)\n", "",
    ),
    Named(
        _PLAN, "stale records replace new ones",
        'dict(self.previous.get("clips", {}))\n', '{}\n',
    ),
    Named(_PLAN, "the date of creation is replaced", 'self.previous.get("created", now)', "now"),
    Named(
        _PLAN, "sources that no longer exist refuse the run",
        "if source.exists() and result.exists() and not is_same:", "if result.exists() and not is_same:",
    ),
    Named(
        _PLAN, "shards of equal numbers of clips",
        "pack(self.costs, shard.count)", "pack(dict.fromkeys(self.costs, 1.0), shard.count)",
    ),
    Named(_RETRY, "two stalls allowed", "STALLED: 1", "STALLED: 2"),
    Named(_RETRY, "attempts of other kinds are counted", "attempt.kind == last.kind and ", ""),
    Named(_RETRY, "attempts at other rungs are counted", " and attempt.rung == last.rung", ""),
    Named(_MASKS, "rounding of quarters", " + 1e-10", ""),
    Named(_TRACKS, "a position at the threshold counts", "raster_px < threshold", "raster_px <= threshold"),
    Named(_TRACKS, "a position at the threshold of PCK does not count", "<= limits", "< limits"),
    Named(_TRACKS, "threshold of PCK linear in the area", "np.sqrt(areas)", "(areas / 4)"),
    Named(
        _MASKS, "a value at the threshold of the recall counts",
        "array > _RECALL_THRESHOLD", "array >= _RECALL_THRESHOLD",
    ),
    Named(_ADAPTIVE, "points per part by another divisor", "(areas / (points + 1))", "(areas / (points + 2))"),
    Named(_SPREADING, "a margin larger by one", "np.minimum(margin_px + 1,", "np.minimum(margin_px + 2,"),
    Named(
        _SPREADING, "the frame's exterior counts as inside",
        "np.pad(mask, 1).astype", 'np.pad(mask, 1, mode="edge").astype',
    ),
    Named(
        _ADAPTIVE, "the first point is the shallowest",
        "int(depth[xy[:, 1], xy[:, 0]].argmax())", "int(depth[xy[:, 1], xy[:, 0]].argmin())",
    ),
    Named(_SPREADING, "what is near is ten times as far", "NEAR_MARGINS = 2", "NEAR_MARGINS = 20"),
    Named(
        _MASK_FOLDERS, "only the value 1 is the object",
        "mask = read_mask(path).any_object()", "mask = read_mask(path).values == 1",
    ),
    Named(
        _MASK_FOLDERS, "an empty merged mask becomes a prompt",
        "image.any_object())] if image.ids else []", "image.any_object())]",
    ),
    Named(_ANNOTATIONS, "masks in the order of the file names", "dict(sorted(numbered.items()))", "numbered"),
    Named(_MASK_FOLDERS, "all images are read without late_objects", "list(files)[:1]", "list(files)"),
)  # fmt: skip

_DISPLAYED = "aot/decoding/displayed.py"
_DECIDES = "return Orientation(turns, is_mirrored=(d < 0, c < 0, d >= 0, c > 0)[turns])"
_NOT_ZERO = "at this angle the number is not zero, because the length of the matrix's row is not"
_EMPTY_WINDOW = "the window of two empty masks has no pixel inside, whatever its size"

EQUIVALENT: dict[tuple[str, str], str] = {
    (_DISPLAYED, f"{_DECIDES} | d < 0 → d <= 0"): _NOT_ZERO,
    (_DISPLAYED, f"{_DECIDES} | c < 0 → c <= 0"): _NOT_ZERO,
    (_DISPLAYED, f"{_DECIDES} | d >= 0 → d > 0"): _NOT_ZERO,
    (_DISPLAYED, f"{_DECIDES} | c > 0 → c >= 0"): _NOT_ZERO,
    (_MASKS, "return slice(0, 1), slice(0, 1) | 0 → 1"): _EMPTY_WINDOW,
    (_MASKS, "return slice(0, 1), slice(0, 1) | 1 → 2"): _EMPTY_WINDOW,
    (_PROBE, "time = np.asarray((pts - delay) * time_base, dtype=np.float64) | argument dtype=np.float64 dropped"):
        "an array of integers times a float is of this type",
    (_SPREADING, "pixel_of = np.full(cell.max() + 1, -1, dtype=np.int64) | argument dtype=np.int64 dropped"):
        "the type of an array filled with an integer",
    (_SPREADING, "x, y = np.ascontiguousarray(xy.T, dtype=np.float32) | argument dtype=np.float32 dropped"):
        "squares of distances between pixels are exact in both types; this one is faster",
    (
        _MASKS,
        "return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall) | "
        "precision + recall → (precision)",
    ): "within a symmetric distance, one contour has a match if and only if the other has one",
}  # fmt: skip
"""Changes that no test can notice: (module, source line without indentation + " | " + description) → reason."""
