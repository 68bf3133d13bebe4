"""The writer: takes one clip's results as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from aot.types import BoolArray, MaskBlock, QueryPoints, Tracks


class ClipWriter(Protocol):
    """One clip's file in the making; it gets its name when the context that made it ends without an error."""

    def write_masks(self, block: MaskBlock) -> None:
        """Store masks of some frames and objects; each (frame, object) at most once, in any order."""
        ...

    def read_masks(self, frame: int) -> BoolArray | None:
        """Masks stored for a source frame, (K, H, W); None where the clip has no masks on that frame."""
        ...

    def write_tracks(self, tracks: Tracks, queries: QueryPoints, in_mask: BoolArray) -> None:
        """Store the tracks, once."""
        ...

    def write_provenance(self, attributes: Mapping[str, Any], object_errors: Mapping[int, str]) -> None:
        """Store how the results came about, and the error of every object that failed."""
        ...
