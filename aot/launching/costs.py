"""Estimated cost of every clip: frames × pixels × objects, from headers or, in large datasets, from file sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from aot.decoding.size import ClipSize, num_kept_frames, read_size
from aot.errors import DecodeError
from aot.runs.fingerprint import Fingerprint
from aot.types import Clip

# Reading a header takes some milliseconds, more on a file server. In larger datasets this many clips, evenly spread,
# are opened, and the cost of the others is estimated from their size in bytes.
MAX_HEADERS = 1000
_NUM_READERS = 8


def recorded_sizes(
    clips: Sequence[Clip], fingerprints: Mapping[str, Fingerprint], records: Mapping[str, Any]
) -> dict[str, ClipSize]:
    """Sizes of the clips that an earlier run.json records, of sources that have not changed since.

    Args:
        clips: of the run.
        fingerprints: clip id → fingerprint of the clip.
        records: clip id → record in the earlier run.json.
    """
    sizes = {}
    for clip in clips:
        record = records.get(clip.clip_id, {})
        if "num_frames" in record and fingerprints[clip.clip_id].has_same_source(record):
            sizes[clip.clip_id] = size_from_json(record)
    return sizes


def find_sizes(
    clips: Sequence[Clip], fingerprints: Mapping[str, Fingerprint], recorded: Mapping[str, ClipSize]
) -> dict[str, ClipSize]:
    """Sizes of the clips, or of a fixed sample of a large dataset; a source that cannot be read has none.

    Args:
        clips: sorted by id.
        fingerprints: clip id → fingerprint of the clip.
        recorded: clip id → size, of the clips that need not be opened.
    """
    step = -(-len(clips) // MAX_HEADERS)
    sizes = dict(recorded)
    unread = [clip for number, clip in enumerate(clips) if clip.clip_id not in sizes and number % step == 0]
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        for clip, size in zip(unread, readers.map(lambda clip: _size(clip, fingerprints[clip.clip_id]), unread)):
            if size is not None:
                sizes[clip.clip_id] = size
    return sizes


def estimate_costs(
    clips: Sequence[Clip],
    fingerprints: Mapping[str, Fingerprint],
    sizes: Mapping[str, ClipSize],
    frame_interval: int,
    sample_fps: float | None = None,
) -> dict[str, float]:
    """Kept frames × pixels × objects of every clip; estimated from its bytes where its size is not known.

    Args:
        clips: of the run.
        fingerprints: clip id → fingerprint of the clip.
        sizes: clip id → size, of some of the clips.
        frame_interval, sample_fps: of the run.
    """

    def pixels(clip: Clip) -> float:
        size = sizes[clip.clip_id]
        return float(num_kept_frames(size, clip, frame_interval, sample_fps) * size.width * size.height)

    per_byte = median(
        [pixels(clip) / max(1, fingerprints[clip.clip_id].size)
         for clip in clips if clip.clip_id in sizes] or [1.0]
    )  # fmt: skip
    return {
        clip.clip_id: max(1, clip.num_objects)
        * (pixels(clip) if clip.clip_id in sizes else per_byte * max(0, fingerprints[clip.clip_id].size))
        for clip in clips
    }


def size_as_json(size: ClipSize) -> dict[str, Any]:
    """The size as run.json records it, beside the clip's fingerprint."""
    return {"num_frames": size.num_frames, "width": size.width, "height": size.height, "fps": size.fps}


def size_from_json(record: Mapping[str, Any]) -> ClipSize:
    return ClipSize(record["num_frames"], record["width"], record["height"], record["fps"])


def _size(clip: Clip, fingerprint: Fingerprint) -> ClipSize | None:
    return _read_once(fingerprint.source, clip.pattern, clip.stream, fingerprint.size, fingerprint.mtime_ns)


@cache
def _read_once(source: str, pattern: str | None, stream: int | None, size: int, mtime_ns: int) -> ClipSize | None:
    """A source's size, read once for all jobs of a sweep; None if it cannot be read: its worker will report why."""
    try:
        return read_size(Path(source), pattern, stream)
    except (DecodeError, OSError):
        return None
