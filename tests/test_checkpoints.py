"""Fetching weights from a server of our own that does what servers do."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aot import checkpoints
from aot.checkpoints import CHECKPOINTS, Checkpoint, Weights, download, identify, main, require_checkpoint
from aot.errors import ConfigError, WriteError

CONTENT = bytes(range(256)) * 400
NAME = "sam2.1_hiera_tiny"
FILE = CHECKPOINTS[NAME].file


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every name, as badly as it is told."""

    content = CONTENT
    breaks_after: list[int]
    """How many bytes each of the next answers holds at most; the connection ends there."""
    announces: int | None = None
    """A length to claim instead of the true one."""
    knows_ranges = True
    ranges: list[str | None]
    """What was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks_after, self.ranges = [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_ranges else 0
        if self.path.endswith("absent"):
            self.send_error(404)
            return
        if start and start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) if self.server.announces is None else self.server.announces))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after.pop(0)] if self.server.breaks_after else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(checkpoints, "_pause_seconds", lambda attempt: 0.0)
    for key, known in CHECKPOINTS.items():
        made = replace(known, sha256=hashlib.sha256(CONTENT).hexdigest(), num_bytes=known.num_bytes and len(CONTENT))
        monkeypatch.setitem(CHECKPOINTS, key, made)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def known(name: str = NAME) -> Checkpoint:
    return CHECKPOINTS[name]


def quiet(text: str) -> None:
    pass


def test_the_whole_file_gets_its_name(server: Server, tmp_path: Path) -> None:
    path = download(known(), tmp_path / "new", base_url=server.url, say=quiet)
    assert path == tmp_path / "new" / FILE
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", [NAME, "sam2.1_hiera_base_plus"], ids=["size known", "size unknown"])
def test_it_goes_on_after_breaks(name: str, server: Server, tmp_path: Path) -> None:
    server.breaks_after = [1000, 0, 50_000]
    said: list[str] = []
    path = download(known(name), tmp_path, base_url=server.url, say=said.append)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=51000-"]
    assert len(said) == 3
    assert "broke off at 1000 bytes" in said[0]


def test_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [100] * 5
    with pytest.raises(WriteError, match=r"broke off 5 times .* goes on after 500 bytes"):
        download(known(), tmp_path, base_url=server.url, say=quiet)
    assert not (tmp_path / FILE).exists()
    assert download(known(), tmp_path, base_url=server.url, say=quiet).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=500-"


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.breaks_after = [1000]
    assert download(known(), tmp_path, base_url=server.url, say=quiet).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize("name", [NAME, "sam2.1_hiera_base_plus"], ids=["size known", "size unknown"])
def test_a_server_that_announces_more_than_it_has(name: str, server: Server, tmp_path: Path) -> None:
    server.announces = len(CONTENT) + 10
    assert download(known(name), tmp_path, base_url=server.url, say=quiet).read_bytes() == CONTENT


def test_a_server_that_announces_less_than_it_has(server: Server, tmp_path: Path) -> None:
    server.announces = len(CONTENT) - 10
    assert download(known(), tmp_path, base_url=server.url, say=quiet).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) - 10}-"], "the table knows better, the rest is asked for"
    with pytest.raises(WriteError, match=r"SHA-256 .*, expected .*thrown away"):
        download(known("sam2.1_hiera_base_plus"), tmp_path, base_url=server.url, say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_more_bytes_than_there_should_be(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT + b"more"
    with pytest.raises(WriteError, match=rf"{len(CONTENT) + 4} bytes, expected {len(CONTENT)}.*thrown away"):
        download(known(), tmp_path, base_url=server.url, say=quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [NAME, "sam2.1_hiera_base_plus"], ids=["size known", "size unknown"])
def test_a_wrong_byte(name: str, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:500] + b"\xff" + CONTENT[501:]
    with pytest.raises(WriteError, match=r"SHA-256 .*, expected .*thrown away"):
        download(known(name), tmp_path, base_url=server.url, say=quiet)
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    assert download(known(name), tmp_path, base_url=server.url, say=quiet).read_bytes() == CONTENT


def test_a_whole_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    for name in (NAME, "sam2.1_hiera_base_plus"):
        (tmp_path / f"{CHECKPOINTS[name].file}.part").write_bytes(CONTENT)
        assert download(known(name), tmp_path, base_url=server.url, say=quiet).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"], "where the size is not known the server says that it is whole"


def test_no_such_file_on_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="the server says 404"):
        download(replace(known(), file="absent"), tmp_path, base_url=server.url, say=quiet)


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_pause_seconds", lambda attempt: 0.0)
    with pytest.raises(WriteError, match="could not be reached 5 times"):
        download(known(), tmp_path, base_url="http://127.0.0.1:9", say=quiet)


def test_the_command_lists_downloads_and_verifies(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in CHECKPOINTS)
    assert "CC-BY-NC-4.0 (not commercial)" in listed
    assert "size not known" in listed
    assert main(["download", NAME, "--base-url", server.url]) == 0
    assert "licence Apache-2.0" in capsys.readouterr().out
    assert main(["download", NAME, "--base-url", server.url]) == 0
    assert "is here already" in capsys.readouterr().out
    assert len(server.ranges) == 1
    assert main(["list", NAME]) == 0
    assert f"checkpoints/{FILE}" in capsys.readouterr().out
    assert main(["verify"]) == 0
    assert f"{FILE} is whole" in capsys.readouterr().out
    (tmp_path / "checkpoints" / FILE).write_bytes(CONTENT[:-1] + b"x")
    assert main(["verify"]) == 1
    assert "SHA-256" in capsys.readouterr().err
    assert main(["verify", "sam2.1_hiera_large"]) == 1
    assert "checkpoints/sam2.1_hiera_large.pt is not here; download it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download"], "which? there are sam2.1_hiera_tiny"),
        (["download", "sam2.1_hiera_tinny"], "did you mean sam2.1_hiera_tiny"),
        (["verify", "nothing at all"], "no such checkpoint"),
    ],
)
def test_wrong_commands(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        ([], io.StringIO("y\n"), 2),
        (["--accept-license"], io.StringIO(), 0),
        ([], Terminal("n\n"), 2),
        ([], Terminal("\n"), 2),
        ([], Terminal(""), 2),
        ([], Terminal("y\n"), 0),
    ],
    ids=["no terminal", "accepted", "no", "nothing said", "end of input", "yes"],
)
def test_consent(
    arguments: list[str], stdin: io.StringIO, expected: int, server: Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setenv(checkpoints.BASE_URL_VARIABLE, server.url)
    assert main(["download", NAME, "cotracker3_offline", "--folder", str(tmp_path), *arguments]) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ([FILE, "scaled_offline.pth"] if expected == 0 else [])
    said = capsys.readouterr()
    assert "CC-BY-NC-4.0" in said.out + said.err
    if stdin.isatty() is False and expected:
        assert "--accept-license" in said.err


def test_a_full_disk_is_not_the_servers_fault(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").mkdir()
    with pytest.raises(WriteError, match="could not be written"):
        download(known(), tmp_path, base_url=server.url, say=quiet)


def test_missing_weights_name_both_ways_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        require_checkpoint(NAME, None, option="segmenter.checkpoint", without="segmenter=grabcut")
    said = str(caught.value)
    assert f"python -m aot.checkpoints download {NAME}" in said
    assert "segmenter=grabcut" in said
    assert str(tmp_path / "checkpoints" / FILE) in said
    own = tmp_path / "own.pt"
    own.touch()
    assert require_checkpoint(NAME, own, option="segmenter.checkpoint", without="") == own


def test_weights_are_known_by_their_content(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "renamed.pt"
    path.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert identify(path) == Weights("renamed.pt", digest, checkpoint=NAME, licence="Apache-2.0")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sha256_of", None)
        assert identify(path).sha256 == digest, "read once"
    path.write_bytes(b"my own")
    assert identify(path) == Weights("renamed.pt", hashlib.sha256(b"my own").hexdigest(), checkpoint=None, licence=None)
    with pytest.raises(ConfigError, match=r"absent\.pt cannot be read"):
        identify(tmp_path / "absent.pt")


def test_digests_and_sizes_are_whole() -> None:
    for checkpoint in CHECKPOINTS.values():
        assert len(bytes.fromhex(checkpoint.sha256)) == 32
        assert checkpoint.url.startswith("https://")
