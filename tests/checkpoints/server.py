"""A local web server of weights with configurable faults, and a table of checkpoints that it serves."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aot.checkpoints import CHECKPOINTS

CONTENT = bytes(range(256)) * 400
NAME = "sam2.1_hiera_tiny"
FILE = CHECKPOINTS[NAME].file


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every name, with the faults that a test configures."""

    content = CONTENT
    breaks_after: list[int]
    """The number of bytes after which each of the next responses is cut off."""
    announces: int | None = None
    """A wrong Content-Length to send."""
    supports_ranges = True
    ranges: list[str | None]
    """The Range headers of the requests so far."""

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
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.supports_ranges else 0
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
    monkeypatch.setattr("aot.checkpoints.download._pause_seconds", lambda attempt: 0.0)
    for key, known in CHECKPOINTS.items():
        made = replace(known, sha256=hashlib.sha256(CONTENT).hexdigest(), num_bytes=known.num_bytes and len(CONTENT))
        monkeypatch.setitem(CHECKPOINTS, key, made)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
