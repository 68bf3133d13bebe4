"""Downloading files from huggingface.co with its own client."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from aot.errors import CheckpointError, WriteError
from aot.system.files import replacing, write_errors
from aot.system.os_errors import os_reason

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def download_from_hub(repository: str, path: Path, check: Callable[[Path], object]) -> None:
    """Download a file to the client's cache, check it, and link or copy it to `path`.

    The file in the cache and the one at `path` are hard links to one content where the file system allows it.

    Args:
        repository: such as facebook/cotracker3; the file is taken from its main branch.
        path: destination; its name is that of the file in the repository.
        check: raises CheckpointError if a file differs from the published one.
    Raises:
        CheckpointError: the file cannot be downloaded, or differs from the published one.
        WriteError: the folder or the cache cannot be written, or the disk is full.
    """
    cached = _download_to_cache(repository, path.name)
    with replacing(path) as part:
        with write_errors(path):
            _link_or_copy(cached.resolve(), part)
        try:
            check(part)
        except CheckpointError as error:
            # Otherwise the client would return the same content again.
            cached.resolve().unlink(missing_ok=True)
            cached.unlink(missing_ok=True)
            raise CheckpointError(
                f"{repository}/{path.name}: unexpected content: {error}; the download was discarded, try again"
            ) from error


def _download_to_cache(repository: str, name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library it uses
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return Path(hf_hub_download(repository, name))
    except (OSError, HTTPError, ValueError, RuntimeError) as exc:
        # Connection errors are OSErrors too, but have no file name.
        if isinstance(exc, OSError) and (exc.filename is not None or exc.errno in _DISK_FULL):
            raise WriteError(
                f"{constants.HF_HUB_CACHE} could not be written: {os_reason(exc)}; free some space there, or set "
                f"HF_HOME to another folder"
            ) from exc
        raise CheckpointError(
            f"{repository}/{name} could not be downloaded from {constants.ENDPOINT} ({_first_line(exc)}); run the "
            f"same command again, set HF_ENDPOINT to a mirror of huggingface.co, or give a web folder with the "
            f"file with --base-url"
        ) from exc


def _first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message; the client's own messages have many lines."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink()
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
