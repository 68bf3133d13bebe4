"""What every clip costs, about: frames × pixels × objects, told from headers or, in large datasets, from bytes."""

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

# A header takes some milliseconds, on a file server more: of a larger dataset so many evenly spread clips are looked
# into, and the others are judged by their bytes.
MAX_HEADERS = 1000
_READERS = 8


def find_sizes(
    clips: Sequence[Clip], contents: Mapping[str, Fingerprint], known: Mapping[str, Any]
) -> dict[str, ClipSize]:
    """Sizes of the clips, or of a fixed sample of many; a source that cannot be read has none.

    Args:
        clips: sorted by id.
        contents: of every clip.
        known: what an earlier run.json says of clips; sizes in it are taken over while their source is the same.
    """
    step = -(-len(clips) // MAX_HEADERS)
    sizes = {}
    unread = []
    for number, clip in enumerate(clips):
        record = known.get(clip.clip_id, {})
        if "num_frames" in record and contents[clip.clip_id].has_same_source(record):
            sizes[clip.clip_id] = size_from_json(record)
        elif number % step == 0:
            unread.append(clip)
    with ThreadPoolExecutor(_READERS) as readers:
        for clip, size in zip(unread, readers.map(lambda clip: _size(contents[clip.clip_id]), unread)):
            if size is not None:
                sizes[clip.clip_id] = size
    return sizes


def estimate_costs(
    clips: Sequence[Clip], contents: Mapping[str, Fingerprint], sizes: Mapping[str, ClipSize], frame_interval: int
) -> dict[str, float]:
    """Kept frames × pixels × objects of every clip; by its bytes where its size is not known."""
    per_byte = median(
        [_pixels(clip, sizes[clip.clip_id], frame_interval) / max(1, contents[clip.clip_id].size)
         for clip in clips if clip.clip_id in sizes] or [1.0]
    )  # fmt: skip
    return {
        clip.clip_id: max(1, len(clip.object_ids))
        * (
            _pixels(clip, sizes[clip.clip_id], frame_interval)
            if clip.clip_id in sizes
            else per_byte * max(0, contents[clip.clip_id].size)
        )
        for clip in clips
    }


def size_as_json(size: ClipSize) -> dict[str, Any]:
    """As run.json keeps it, beside the clip's content."""
    return {"num_frames": size.num_frames, "width": size.width, "height": size.height, "fps": size.fps}


def size_from_json(record: Mapping[str, Any]) -> ClipSize:
    return ClipSize(record["num_frames"], record["width"], record["height"], record["fps"])


def _pixels(clip: Clip, size: ClipSize, frame_interval: int) -> float:
    return float(num_kept_frames(size, clip, frame_interval) * size.width * size.height)


def _size(content: Fingerprint) -> ClipSize | None:
    return _read_once(content.source, content.size, content.mtime_ns)


@cache
def _read_once(source: str, size: int, mtime_ns: int) -> ClipSize | None:
    """A source's size, read once for all jobs of a sweep; None where it cannot be read: its worker will say why."""
    try:
        return read_size(Path(source))
    except DecodeError:
        return None
