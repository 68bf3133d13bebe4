"""The role of a writer: it stores one clip's results as they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from aot.images.compact import CompactMask
from aot.lifetimes import Lifetimes
from aot.types import BoolArray, Float64Array, MaskBlock, QueryPoints, Tracks


class ClipWriter(Protocol):
    """One clip's file while it is being written; it gets its name when the context manager ends without an error."""

    def write_masks(self, block: MaskBlock) -> None:
        """Store masks of some frames and objects; each (frame, object) at most once, in any order.

        They may be stored later, by a thread: the arrays of the block must not be changed.

        Raises:
            WriteError: the disk is full or has failed, perhaps for an earlier block; the other methods raise it too.
        """
        ...

    def masks(self, frame: int) -> tuple[CompactMask, ...] | None:
        """The K masks given so far for a source frame, empty for other objects; None if the clip has none on it."""
        ...

    def write_tracks(
        self,
        tracks: Tracks,
        queries: QueryPoints,
        in_mask: BoolArray,
        lifetimes: Lifetimes,
        coverage: Float64Array,
    ) -> None:
        """Store the tracks; called once.

        Args:
            tracks: T rows, N points.
            queries: the N query points that they started from.
            in_mask: (T, N) whether each position lies in its own object's mask.
            lifetimes: of the N tracks.
            coverage: (T, K) fraction of each object's mask that its valid points cover; NaN without a mask.
        """
        ...

    def write_provenance(self, attributes: Mapping[str, Any], object_errors: Mapping[int, str]) -> None:
        """Store the root attributes and the errors of failed objects; called once, last.

        Args:
            attributes: name → number or text; docs/hdf5.md lists them.
            object_errors: object id → message, of the objects that failed.
        """
        ...
