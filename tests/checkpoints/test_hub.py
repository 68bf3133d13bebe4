"""Downloads through huggingface_hub, from a local server with the endpoints that its client needs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import aot
from aot.checkpoints import CHECKPOINTS
from tests.checkpoints.server import CONTENT

NAME = "cotracker3_offline"
FILE = CHECKPOINTS[NAME].file


class Hub(ThreadingHTTPServer):
    """One repository with one file."""

    content = CONTENT
    breaks_after: list[int]
    """The number of bytes after which each of the next responses is cut off."""
    gets: list[str | None]
    """The Range headers of the requests for the file so far."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks_after, self.gets = [], []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        if self.path.endswith(FILE):
            self.server.gets.append(self.headers.get("Range"))
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        if self.path != f"/facebook/cotracker3/resolve/main/{FILE}":
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, wanted = self.server.content, self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body:
            self.wfile.write(body[: self.server.breaks_after.pop(0)] if self.server.breaks_after else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "checkpoints").mkdir()  # otherwise, the user's cache keeps the weights
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


# Runs in a subprocess: the client reads its environment variables on import.
DOWNLOAD = """
import hashlib, sys
from dataclasses import replace
from aot.checkpoints import CHECKPOINTS
from aot.checkpoints.__main__ import main
name, content_sha256, *arguments = sys.argv[1:]
CHECKPOINTS[name] = replace(CHECKPOINTS[name], sha256=content_sha256)
sys.exit(main(["download", name, "--accept-license", *arguments]))
"""


def run(
    folder: Path, endpoint: str, *arguments: str, sha256: str = hashlib.sha256(CONTENT).hexdigest(), **variables: str
) -> subprocess.CompletedProcess[str]:
    unset = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "AOT_"))}
    return subprocess.run(
        [sys.executable, "-c", DOWNLOAD, NAME, sha256, *arguments],
        cwd=folder,
        env=unset
        | {"PYTHONPATH": str(Path(aot.__file__).parents[1]), "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache")}
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_hub_file_is_downloaded_with_the_client(hub: Hub, tmp_path: Path) -> None:
    process = run(tmp_path, url(hub))
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith(f"{NAME}: checkpoints/{FILE}\n")
    assert (tmp_path / "checkpoints" / FILE).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [FILE]
    assert "already downloaded" in run(tmp_path, url(hub)).stdout
    assert len(hub.gets) == 1


def test_without_a_connection_the_cache_is_used(hub: Hub, tmp_path: Path) -> None:
    assert run(tmp_path, url(hub)).returncode == 0
    process = run(tmp_path, "http://127.0.0.1:9", "--folder", "other", HF_HUB_OFFLINE="1")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "other" / FILE).read_bytes() == CONTENT


def test_interrupted_transfer_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.content = CONTENT * 120  # the client reads, and resumes after, blocks of 10 MB
    hub.breaks_after = [11 * 2**20]
    sha256 = hashlib.sha256(hub.content).hexdigest()
    process = run(tmp_path, url(hub), sha256=sha256)
    if process.returncode:  # clients before 1.x leave the second attempt to the next command
        assert "run the same command again" in process.stderr
        process = run(tmp_path, url(hub), sha256=sha256)
    assert process.returncode == 0, process.stderr
    assert hub.gets in ([None, f"bytes={block * 2**20}-"] for block in (10, 11))
    assert (tmp_path / "checkpoints" / FILE).read_bytes() == hub.content


def test_unexpected_content_is_discarded(hub: Hub, tmp_path: Path) -> None:
    hub.content = CONTENT[:500] + b"\xff" + CONTENT[501:]
    process = run(tmp_path, url(hub))
    assert process.returncode == 1
    assert f"facebook/cotracker3/{FILE}: unexpected content" in process.stderr
    assert "was discarded, try again" in process.stderr
    assert list((tmp_path / "checkpoints").iterdir()) == []
    again = run(tmp_path, url(hub))
    assert (again.returncode, len(hub.gets)) == (1, 2), "it is not read from the cache"


def test_base_url_bypasses_the_client(hub: Hub, tmp_path: Path) -> None:
    base_url = f"{url(hub)}/facebook/cotracker3/resolve/main"
    process = run(tmp_path, "http://127.0.0.1:9", "--base-url", base_url)
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("problem", ["absent", "offline", "unwritable cache"])
def test_client_errors_are_reported_in_one_message(problem: str, hub: Hub, tmp_path: Path) -> None:
    if problem == "unwritable cache":
        (tmp_path / "cache").write_text("a file")
    endpoint = f"{url(hub)}/elsewhere" if problem == "absent" else url(hub)
    process = run(tmp_path, endpoint, **({"HF_HUB_OFFLINE": "1"} if problem == "offline" else {}))
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    expected = "could not be written" if problem == "unwritable cache" else "could not be downloaded from http://127"
    assert expected in process.stderr
    assert list((tmp_path / "checkpoints").glob("*")) == []
