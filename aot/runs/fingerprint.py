"""What a clip is made of, so that a re-run can tell a finished clip from one that has changed since."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aot.manifest.serialize import prompts_digest
from aot.types import Clip


@dataclass(frozen=True)
class Fingerprint:
    """A clip's source and prompts at the time of planning; cheap to make, no video is read."""

    source: str
    """Absolute path."""
    size: int
    """Bytes, of all frames of a frame folder; -1 when the source is not there."""
    mtime_ns: int
    """Latest modification."""
    prompts_sha256: str

    @classmethod
    def of(cls, clip: Clip) -> Fingerprint:
        size, mtime_ns = _size_and_time(clip.source)
        return cls(os.path.abspath(clip.source), size, mtime_ns, prompts_digest(clip.prompts))  # noqa: PTH100 (links stay)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Fingerprint:
        """As run.json keeps it, among other things."""
        return cls(record["source"], record["size"], record["mtime_ns"], record["prompts_sha256"])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def has_same_source(self, known: dict[str, Any]) -> bool:
        """Whether its source is, by size and time, what an earlier run recorded."""
        return (self.size, self.mtime_ns) == (known.get("size"), known.get("mtime_ns"))

    def looks_like(self, known: dict[str, Any]) -> bool:
        """Whether it is, by size, time and prompts, what an earlier run recorded."""
        return self.has_same_source(known) and self.prompts_sha256 == known.get("prompts_sha256")

    @property
    def digest(self) -> str:
        """All of it in a few letters, for ledgers."""
        return hashlib.sha256(f"{self.size} {self.mtime_ns} {self.prompts_sha256}".encode()).hexdigest()[:12]


def _size_and_time(source: Path) -> tuple[int, int]:
    try:
        if not source.is_dir():
            stat = source.stat()
            return stat.st_size, stat.st_mtime_ns
        with os.scandir(source) as entries:
            stats = [entry.stat() for entry in entries if entry.is_file()]
        return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
    except OSError:
        return -1, 0
