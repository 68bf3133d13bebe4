"""decord is imported only where it is used, and shares nothing with other libraries."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

from aot.decoding import decord_library, decord_reader
from aot.decoding.decord import DecordDecoder
from aot.decoding.decord_library import decord_version, load_decord
from aot.errors import ConfigError
from tests.decoding.coded_video import write_coded_video


def run_python(code: str, *arguments: object) -> str:
    """What a new process prints."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coded_video(tmp_path_factory.mktemp("video") / "a.mp4", range(5))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to list libraries")
def test_no_library_of_cuda_is_loaded(video: Path) -> None:
    """decord would load all of those that torch's wheels bring."""
    assert run_python(
        """
        import sys
        from pathlib import Path
        from aot.decoding.decord import DecordDecoder

        with DecordDecoder().open(Path(sys.argv[1])) as source:
            source.read([4])
        libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
        names = sorted(Path(name).name for name in libraries)
        print(source.decoder, "nvidia" in sys.modules, [n for n in names if n.startswith(("libcu", "libnv"))])
        """,
        video,
    ) == "decord False []"  # fmt: skip


def test_decord_is_not_imported_for_what_pyav_decodes(video: Path) -> None:
    assert run_python(
        """
        import sys
        from pathlib import Path
        from aot.decoding import open_source
        from aot.decoding.decord import DecordDecoder
        from aot.types import Clip

        DecordDecoder()
        with open_source(Clip("a", Path(sys.argv[1]))) as source:
            source.read([4])
        print(source.decoder, "decord" in sys.modules)
        """,
        video,
    ) == "pyav False"  # fmt: skip


def test_symbols_of_its_ffmpeg_are_not_global() -> None:
    assert run_python(
        """
        import ctypes
        from aot.decoding.decord_library import load_decord

        load_decord()
        everything = ctypes.CDLL(None)
        print([name for name in ("avcodec_open2", "av_log", "sws_scale") if hasattr(everything, name)])
        """
    ) == "[]"  # fmt: skip


def test_a_later_library_keeps_its_own_ffmpeg(video: Path) -> None:
    """decord's symbols are global unless prevented: PyAV, imported later, would log to Python and crash at exit."""
    assert run_python(
        """
        import sys
        from aot.decoding import decord_library

        assert "av" not in sys.modules
        _, log = decord_library.load_decord()
        import av

        before = log.num_messages
        with av.open(sys.argv[1]) as container:
            print(sum(1 for _ in container.decode(video=0)), log.num_messages - before)
        """,
        video,
    ) == "5 0"  # fmt: skip


def test_python_is_not_called_after_it_has_shut_down() -> None:
    """The handlers at exit run in reverse order: this one after that of the log."""
    assert run_python(
        """
        import atexit, ctypes
        from importlib import metadata
        from aot.decoding.decord_library import load_decord

        def write_late():
            before = log.num_messages
            library.av_log(None, 16, b"late")
            print(log.num_messages - before)

        atexit.register(write_late)
        _, log = load_decord()
        (path,) = [file for file in metadata.files("decord2") if file.name.startswith("libavutil")]
        library = ctypes.CDLL(str(path.locate()))
        library.av_log(None, 16, b"early")
        print(log.num_problems)
        """
    ).split() == ["1", "0"]  # fmt: skip


def test_modules_and_environment_are_restored() -> None:
    assert run_python(
        """
        import ctypes, os, sys

        library = ctypes.CDLL
        sys.modules["nvidia"] = nvidia = type(sys)("nvidia")
        os.environ["DECORD_FFI"] = "auto"
        from aot.decoding.decord_library import load_decord

        load_decord()
        print(ctypes.CDLL is library, sys.modules["nvidia"] is nvidia, os.environ["DECORD_FFI"])
        """
    ) == "True True auto"  # fmt: skip


INSTALLED = [
    ({}, r"needs the package decord2, version 3 or newer, but it is not installed; .*pip install 'decord2>=3,<4'"),
    ({"decord2": "2.0.0"}, r"needs the package decord2, version 3 or newer, but 2\.0\.0 is installed"),
    ({"decord": "0.6.0"}, r"decord 0\.6\.0 is installed, .*`pip uninstall decord`, then `pip install 'decord2>=3,<4'`"),
    ({"decord": "0.6.0", "decord2": "3.4.0"}, r"decord 0\.6\.0 is installed, .* or use decoder=pyav"),
]


@pytest.mark.parametrize(("installed", "message"), INSTALLED)
def test_other_versions_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], message: str
) -> None:
    def version(package: str) -> str:
        if package not in installed:
            raise metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(decord_library.metadata, "version", version)
    with pytest.raises(ConfigError, match=message):
        DecordDecoder()


def test_a_library_that_cannot_be_loaded_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    decord_library._load_decord.cache_clear()
    monkeypatch.setitem(sys.modules, "decord", None)
    try:
        with pytest.raises(ConfigError, match=r"the package decord2 cannot be imported: .*decoder=pyav"):
            load_decord()
    finally:
        decord_library._load_decord.cache_clear()


@pytest.mark.parametrize("files", [[], None])
def test_without_the_log_pyav_decodes(
    monkeypatch: pytest.MonkeyPatch, video: Path, files: list[metadata.PackagePath] | None
) -> None:
    decord, _ = load_decord()  # kept for all tests of this process
    monkeypatch.setattr(decord_library.metadata, "files", lambda package: files)
    assert decord_library._watch_log() is None
    monkeypatch.setattr(decord_reader, "load_decord", lambda: (decord, None))
    with DecordDecoder().open(video) as source:
        assert (source.decoder, source.decoder_fallback) == (
            "pyav", "the log of decord's FFmpeg, which reports damaged data, cannot be watched",
        )  # fmt: skip


def test_a_log_without_messages_is_not_trusted(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    """Another copy of FFmpeg than decord's would be silent about damage."""

    class Silent:
        num_messages = num_problems = 0

    decord, _ = load_decord()
    monkeypatch.setattr(decord_reader, "load_decord", lambda: (decord, Silent()))
    with DecordDecoder().open(video) as source:
        assert source.decoder_fallback.endswith("cannot be watched")


def test_version() -> None:
    assert decord_version() == metadata.version("decord2")
