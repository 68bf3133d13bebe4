"""A clip that needs processing, with everything that a worker has to know about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from aot.retry import Attempt
from aot.runs.fingerprint import Fingerprint
from aot.types import Clip


class Work(Enum):
    """What is left to do for a clip."""

    ALL = "all"
    OVERLAY = "overlay"
    """The result is complete; only drawings or the report are missing."""
    NOTHING = "nothing"
    FAILED_BEFORE = "failed before"


@dataclass(frozen=True)
class ClipTask:
    """A clip and what it still needs."""

    clip: Clip
    work: Work
    fingerprint: Fingerprint
    attempts: tuple[Attempt, ...] = ()
    """Failed attempts since the clip's last result or failure, oldest first."""

    is_damaged: bool = False
    """Whether the clip has a result that was damaged after it was written."""

    @property
    def is_pending(self) -> bool:
        """Whether a worker has something to do for the clip."""
        return self.work in (Work.ALL, Work.OVERLAY)
