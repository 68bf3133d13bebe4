"""How one clip ended, as workers tell those who watch them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aot.pipeline import ClipSummary


@dataclass(frozen=True)
class Outcome:
    """How one clip ended."""

    clip_id: str
    state: str
    """done, partial (some objects failed; the file is whole) or failed."""
    summary: ClipSummary | None = None
    """None for a failed clip, and for one of which only the overlay was missing."""
    failure: dict[str, Any] | None = None
    """What `failures/<clip_id>.json` holds."""
