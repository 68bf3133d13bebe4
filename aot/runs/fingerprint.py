"""The fingerprint of a clip's source and prompts, by which a re-run recognises clips that have changed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aot.manifest.serialize import prompts_digest
from aot.system.listing import is_ignored
from aot.types import Clip, MaskFile, Prompt


@dataclass(frozen=True)
class Fingerprint:
    """A clip's source and prompts when the run was planned; cheap, because no video is read."""

    source: str
    """Absolute path."""
    size: int
    """Bytes; of a frame folder, the sum over its files that are not hidden; -1 if the source does not exist."""
    mtime_ns: int
    """Latest modification, in ns since 1970."""
    prompts_sha256: str
    unnamed_sha256: str = ""
    """Of the prompts without the names of the objects, which do not change what is computed; empty in records of
    earlier versions."""

    @classmethod
    def of(cls, clip: Clip) -> Fingerprint:
        source = os.path.abspath(clip.source)  # noqa: PTH100 (symbolic links are kept)
        return cls(source, *size_and_time(clip.source), *_LATEST.of(clip.prompts))

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Fingerprint:
        """The fingerprint in a clip's record of run.json."""
        digests = record["prompts_sha256"], record.get("unnamed_sha256", "")
        return cls(record["source"], record["size"], record["mtime_ns"], *digests)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def has_same_source(self, recorded: dict[str, Any]) -> bool:
        """Whether the source has the size and modification time that an earlier run recorded."""
        return (self.size, self.mtime_ns) == (recorded.get("size"), recorded.get("mtime_ns"))

    def matches(self, recorded: dict[str, Any]) -> bool:
        """Whether source (by size and modification time) and prompts are those that an earlier run recorded."""
        return self.has_same_source(recorded) and self.has_same_prompts(recorded)

    def has_same_prompts(self, recorded: dict[str, Any]) -> bool:
        """Whether the prompts are those that an earlier run recorded, except for the names of the objects."""
        unnamed = recorded.get("unnamed_sha256")
        return self.has_same_names(recorded) or (bool(unnamed) and self.unnamed_sha256 == unnamed)

    def has_same_names(self, recorded: dict[str, Any]) -> bool:
        """Whether the prompts are those that an earlier run recorded, names included."""
        return bool(self.prompts_sha256 == recorded.get("prompts_sha256"))

    @property
    def digest(self) -> str:
        """The fingerprint in 12 hexadecimal digits, for ledgers."""
        return hashlib.sha256(f"{self.size} {self.mtime_ns} {self.prompts_sha256}".encode()).hexdigest()[:12]


class _Digests:
    """The digests of prompts, with and without names; most clips of a large dataset share those of the clip before."""

    def __init__(self) -> None:
        self._latest: tuple[tuple[Prompt, ...], tuple[str, str]] | None = None

    def of(self, prompts: tuple[Prompt, ...]) -> tuple[str, str]:
        if self._latest is not None and self._latest[0] is prompts:
            return self._latest[1]
        digests = prompts_digest(prompts), prompts_digest(prompts, with_names=False)
        # Mask files may change at any time.
        is_kept = not any(isinstance(prompt.mask, MaskFile) for prompt in prompts)
        self._latest = (prompts, digests) if is_kept else None
        return digests


_LATEST = _Digests()


def size_and_time(source: Path) -> tuple[int, int]:
    """Size in bytes and latest modification in ns since 1970 of a file, or of the files in a folder of frames."""
    try:
        if not source.is_dir():
            stat = source.stat()
            return stat.st_size, stat.st_mtime_ns
        with os.scandir(source) as entries:
            stats = [entry.stat() for entry in entries if not is_ignored(entry.name) and entry.is_file()]
        return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
    except OSError:
        return -1, 0
