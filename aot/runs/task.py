"""A clip that needs processing, with everything that a worker has to know about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from aot.retry import Attempt, Rung
from aot.runs.fingerprint import Fingerprint
from aot.types import Clip


class Work(Enum):
    """What is left to do for a clip."""

    ALL = "all"
    OVERLAY = "overlay"
    """The result is complete; only its checksum, its scores, drawings or the report are missing."""
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

    is_scored: bool = False
    """Whether the ledgers have the SHA-256 and the scores of the clip's result."""

    is_recorded: bool = True
    """Whether the ledgers have a record of the result of a clip that is only drawn."""

    is_partial: bool = False
    """Whether some objects of a clip that is only drawn have failed."""

    is_retried: bool = False
    """Whether the clip failed before, completely or in some attempts that do not count any more."""

    after: str = ""
    """Time of the clip's latest event that was known when it was planned; empty if it had none."""

    result_state: tuple[int, int] | None = None
    """Size in bytes and modification time in ns of the clip's result when it was planned; None: there was none."""

    is_renamed: bool = False
    """Whether the names of the objects have changed since the result of a clip was written that is only drawn."""

    is_redone: bool = False
    """Whether the user has asked to compute the clip again although it has a current result."""

    is_replacing: bool = False
    """Whether the clip has a result of other prompts, which will be replaced."""

    is_suspect: bool = False
    """Whether a process died while it computed this clip and read another one ahead, or the reverse."""

    @property
    def is_pending(self) -> bool:
        """Whether a worker has something to do for the clip."""
        return self.work in (Work.ALL, Work.OVERLAY)

    @property
    def allows_reading_ahead(self) -> bool:
        """Whether it may be read ahead, and another clip while it is computed.

        A clip whose attempt was lost is repeated without either, so that it cannot be confused with another one.
        """
        return self.work is Work.ALL and not self.attempts and not self.is_suspect

    def start_fields(self, rung: Rung) -> dict[str, Any]:
        """The fields of a ledger event by which an attempt on a rung begins."""
        return {
            "clip_id": self.clip.clip_id,
            "content": self.fingerprint.digest,
            "work": self.work.value,
            "rung": rung.number,
            "frame_interval": rung.frame_interval,
            "lean": rung.lean,
        }

    def drawing(self, *, is_partial: bool, after: str) -> ClipTask:
        """What is left of the clip once its result is complete; failed attempts at drawing are counted separately.

        Args:
            is_partial: whether some of its objects have failed.
            after: time of the event that its result is complete.
        """
        return ClipTask(self.clip, Work.OVERLAY, self.fingerprint, is_partial=is_partial, after=after)
