"""Model weights: where they come from, what they weigh, whose licence they carry.

python -m aot.checkpoints list                              what there is, and what is here
python -m aot.checkpoints download sam2.1_hiera_tiny        resumes where it broke off
python -m aot.checkpoints verify                            SHA-256 of what is here
"""

from __future__ import annotations

import argparse
import os
import pickle
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from aot.errors import AotError, ConfigError, WriteError
from aot.system.cli import EXIT_INTERRUPTED, run_command
from aot.system.files import PART_SUFFIX, write_errors
from aot.system.hashing import sha256_of

FOLDER = Path("checkpoints")
BASE_URL_VARIABLE = "AOT_CHECKPOINTS_URL"

_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
_COTRACKER3_URL = "https://huggingface.co/facebook/cotracker3/resolve/main"
_CHUNK_BYTES = 2**20
_TIMEOUT_SECONDS = 60
_ATTEMPTS = 5
# What torch.load raises on files that are cut short, changed or no weights at all.
_DAMAGED = (
    OSError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, pickle.UnpicklingError, zipfile.BadZipFile,
    struct.error,
)  # fmt: skip

EXIT_DONE, EXIT_FAILED, EXIT_WRONG = 0, 1, 2


@dataclass(frozen=True)
class Checkpoint:
    """One file of weights."""

    name: str
    file: str
    url: str
    """The folder on the web that holds the file."""
    sha256: str
    licence: str
    num_bytes: int | None = None
    """None where it is not known beforehand; the digest decides in any case."""
    is_commercial_use_allowed: bool = True


CHECKPOINTS = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            "sam2.1_hiera_tiny",
            "sam2.1_hiera_tiny.pt",
            _SAM2_URL,
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
            "Apache-2.0",
            156008466,
        ),
        Checkpoint(
            "sam2.1_hiera_small",
            "sam2.1_hiera_small.pt",
            _SAM2_URL,
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
            "Apache-2.0",
            184416285,
        ),
        Checkpoint(
            "sam2.1_hiera_base_plus",
            "sam2.1_hiera_base_plus.pt",
            _SAM2_URL,
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
            "Apache-2.0",
        ),
        Checkpoint(
            "sam2.1_hiera_large",
            "sam2.1_hiera_large.pt",
            _SAM2_URL,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
            "Apache-2.0",
            898083611,
        ),
        Checkpoint(
            "cotracker3_offline",
            "scaled_offline.pth",
            _COTRACKER3_URL,
            "2670d4562ed69326dda775a26e54883925cd11b6fc9b24cb7aa9f8078bce7834",
            "CC-BY-NC-4.0",
            is_commercial_use_allowed=False,
        ),
        Checkpoint(
            "cotracker3_online",
            "scaled_online.pth",
            _COTRACKER3_URL,
            "205d34789f19699d64b22cf93f9b697f15f28d4025240e31532e504109837218",
            "CC-BY-NC-4.0",
            is_commercial_use_allowed=False,
        ),
    )
}


@dataclass(frozen=True)
class Weights:
    """The weights that a part works with, as every result records them."""

    file: str
    """Its name, without the folder."""
    sha256: str
    checkpoint: str | None
    """The name in the table of the published file that it is, byte for byte; None for any other."""
    licence: str | None
    """Of the published file; None where it is not known."""


def require_checkpoint(name: str, given: Path | None, *, option: str, without: str) -> Path:
    """Where a model's weights lie.

    Args:
        name: of the checkpoint in the table.
        given: the user's own file; None: the table's file in `checkpoints/`.
        option: the configuration key that takes another file.
        without: what to say on the command line to do without weights.
    Raises:
        ConfigError: there is no such file; names the download command and the way without.
    """
    path = given or FOLDER / CHECKPOINTS[name].file
    if path.is_file():
        return path
    raise ConfigError(
        f"{option}: no weights at {path.absolute()}; fetch them with `python -m aot.checkpoints download {name}`, "
        f"name a file with {option}=FILE, or do without weights: {without}"
    )


def identify(path: Path) -> Weights:
    """Say what a file of weights is, by its content; what was read once is not read again while it stays the same.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        stat = path.stat()
        digest = _known_sha256(path.absolute(), stat.st_size, stat.st_mtime_ns)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc}; expected a file of weights") from exc
    published = next((known for known in CHECKPOINTS.values() if known.sha256 == digest), None)
    return Weights(
        file=path.name,
        sha256=digest,
        checkpoint=published.name if published else None,
        licence=published.licence if published else None,
    )


def weights_of(part: object) -> tuple[Weights, ...]:
    """What a part works with: its attribute `weights`; a part without weights needs none."""
    weights: tuple[Weights, ...] = getattr(part, "weights", ())
    return weights


@lru_cache(maxsize=32)
def _known_sha256(path: Path, num_bytes: int, mtime_ns: int) -> str:
    """The digest of a file that has not changed since; size and time only tell one state of it from another."""
    return sha256_of(path)


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read what a file of weights holds, without running anything that is in it.

    torch.load looks at no checksum: a file with one bit changed would be taken as it is.

    Returns:
        The state dict, bare in the file or under the key `model`.
    Raises:
        ConfigError: it cannot be read, is damaged, or holds something else.
    """
    import torch

    try:
        if zipfile.is_zipfile(path):  # the form that torch saves in; of its older form, loading tells
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of its entry {damaged} is wrong")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as exc:
        first_line = (str(exc).splitlines() or [""])[0]
        raise ConfigError(
            f"{path} cannot be read as PyTorch weights ({type(exc).__name__}: {first_line}); it is damaged or "
            f"something else: `python -m aot.checkpoints verify` tells, `download` fetches it anew"
        ) from exc
    weights = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        found = ", ".join(map(str, loaded)) if isinstance(loaded, dict) else type(loaded).__name__
        raise ConfigError(
            f"{path} holds no state dict, neither bare nor under the key 'model' (found: {found[:200]}); "
            f"expected weights"
        )
    return weights


def check(checkpoint: Checkpoint, path: Path) -> None:
    """Check a file's size and SHA-256.

    Raises:
        WriteError: it is not here, cannot be read, or is not what the table says.
    """
    if not path.exists():
        raise WriteError(f"{path} is not here")
    try:
        size, digest = path.stat().st_size, sha256_of(path)
    except OSError as exc:
        raise WriteError(f"{path} cannot be read: {exc}") from exc
    if checkpoint.num_bytes is not None and size != checkpoint.num_bytes:
        raise WriteError(f"{path} has {size} bytes, expected {checkpoint.num_bytes}")
    if digest != checkpoint.sha256:
        raise WriteError(f"{path} has the SHA-256 {digest}, expected {checkpoint.sha256}")


def download(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    base_url: str | None = None,
    say: Callable[[str], None] = print,
    on_bytes: Callable[[int], None] = lambda num_bytes: None,
) -> Path:
    """Fetch one file; what an earlier call left half done is gone on with.

    The file has the name `<file>.part` until its size and SHA-256 are those of the table.

    Args:
        checkpoint: which.
        folder: gets the file.
        base_url: the folder on the web; None: the table's.
        say: called with what went wrong and is tried again.
        on_bytes: called with the number of bytes that are here, again and again.
    Returns:
        The file.
    Raises:
        WriteError: it cannot be fetched or written, or is not what the table says.
    """
    path = folder / checkpoint.file
    part = path.with_name(path.name + PART_SUFFIX)
    url = f"{(base_url or checkpoint.url).rstrip('/')}/{checkpoint.file}"
    with write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _fetch(url, part, checkpoint.num_bytes, on_bytes)
            break
        except HTTPError as exc:
            raise WriteError(f"{url}: the server says {exc.code} {exc.reason}; try again later") from exc
        except (URLError, HTTPException, TimeoutError, ConnectionError, _BrokenOffError) as exc:
            is_unreached = isinstance(exc, URLError)
            if attempt < _ATTEMPTS:
                happened = "could not be reached" if is_unreached else f"broke off at {_size_of(part)} bytes"
                say(f"{checkpoint.name}: {happened} ({exc}); going on")
                time.sleep(_pause_seconds(attempt))
                continue
            if is_unreached:
                raise WriteError(
                    f"{url} could not be reached {_ATTEMPTS} times ({exc}); try it from a machine with a way to the "
                    f"internet, or name a mirror with --base-url or {BASE_URL_VARIABLE}"
                ) from exc
            raise WriteError(
                f"{url}: the transfer broke off {_ATTEMPTS} times ({exc}); the same command goes on after "
                f"{_size_of(part)} bytes"
            ) from exc
    try:
        check(checkpoint, part)
    except WriteError as error:
        # A wrong byte stays wrong: the next attempt must begin anew.
        part.unlink(missing_ok=True)
        raise WriteError(f"{url} is not what it should be: {error}; it was thrown away, try again") from error
    with write_errors(path):
        part.replace(path)
    return path


class _BrokenOffError(Exception):
    """The server ended the transfer before the end."""


def _fetch(url: str, part: Path, num_bytes: int | None, on_bytes: Callable[[int], None]) -> None:
    """Append what is missing of a file."""
    have = _size_of(part)
    if num_bytes is not None and have >= num_bytes:
        return  # whole already, or too much: the check tells
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 (the table's addresses)
    try:
        response: HTTPResponse = urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
    except HTTPError as exc:
        if exc.code == 416 and have:  # nothing lies beyond: it is whole, or too much; the check tells
            return
        raise
    with response:
        goes_on = response.status == 206  # a server that knows no ranges begins anew
        announced = response.headers.get("Content-Length")
        received = 0
        with write_errors(part), part.open("ab" if goes_on else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                received += len(chunk)
                on_bytes(file.tell())
    if announced is not None and received < int(announced):
        raise _BrokenOffError(f"{received} of the {announced} announced bytes came")
    if num_bytes is not None and _size_of(part) < num_bytes:
        raise _BrokenOffError(f"{_size_of(part)} of {num_bytes} bytes are here")


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)
    except OSError as exc:  # of the connection; those of the disk are the writer's
        raise _BrokenOffError(str(exc)) from exc


def _pause_seconds(attempt: int) -> float:
    return float(2 ** (attempt - 1)) / 2


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m aot.checkpoints", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=("list", "download", "verify"), default="list")
    parser.add_argument("names", nargs="*", metavar="NAME", help="as `list` shows them; verify: none means all here")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files lie (default: checkpoints)")
    parser.add_argument("--accept-license", action="store_true", help="agree to licences that forbid commercial use")
    parser.add_argument("--base-url", default=os.environ.get(BASE_URL_VARIABLE), help="fetch from this mirror instead")
    given = parser.parse_args(arguments)
    try:
        chosen = _chosen(given.names)
        if given.command == "list":
            _print_table(chosen or CHECKPOINTS.values(), given.folder)
            return EXIT_DONE
        if given.command == "verify":
            return _verify(chosen, given.folder)
        if not chosen:
            raise ConfigError(f"download: which? there are {', '.join(CHECKPOINTS)}")
        _ask_consent(chosen, given.accept_license)
        return _download_all(chosen, given.folder, given.base_url)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED


def _download_all(chosen: Iterable[Checkpoint], folder: Path, base_url: str | None) -> int:
    exit_code = EXIT_DONE
    for checkpoint in chosen:
        path = folder / checkpoint.file
        try:
            if path.exists():
                check(checkpoint, path)
                print(f"{checkpoint.name}: is here already: {path}")
                continue
            print(f"{checkpoint.name}: licence {checkpoint.licence}, {_shown_size(checkpoint)}")
            with _Display(checkpoint) as display:
                path = download(checkpoint, folder, base_url=base_url, say=display.say, on_bytes=display.advance)
            print(f"{checkpoint.name}: {path}")
        except AotError as error:
            hint = "; delete it and download it again" if path.exists() else ""
            print(f"{checkpoint.name}: {error}{hint}", file=sys.stderr)
            exit_code = EXIT_FAILED
    return exit_code


def _verify(chosen: Sequence[Checkpoint], folder: Path) -> int:
    exit_code = EXIT_DONE
    wanted = chosen or [known for known in CHECKPOINTS.values() if (folder / known.file).exists()]
    if not wanted:
        print(f"{folder}: there are no published weights here; `python -m aot.checkpoints list` shows what there is")
    for checkpoint in wanted:
        path = folder / checkpoint.file
        try:
            check(checkpoint, path)
            print(f"{checkpoint.name}: {path} is whole")
        except AotError as error:
            hint = "delete it and download it again" if path.exists() else "download it"
            print(f"{checkpoint.name}: {error}; {hint}", file=sys.stderr)
            exit_code = EXIT_FAILED
    return exit_code


class _Display:
    """A live bar on a terminal; elsewhere only what went wrong."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        console = Console(soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(checkpoint.name, total=checkpoint.num_bytes)

    def advance(self, num_bytes: int) -> None:
        self._progress.update(self._task, completed=num_bytes)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _chosen(names: Sequence[str]) -> list[Checkpoint]:
    unknown = [name for name in names if name not in CHECKPOINTS]
    if unknown:
        near = get_close_matches(unknown[0], CHECKPOINTS, n=3, cutoff=0.4) or list(CHECKPOINTS)
        raise ConfigError(f"{', '.join(unknown)}: no such checkpoint; did you mean {' or '.join(near)}?")
    return [CHECKPOINTS[name] for name in dict.fromkeys(names)]


def _ask_consent(chosen: Sequence[Checkpoint], is_accepted: bool) -> None:
    bound = [checkpoint for checkpoint in chosen if not checkpoint.is_commercial_use_allowed]
    if not bound or is_accepted:
        return
    told = "\n".join(f"{item.name}: licence {item.licence}: no commercial use" for item in bound)
    if not sys.stdin.isatty():
        raise ConfigError(f"{told}\nsay --accept-license if you agree; nothing was downloaded")
    print(f"{told}\nDo you agree? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):  # an end of input is no agreement either
        raise ConfigError("not agreed; nothing was downloaded")


def _print_table(checkpoints: Iterable[Checkpoint], folder: Path) -> None:
    rows = [("name", "file", "size", "licence", "here")]
    for item in checkpoints:
        path = folder / item.file
        part = _size_of(path.with_name(path.name + PART_SUFFIX))
        here = str(path) if path.exists() else f"{part} bytes of it" if part else "no"
        licence = item.licence + ("" if item.is_commercial_use_allowed else " (not commercial)")
        rows.append((item.name, item.file, _shown_size(item), licence, here))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _shown_size(checkpoint: Checkpoint) -> str:
    return "size not known" if checkpoint.num_bytes is None else f"{checkpoint.num_bytes / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(run_command(main))
