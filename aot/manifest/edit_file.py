"""A manifest file that people and the prompt page edit concurrently.

Changes on disk are loaded; a change of the same clip is reported as a conflict and not overwritten.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from typing import Any

from aot.errors import ConfigError, PromptError
from aot.manifest.edit_text import ManifestText, plain_entry
from aot.manifest.read import parse_manifest
from aot.manifest.schema import ClipEntry
from aot.system.files import replacing, write_errors
from aot.system.os_errors import os_problem
from aot.system.text_files import MalformedFile, decode_text


class ManifestConflict(PromptError):
    """The same entry has changed on disk since it was read.

    Args:
        clip_id: key of the entry.
        theirs: the entry on disk now; None: it was deleted.
    """

    def __init__(self, clip_id: str, theirs: ClipEntry | None) -> None:
        super().__init__(
            f"clip {clip_id!r}: its prompts have changed on disk since they were read; compare and save again"
        )
        self.theirs = theirs


class ManifestFile:
    """A manifest, YAML or JSON, edited one entry at a time.

    Args:
        path: the manifest; the file need not exist yet.
    Raises:
        ConfigError: the file is not a valid manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: Mapping[str, ClipEntry] = {}
        """By clip id or pattern, including those without a clip in the dataset."""
        self._content: bytes | None = None
        self._signature: tuple[int, ...] | None = None
        self._text: ManifestText | None = None
        self._lock = RLock()
        self.refresh()

    @property
    def revision(self) -> str:
        """A short hash of the file's content."""
        return hashlib.sha256(self._content or b"").hexdigest()[:16]

    def refresh(self) -> bool:
        """Read the file again if it has changed; returns whether its content differs.

        Raises:
            ConfigError: the file is no longer a valid manifest; the entries read before are kept.
        """
        with self._lock:
            signature = self._stat()
            if signature is not None and signature == self._signature:
                return False
            content = self._read()
            is_new = content != self._content
            if is_new:
                entries = {} if content is None else parse_manifest(self._decoded(content), self.path).clips
                self._content, self.entries, self._text = content, entries, None
            self._signature = signature
            return is_new

    def save(self, clip_id: str, entry: ClipEntry | None, expected: str) -> None:
        """Write or remove the entry of one clip.

        Args:
            clip_id: key of the entry.
            entry: the new entry; None removes it.
            expected: `version_of` the entry that was edited.
        Raises:
            ManifestConflict: the entry on disk has changed.
            ConfigError: the file on disk is not a valid manifest, or cannot be edited without changing other entries.
            WriteError: the file cannot be written.
        """
        with self._lock:
            self.refresh()
            self._save(clip_id, entry, expected)

    def _save(self, clip_id: str, entry: ClipEntry | None, expected: str) -> None:
        current = self.entries.get(clip_id)
        if version_of(current) != expected:
            raise ManifestConflict(clip_id, current)
        entry = _in_known_order(entry, current)
        if current == entry:
            return
        changed = self._changed(clip_id, entry)
        target = self.path.resolve()  # write through a link instead of replacing it
        with replacing(target) as part:
            with write_errors(target):
                part.write_bytes(changed)
                if target.exists():
                    shutil.copymode(target, part)
            if self._read() != self._content:
                self._text = None
                raise ManifestConflict(clip_id, current)
        others = {key: other for key, other in self.entries.items() if key != clip_id}
        self.entries = others if entry is None else {**others, clip_id: entry}
        self._content, self._signature = changed, self._stat()

    def _changed(self, clip_id: str, entry: ClipEntry | None) -> bytes:
        """The file's bytes with the entry replaced."""
        text = "" if self._content is None else self._decoded(self._content)
        if self.path.suffix == ".json":
            return _changed_json(text, clip_id, entry).encode()
        # Kept for the next change only if this one succeeds.
        known, self._text = self._text or ManifestText(text), None
        known.replace(clip_id, entry, self.entries)
        self._text = known
        return known.text.encode()

    def _decoded(self, content: bytes) -> str:
        try:
            return decode_text(content)
        except MalformedFile as exc:
            raise ConfigError(exc.about(f"prompt manifest {self.path}")) from exc

    def _read(self) -> bytes | None:
        """The file's content; None if the file is empty or does not exist."""
        try:
            content = self.path.read_bytes()
            return content if content.strip() else None
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ConfigError(f"prompt manifest {self.path} cannot be read: {os_problem(exc)}") from exc

    def _stat(self) -> tuple[int, ...] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def version_of(entry: ClipEntry | None) -> str:
    """A short hash of an entry."""
    written = None if entry is None else entry.model_dump(mode="json")
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]


def _in_known_order(entry: ClipEntry | None, current: ClipEntry | None) -> ClipEntry | None:
    """The entry with its objects in the order of the file; new ones come last."""
    if entry is None or current is None:
        return entry
    known = [(item.id, item.frame) for item in current.objects]
    place = {key: number for number, key in enumerate(known)}
    return ClipEntry(
        objects=tuple(sorted(entry.objects, key=lambda item: place.get((item.id, item.frame), len(known))))
    )


def _changed_json(text: str, clip_id: str, entry: ClipEntry | None) -> str:
    content: dict[str, Any] = json.loads(text) if text else {"clips": {}}
    if entry is None:
        del content["clips"][clip_id]
    else:
        content["clips"][clip_id] = plain_entry(entry)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
