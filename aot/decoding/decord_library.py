"""Import decord, isolated from other libraries, and watch the log of its FFmpeg."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any

from aot.decoding.ffmpeg_log import FFmpegLog, watch_log
from aot.errors import ConfigError
from aot.system.os_errors import os_reason

_PACKAGE = "decord2"
_MIN_MAJOR_VERSION = 3
_HOW_TO_INSTALL = "`pip uninstall decord`, then `pip install 'decord2>=3,<4'`; or use decoder=pyav"

_importing = Lock()


def decord_version() -> str:
    """Version of the installed decord2; the module is not imported.

    Raises:
        ConfigError: it is not installed or too old, or another package owns the module `decord`.
    """
    version, old = _version_of(_PACKAGE), _version_of("decord")
    if old is not None:
        raise ConfigError(
            f"decoder=decord: decord {old} is installed, which returns wrong frames and replaces the module of "
            f"{_PACKAGE} {_MIN_MAJOR_VERSION}; {_HOW_TO_INSTALL}"
        )
    if version is None or int(version.partition(".")[0]) < _MIN_MAJOR_VERSION:
        found = "it is not installed" if version is None else f"{version} is installed"
        raise ConfigError(
            f"decoder=decord needs the package {_PACKAGE}, version {_MIN_MAJOR_VERSION} or newer, but {found}; "
            f"{_HOW_TO_INSTALL}"
        )
    return version


def load_decord() -> tuple[Any, FFmpegLog | None]:
    """The module decord, and the log of its FFmpeg; None: it cannot be watched.

    Raises:
        ConfigError: see `decord_version`; or it cannot be imported.
    """
    with _importing:
        return _load_decord()


@lru_cache(maxsize=1)
def _load_decord() -> tuple[Any, FFmpegLog | None]:
    decord_version()
    try:
        with _isolated_import():
            import decord
    except (ImportError, OSError, RuntimeError) as exc:
        raise ConfigError(
            f"decoder=decord: the package {_PACKAGE} cannot be imported: "
            f"{os_reason(exc, otherwise='it, or a library that it needs, is missing or damaged')}; {_HOW_TO_INSTALL}"
        ) from exc
    return decord, _watch_log()


def _watch_log() -> FFmpegLog | None:
    libraries = [file for file in metadata.files(_PACKAGE) or [] if file.name.startswith("libavutil")]
    if len(libraries) != 1:
        return None
    try:
        return watch_log(Path(str(libraries[0].locate())))
    except (OSError, AttributeError):
        return None


class _LocalLibrary(ctypes.CDLL):
    """A library whose symbols no other library sees, and that is not part of CUDA.

    decord loads its library with RTLD_GLOBAL. Its FFmpeg would then replace that of every library that is loaded later
    (PyAV and OpenCV have their own copies), and crash the process when PyAV's threads write to its log.
    """

    def __init__(self, name: str, mode: int = ctypes.DEFAULT_MODE, *args: Any, **options: Any) -> None:
        if Path(name).name.startswith(("libcuda.", "libnvcuvid.")):
            raise OSError(f"{name} is not needed to decode on the CPU")
        super().__init__(name, ctypes.RTLD_LOCAL, *args, **options)


@contextmanager
def _isolated_import() -> Iterator[None]:
    """Keep decord from loading CUDA's libraries (640 MB of memory, even without a GPU) and from sharing its own.

    It looks for the former in the package `nvidia`, which torch's wheels bring. Its compiled interface would hold the
    GIL while FFmpeg decodes, so that FFmpeg's threads could not write to the log: only that of ctypes is used.
    """
    library, nvidia, interface = ctypes.CDLL, sys.modules.get("nvidia"), os.environ.get("DECORD_FFI")
    is_imported = "nvidia" in sys.modules
    ctypes.CDLL = _LocalLibrary  # type: ignore[misc, assignment]
    sys.modules["nvidia"] = None  # type: ignore[assignment]
    os.environ["DECORD_FFI"] = "ctypes"
    try:
        yield
    finally:
        ctypes.CDLL = library  # type: ignore[misc]
        _restore(sys.modules, "nvidia", nvidia if is_imported else None)
        _restore(os.environ, "DECORD_FFI", interface)


def _restore(values: Any, name: str, before: Any) -> None:
    if before is None:
        values.pop(name, None)
    else:
        values[name] = before


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
