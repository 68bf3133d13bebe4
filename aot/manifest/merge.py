"""Add imported objects to a manifest that exists, whose comments and entries are preserved."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aot.manifest.assign import best_pattern
from aot.manifest.edit_file import ManifestFile, version_of
from aot.manifest.schema import ClipEntry
from aot.system.files import replacing, write_errors
from aot.system.text import counted


def merge_manifest(path: Path, imported: Mapping[str, Any]) -> tuple[str, ...]:
    """Add the objects of an imported manifest to the file, which is replaced at once when all have been added.

    An object whose id the clip already has is not added. A clip that has had its prompts from a pattern gets an entry
    of its own, with the objects of the pattern.

    Args:
        path: the manifest, YAML or JSON.
        imported: content of a valid manifest.
    Returns:
        What was not added, and entries that replace a pattern, as messages.
    Raises:
        ConfigError: the file is not a valid manifest, or cannot be edited.
        WriteError: the file cannot be written.
    """
    notes = []
    target = path.resolve()  # write through a link instead of replacing it
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"merged{path.suffix}"
        shutil.copyfile(target, copy)
        file = ManifestFile(copy)
        patterns = [key for key in file.entries if any(char in key for char in "*?[")]
        for clip_id, content in imported["clips"].items():
            entry = ClipEntry.model_validate(content)
            current = file.entries.get(clip_id)
            pattern = best_pattern(clip_id, patterns) if current is None else None
            base = file.entries[pattern] if pattern else current
            known = {item.id for item in base.objects} if base else set()
            added = tuple(item for item in entry.objects if item.id not in known)
            if len(added) < len(entry.objects):
                kept = counted(len(entry.objects) - len(added), "object")
                notes.append(f"clip {clip_id!r}: {kept} not added, because it has objects with the same ids")
            if not added:
                continue
            if pattern:
                notes.append(f"clip {clip_id!r}: has its own entry now, with the objects of the pattern {pattern!r}")
            merged = ClipEntry(objects=(*(base.objects if base else ()), *added))
            file.save(clip_id, merged, version_of(current))
        with replacing(target) as part, write_errors(target):
            part.write_bytes(copy.read_bytes())
            shutil.copymode(target, part)
    return tuple(notes)
