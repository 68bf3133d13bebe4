"""Downloading files from huggingface.co with its own client."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aot.errors import CheckpointError, WriteError
from aot.system.files import replacing, write_errors
from aot.system.os_errors import os_reason

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class RepositoryFile:
    """A file in a repository."""

    name: str
    num_bytes: int
    sha256: str | None
    """None: not published, as of small text files."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    revision: str
    """The commit."""
    licence: str
    """As the repository names it; empty: it names none."""
    files: tuple[RepositoryFile, ...]


def list_repository(name: str) -> Repository:
    """Ask huggingface.co for the files of a repository at the head of its main branch.

    Raises:
        CheckpointError: it cannot be reached, does not exist, or needs a login.
    """
    from huggingface_hub import HfApi

    with _client_errors(name, name):
        found = HfApi().model_info(name, files_metadata=True)
    licences = [tag.removeprefix("license:") for tag in found.tags or () if tag.startswith("license:")]
    files = [
        RepositoryFile(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else None)
        for each in found.siblings or ()
    ]
    return Repository(found.sha or "main", ", ".join(licences), tuple(files))


def file_from_hub(repository: str, path: Path, check: Callable[[Path], object], *, revision: str | None = None) -> None:
    """Download a file to the client's cache, check it, and link or copy it to `path`.

    The file in the cache and the one at `path` are hard links to one content where the file system allows it.

    Args:
        repository: such as facebook/cotracker3.
        path: destination; its name is that of the file in the repository.
        check: raises CheckpointError if a file differs from the published one.
        revision: the commit; None: the head of the main branch.
    Raises:
        CheckpointError: the file cannot be downloaded, or differs from the published one.
        WriteError: the folder or the cache cannot be written, or the disk is full.
    """
    cached = _download_to_cache(repository, path.name, revision)
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


def _download_to_cache(repository: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    with _client_errors(repository, f"{repository}/{name}"):
        return Path(hf_hub_download(repository, name, revision=revision))


@contextmanager
def _client_errors(repository: str, what: str) -> Iterator[None]:
    """Map the errors of the client; `what` is downloaded."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HTTPError  # type: ignore[attr-defined]  # the last: of its HTTP library

    try:
        yield
    except GatedRepoError as exc:
        raise CheckpointError(
            f"{what} needs a login: accept its licence at {constants.ENDPOINT}/{repository}, then log in with "
            f"`hf auth login` or set HF_TOKEN, and run the same command again"
        ) from exc
    except (OSError, HTTPError, ValueError, RuntimeError) as exc:
        # Connection errors are OSErrors too, but have no file name.
        if isinstance(exc, OSError) and (exc.filename is not None or exc.errno in _DISK_FULL):
            raise WriteError(
                f"{constants.HF_HUB_CACHE} could not be written: {os_reason(exc)}; free some space there, or set "
                f"HF_HOME to another folder"
            ) from exc
        raise CheckpointError(
            f"{what} could not be downloaded from {constants.ENDPOINT} ({_first_line(exc)}); run the "
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
