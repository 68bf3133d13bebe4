"""Reducing a file of weights that also holds what only training needs, such as the optimizer's state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aot.checkpoints.record import read_record, write_record
from aot.checkpoints.weights import read_state_dict
from aot.errors import CheckpointError
from aot.system.files import replacing
from aot.system.hashing import sha256_of

WEIGHTS_KEY = "state_dict"


def keep_only_weights(path: Path) -> int:
    """Replace a file by one that holds only its state dict, and record the SHA-256 of both.

    Returns:
        Bytes by which the file has become smaller; 0 if it had been reduced before.
    Raises:
        CheckpointError: the file cannot be read, or has no record of its download.
        WriteError: the folder cannot be written, or the disk is full.
    """
    import torch

    record = read_record(path)
    if record is None:
        raise CheckpointError(f"{path} has no record of its download; download it again to reduce it to its weights")
    if record.sha256 != record.downloaded_sha256:
        return 0
    num_bytes = path.stat().st_size
    weights = read_state_dict(path, key=WEIGHTS_KEY)
    with replacing(path) as part:
        # Copies, because a tensor that is part of a larger storage is saved with all of it.
        torch.save({WEIGHTS_KEY: {key: value.clone() for key, value in weights.items()}}, part)
        digest = sha256_of(part)
    write_record(path, replace(record, sha256=digest))
    return num_bytes - path.stat().st_size
