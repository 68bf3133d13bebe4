"""The prompt manifest as a file that people and the page change by turns.

A change that somebody else makes on the disk is taken in; where it concerns the same clip it is told, not overwritten.
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


class ManifestConflict(PromptError):
    """Somebody else has changed the same entry since it was read."""

    def __init__(self, clip_id: str, theirs: ClipEntry | None) -> None:
        super().__init__(f"clip {clip_id!r}: its prompts have been changed on the disk since they were read here")
        self.theirs = theirs
        """The entry as it is now; None: it was deleted."""


class ManifestFile:
    """A manifest, YAML or JSON, of which one entry at a time is changed.

    Args:
        path: need not exist yet.
    Raises:
        ConfigError: what is there is not a manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: Mapping[str, ClipEntry] = {}
        """Of clips and patterns, those that the dataset does not have among them."""
        self._content: bytes | None = None
        self._signature: tuple[int, ...] | None = None
        self._text: ManifestText | None = None
        self._lock = RLock()
        self.refresh()

    @property
    def revision(self) -> str:
        """Changes with the file's content."""
        return hashlib.sha256(self._content or b"").hexdigest()[:16]

    def refresh(self) -> bool:
        """Take in what others changed; returns whether there was anything.

        Raises:
            ConfigError: what is there now is not a manifest; what was known before stays known.
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
        """Write one clip's entry, or take it out.

        Args:
            clip_id: its key.
            entry: None takes it out.
            expected: `version_of` the entry from which the change started.
        Raises:
            ManifestConflict: the entry on the disk is another one by now.
            ConfigError: what is on the disk is no manifest any more, or one that cannot be changed without harm.
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
        target = self.path.resolve()  # a link stays one
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
        # What is remembered is good as long as nothing has gone wrong.
        known, self._text = self._text or ManifestText(text), None
        known.replace(clip_id, entry, self.entries)
        self._text = known
        return known.text.encode()

    def _decoded(self, content: bytes) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError as exc:
            raise ConfigError(f"prompt manifest {self.path}: not UTF-8 text: {exc}") from exc

    def _read(self) -> bytes | None:
        """What is on the disk; None where nothing is, an empty file among it."""
        try:
            content = self.path.read_bytes()
            return content if content.strip() else None
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ConfigError(f"prompt manifest {self.path} cannot be read: {exc}") from exc

    def _stat(self) -> tuple[int, ...] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def version_of(entry: ClipEntry | None) -> str:
    """Short, and another one for every other entry."""
    written = None if entry is None else entry.model_dump(mode="json")
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]


def _in_known_order(entry: ClipEntry | None, current: ClipEntry | None) -> ClipEntry | None:
    """The entry with its objects where the file has them, new ones behind."""
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
