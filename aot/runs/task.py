"""One clip that is to be run, and all that a worker has to know of it."""

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
    NOTHING = "nothing"
    FAILED_BEFORE = "failed before"


@dataclass(frozen=True)
class ClipTask:
    """A clip and what it still needs."""

    clip: Clip
    work: Work
    content: Fingerprint
    attempts: tuple[Attempt, ...] = ()
    """Those that ended badly since the clip's last result or failure."""
