"""SHA-256 of files and folders: sources, weights, results."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aot.system.listing import visible_entries

_READ_BYTES = 2**20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and contents of its files, sorted by name, without hidden ones."""
    digest = hashlib.sha256()
    for file_path in [file for file in visible_entries(path) if file.is_file()] if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file_path.name.encode() + b"\0")
        with file_path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
