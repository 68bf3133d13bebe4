"""The weights that a part uses: locating a file, identifying it by its content, and reading it safely."""

from __future__ import annotations

import pickle
import struct
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from aot.checkpoints.folder import FOLDER_VARIABLE, weights_folder
from aot.checkpoints.record import read_record
from aot.checkpoints.table import CHECKPOINTS, Checkpoint
from aot.errors import CheckpointError
from aot.system.hashing import sha256_of
from aot.system.os_errors import os_reason

# What torch.load raises on files that are truncated, damaged or of another format.
_DAMAGED = (
    OSError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, pickle.UnpicklingError, zipfile.BadZipFile,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """A file of weights that a part uses, as results record it."""

    file: str
    """The file name, without its folder."""
    sha256: str
    checkpoint: str | None
    """The name of the published checkpoint with the same content; None for other files."""
    licence: str | None
    """The licence of the published checkpoint; None for other files."""


def require_checkpoint(name: str, given: Path | None, *, option: str, without: str) -> Path:
    """Return the path of a model's weights.

    Args:
        name: the checkpoint's name in the table.
        given: the user's own file; None: the published file in the folder of weights.
        option: the configuration key for the user's own file.
        without: the override that selects a model without weights.
    Raises:
        CheckpointError: the file does not exist; the message names the download command and the alternatives.
    """
    path = given or weights_folder() / CHECKPOINTS[name].file
    if path.is_file():
        return path
    raise CheckpointError(
        f"{option}: no weights at {path.absolute()}; download them with `python -m aot.checkpoints download {name}`, "
        f"give a file with {option}=FILE or their folder with {FOLDER_VARIABLE}=FOLDER in the environment, or use a "
        f"model without weights: {without}"
    )


def identify(path: Path) -> Weights:
    """Identify a file of weights by its SHA-256.

    Raises:
        CheckpointError: the file cannot be read.
    """
    digest = sha256_once(path)
    published = next(
        (known for known in CHECKPOINTS.values() if digest == (known.sha256 or _recorded(known, path))), None
    )
    return Weights(
        file=path.name,
        sha256=digest,
        checkpoint=published.name if published else None,
        licence=published.licence if published else None,
    )


def sha256_once(path: Path) -> str:
    """The SHA-256 of a file of weights, which is cached per process while size and time stay the same.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        stat = path.stat()
        return _known_sha256(path.absolute(), stat.st_size, stat.st_mtime_ns)
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {os_reason(exc)}; expected a file of model weights") from exc


def _recorded(checkpoint: Checkpoint, path: Path) -> str | None:
    """The SHA-256 recorded beside a file that has a checkpoint's name; None if there is none."""
    record = read_record(path) if path.name == checkpoint.file else None
    return record.sha256 if record else None


@lru_cache(maxsize=32)
def _known_sha256(path: Path, num_bytes: int, mtime_ns: int) -> str:
    """The SHA-256 of a file; size and modification time are part of the cache key."""
    return sha256_of(path)


class _WrongChecksum(zipfile.BadZipFile):
    """A part of the file has changed since it was written."""


def _reason(error: Exception) -> str:
    """Why a file cannot be read as weights, in plain words."""
    if isinstance(error, _WrongChecksum):
        return f"it is damaged, {error}"
    return os_reason(error, otherwise="it is damaged, cut off, or contains something else than weights")


def read_state_dict(path: Path, *, key: str = "model") -> dict[str, Any]:
    """Read a PyTorch state dict without executing code from the file.

    torch.load does not verify checksums: it would load a file with a flipped bit. Therefore they are verified first.

    Args:
        path: of the file, which contains the state dict at the top level or under a key.
        key: the key.
    Returns:
        Parameter name → tensor on the CPU.
    Raises:
        CheckpointError: the file cannot be read, is damaged, or contains something else.
    """
    import torch

    try:
        if zipfile.is_zipfile(path):  # torch's current format; its older one has no checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise _WrongChecksum(f"the checksum of its entry {damaged} is wrong")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as exc:
        raise CheckpointError(
            f"{path} cannot be read as PyTorch weights: {_reason(exc)}; check it with "
            f"`python -m aot.checkpoints verify`, or delete it and download it again"
        ) from exc
    weights = loaded.get(key, loaded) if isinstance(loaded, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        found = ", ".join(map(str, loaded)) if isinstance(loaded, dict) else type(loaded).__name__
        raise CheckpointError(
            f"{path} holds no state dict, neither at the top level nor under the key {key!r} (found: {found[:200]}); "
            f"expected PyTorch weights"
        )
    return weights
