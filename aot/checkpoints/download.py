"""Downloading published weights, with a check of size and SHA-256 before a file gets its final name."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from aot.checkpoints.hub import file_from_hub
from aot.checkpoints.record import Record, read_record, record_path, write_record
from aot.checkpoints.table import Checkpoint
from aot.errors import CheckpointError
from aot.system.files import PART_SUFFIX, write_errors
from aot.system.hashing import sha256_of
from aot.system.os_errors import os_reason

BASE_URL_VARIABLE = "AOT_CHECKPOINTS_URL"
"""The environment variable that gives the default of --base-url."""

_CHUNK_BYTES = 2**20
_TIMEOUT_SECONDS = 60
_MAX_ATTEMPTS = 5


def check(checkpoint: Checkpoint, path: Path, expected: str | None = None) -> str:
    """Check a file's size and SHA-256.

    Args:
        checkpoint: the published file.
        path: of the local file.
        expected: SHA-256; None: the published one, or else the one recorded beside the file.
    Returns:
        The SHA-256 of the file.
    Raises:
        CheckpointError: the file is missing, cannot be read, or differs from the published or recorded one.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    try:
        size, digest = path.stat().st_size, sha256_of(path)
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {os_reason(exc)}; expected a file of model weights") from exc
    if checkpoint.num_bytes is not None and size != checkpoint.num_bytes:
        raise CheckpointError(f"{path} has {size} bytes, expected {checkpoint.num_bytes}")
    expected = expected or checkpoint.sha256
    if expected is None:
        record = read_record(path)
        expected = record.sha256 if record else digest
    if digest != expected:
        raise CheckpointError(f"{path} has the SHA-256 {digest}, expected {expected}")
    return digest


def download(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    base_url: str | None = None,
    report: Callable[[str], None] = print,
    on_bytes: Callable[[int], None] = lambda num_bytes: None,
) -> Path:
    """Download one file; it gets its final name only when its size and SHA-256 are those of the table.

    Where no SHA-256 is published, that of the first download is reported and recorded beside the file, and later
    downloads are compared with it.

    A file on huggingface.co is downloaded with its client, which honours HF_ENDPOINT (mirrors), HF_TOKEN, HF_HOME (a
    cache that other checkouts share) and HF_HUB_OFFLINE. Other files, and all files with a `base_url`, are downloaded
    to `<file>.part`, and a later call resumes where an earlier one stopped.

    Args:
        checkpoint: the file to download.
        folder: destination; created if missing.
        base_url: the address of a folder with the file, used instead of the published one.
        report: called with a line of text before a retry.
        on_bytes: called with the number of bytes downloaded so far; not for files on huggingface.co, whose client
            shows its own progress bar.
    Returns:
        The path of the file.
    Raises:
        CheckpointError: the server cannot be reached or lacks the file, or the content differs from the published one.
        WriteError: the folder cannot be written, or the disk is full.
    """
    path = folder / checkpoint.file
    if base_url is None and checkpoint.hub_repository is not None:
        file_from_hub(checkpoint.hub_repository, path, partial(check, checkpoint))
        return path
    part = path.with_name(path.name + PART_SUFFIX)
    url = f"{(base_url or checkpoint.url).rstrip('/')}/{checkpoint.file}"
    with write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    fetch_with_retries(checkpoint, url, part, report, on_bytes)
    record = read_record(path) if checkpoint.sha256 is None else None
    try:
        digest = check(checkpoint, part, record.downloaded_sha256 if record else None)
    except CheckpointError as error:
        # Resuming would keep the wrong bytes: the next attempt has to start from zero.
        part.unlink(missing_ok=True)
        raise CheckpointError(f"{url}: unexpected content: {error}; the download was discarded, try again") from error
    with write_errors(path):
        part.replace(path)
    if checkpoint.sha256 is None:
        write_record(path, Record(sha256=digest, downloaded_sha256=digest, url=url))
        report(f"{checkpoint.name}: no SHA-256 is published; that of this file is {digest}, see {record_path(path)}")
    return path


def fetch_with_retries(
    checkpoint: Checkpoint, url: str, part: Path, report: Callable[[str], None], on_bytes: Callable[[int], None]
) -> None:
    """Append the missing bytes of a file to a part file; arguments as in `download`.

    Raises:
        CheckpointError: the server cannot be reached, lacks the file, or interrupts every attempt.
        WriteError: the part cannot be written.
    """
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            _fetch(url, part, checkpoint.num_bytes, on_bytes)
            return
        except HTTPError as exc:
            raise CheckpointError(f"{url}: the server answered {exc.code} {exc.reason}; try again later") from exc
        except (URLError, HTTPException, TimeoutError, ConnectionError, _InterruptedTransfer) as exc:
            is_unreachable = isinstance(exc, URLError)
            if attempt < _MAX_ATTEMPTS:
                problem = "could not be reached" if is_unreachable else f"was interrupted at {size_of(part)} bytes"
                report(f"{checkpoint.name}: {problem} ({_network_reason(exc)}); trying again")
                time.sleep(_pause_seconds(attempt))
                continue
            if is_unreachable:
                raise CheckpointError(
                    f"{url} could not be reached in {_MAX_ATTEMPTS} attempts ({_network_reason(exc)}); try it on a "
                    f"machine with internet access, or give a mirror with --base-url or {BASE_URL_VARIABLE}"
                ) from exc
            raise CheckpointError(
                f"{url}: the transfer was interrupted {_MAX_ATTEMPTS} times ({_network_reason(exc)}); run the same "
                f"command again to resume after {size_of(part)} bytes"
            ) from exc


class _InterruptedTransfer(Exception):
    """The connection ended before the end of the file."""


def _fetch(url: str, part: Path, num_bytes: int | None, on_bytes: Callable[[int], None]) -> None:
    """Append the missing bytes to a part file."""
    have = size_of(part)
    if num_bytes is not None and have >= num_bytes:
        return  # complete or too long; the caller checks it
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 (URLs of the table, or the user's own)
    try:
        response: HTTPResponse = urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
    except HTTPError as exc:
        if exc.code == 416 and have:  # the part is complete or too long; the caller checks it
            return
        raise
    with response:
        is_resumed = response.status == 206  # a server without ranges sends the file from its beginning
        announced = response.headers.get("Content-Length")
        received = 0
        with write_errors(part), part.open("ab" if is_resumed else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                received += len(chunk)
                on_bytes(file.tell())
    if announced is not None and received < int(announced):
        raise _InterruptedTransfer(f"received {received} of {announced} bytes")
    if num_bytes is not None and size_of(part) < num_bytes:
        raise _InterruptedTransfer(f"received {size_of(part)} of {num_bytes} bytes")


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)
    except OSError as exc:  # of the connection; errors of the disk are raised where the file is written
        raise _InterruptedTransfer(_network_reason(exc)) from exc


def _network_reason(error: Exception) -> str:
    """Why a connection failed, in plain words."""
    cause = error.reason if isinstance(error, URLError) else error
    # The numbers of these two errors are not those of the operating system.
    if isinstance(cause, socket.gaierror | ssl.SSLError):
        return str(cause.strerror or "the connection is not secure")
    return os_reason(cause) if isinstance(cause, OSError) else str(cause)


def _pause_seconds(attempt: int) -> float:
    return float(2 ** (attempt - 1)) / 2


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0
