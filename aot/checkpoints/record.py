"""The record beside a downloaded file whose SHA-256 is not published: the SHA-256 of its first download."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from aot.errors import CheckpointError
from aot.system.files import replacing, write_errors
from aot.system.os_errors import os_reason

_SUFFIX = ".sha256.json"


@dataclass(frozen=True)
class Record:
    """What was downloaded, and what is kept of it."""

    sha256: str
    """Of the file beside the record."""
    downloaded_sha256: str
    """Of the file as it was downloaded first; differs from `sha256` if it was reduced to its weights."""
    url: str
    """Where it was downloaded."""


def record_path(path: Path) -> Path:
    """The path of the record of a file."""
    return path.with_name(path.name + _SUFFIX)


def read_record(path: Path) -> Record | None:
    """The record of a file; None if there is none.

    Raises:
        CheckpointError: the record cannot be read.
    """
    own = record_path(path)
    try:
        return Record(**json.loads(own.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as exc:
        reason = os_reason(exc) if isinstance(exc, OSError) else "it is damaged"
        raise CheckpointError(f"{own} cannot be read: {reason}; delete it to record {path.name} again") from exc


def write_record(path: Path, record: Record) -> None:
    """Write the record of a file.

    Raises:
        WriteError: the folder cannot be written.
    """
    own = record_path(path)
    with replacing(own) as part, write_errors(own):
        part.write_text(json.dumps(asdict(record), indent=1) + "\n")
