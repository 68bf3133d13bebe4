"""Models of several files: downloads through huggingface_hub from a local server, their record, mirrors and consent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import aot
from aot.checkpoints.models import RECORD, identify_model, read_record

MODEL = "IDEA-Research/grounding-dino-tiny"
COMMIT = "c0ffee" + "0" * 34
CONTENT = bytes(range(256)) * 300


class Hub(ThreadingHTTPServer):
    """One repository with the files of a detector."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repository = MODEL
        self.files = {
            "config.json": b'{"model_type": "grounding-dino"}',
            "tokenizer.json": b"{}",
            "model.safetensors": CONTENT,
            "pytorch_model.bin": b"not read",
            "onnx/config.json": b"not read",
            "README.md": b"not read",
        }
        self.licence = "apache-2.0"
        self.is_gated = False
        self.sha256: dict[str, str] = {}
        """Wrong SHA-256 to announce."""
        self.downloads: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        if hub.is_gated:
            self.respond(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "accept the licence"})
        elif path == f"/api/models/{hub.repository}":
            self.respond(200, json.dumps(self.listing()).encode(), {})
        elif path.startswith(start := f"/{hub.repository}/resolve/{COMMIT}/") and path.removeprefix(start) in hub.files:
            name = path.removeprefix(start)
            if with_body:
                hub.downloads.append(name)
            content = hub.files[name]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.respond(200, content, {"X-Repo-Commit": COMMIT, "ETag": tag}, with_body=with_body)
        else:
            self.respond(404, b"", {"X-Error-Code": "RepoNotFound"})

    def listing(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.server.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": "0" * 40}
            if name.endswith((".safetensors", ".bin")):
                digest = self.server.sha256.get(name, hashlib.sha256(content).hexdigest())
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return {
            "id": self.server.repository, "modelId": self.server.repository, "sha": COMMIT, "private": False,
            "tags": [f"license:{self.server.licence}"], "siblings": siblings,
        }  # fmt: skip

    def respond(self, status: int, content: bytes, headers: dict[str, str], *, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def running(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield from running(Hub())  # type: ignore[misc]


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def run(folder: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m aot.checkpoints` in a separate process: the client reads its environment variables on import."""
    unset = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "AOT_"))}
    own = {"PYTHONPATH": str(Path(aot.__file__).parents[1]), "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "aot.checkpoints", *arguments, "--folder", "weights"],
        cwd=folder,
        env=unset | own,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_files_of_a_model_are_downloaded_and_recorded(hub: Hub, tmp_path: Path) -> None:
    process = run(tmp_path, url(hub), "download", "grounding_dino")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"{MODEL}: licence Apache-2.0, 0.1 MB\n  config.json\n")
    folder = tmp_path / "weights" / MODEL
    assert sorted(path.name for path in folder.iterdir()) == [
        RECORD,
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    record = read_record(folder)
    assert record is not None
    assert (record.repository, record.revision, record.licence) == (MODEL, COMMIT, "Apache-2.0")
    (weights,) = identify_model(folder)
    assert (weights.checkpoint, weights.licence) == (MODEL, "Apache-2.0")
    assert weights.sha256 == hashlib.sha256(CONTENT).hexdigest()
    again = run(tmp_path, url(hub), "download", MODEL)
    assert f"{MODEL}: already downloaded: weights/{MODEL}" in again.stdout
    assert len(hub.downloads) == 3


def test_what_is_missing_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    assert run(tmp_path, url(hub), "download", MODEL).returncode == 0
    folder = tmp_path / "weights" / MODEL
    (folder / RECORD).unlink()
    (folder / "tokenizer.json").unlink()
    shutil.rmtree(tmp_path / "cache")
    hub.downloads.clear()
    assert run(tmp_path, url(hub), "download", MODEL).returncode == 0
    assert hub.downloads == ["tokenizer.json"]
    assert (folder / RECORD).exists()


def test_list_and_verify(hub: Hub, tmp_path: Path) -> None:
    listed = run(tmp_path, url(hub), "list").stdout
    assert "facebook/sam3" in listed
    assert "SAM License (accepted on huggingface.co)" in listed
    assert "nothing" not in run(tmp_path, url(hub), "verify").stdout
    assert run(tmp_path, url(hub), "download", MODEL).returncode == 0
    assert f"weights/{MODEL}" in run(tmp_path, url(hub), "list", "grounding_dino").stdout
    assert f"{MODEL}: weights/{MODEL} is complete" in run(tmp_path, url(hub), "verify").stdout
    path = tmp_path / "weights" / MODEL / "model.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"x")
    damaged = run(tmp_path, url(hub), "verify")
    assert damaged.returncode == 1
    assert "model.safetensors has the SHA-256" in damaged.stderr
    assert "delete it and download it again" in damaged.stderr


def test_a_model_of_another_kind_is_refused_before_its_weights(hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = b'{"model_type": "clip"}'
    process = run(tmp_path, url(hub), "download", MODEL)
    assert process.returncode == 1
    assert "a model of kind 'clip', expected grounding-dino or mm-grounding-dino or owlv2" in process.stderr
    assert hub.downloads == ["config.json"]


def test_a_repository_without_safetensors_is_refused(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    process = run(tmp_path, url(hub), "download", MODEL)
    assert process.returncode == 1
    assert (
        "expected config.json and model.safetensors of a detector, found config.json, tokenizer.json" in process.stderr
    )


def test_unexpected_content_is_discarded(hub: Hub, tmp_path: Path) -> None:
    hub.sha256["model.safetensors"] = "0" * 64
    process = run(tmp_path, url(hub), "download", MODEL)
    assert process.returncode == 1
    assert f"{MODEL}/model.safetensors: unexpected content" in process.stderr
    assert not (tmp_path / "weights" / MODEL / RECORD).exists()


def test_a_gated_model_names_the_page_and_the_login(hub: Hub, tmp_path: Path) -> None:
    hub.is_gated = True
    process = run(tmp_path, url(hub), "download", "sam3")
    assert process.returncode == 1
    assert f"accept its licence at {url(hub)}/facebook/sam3, then log in with `hf auth login`" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_licence_without_commercial_use_needs_consent(hub: Hub, tmp_path: Path) -> None:
    hub.repository, hub.licence = "owner/model", "cc-by-nc-4.0"
    process = run(tmp_path, url(hub), "download", "owner/model")
    assert process.returncode == 1
    assert "licence cc-by-nc-4.0: no commercial use; add --accept-license" in process.stderr
    assert not hub.downloads
    assert run(tmp_path, url(hub), "download", "owner/model", "--accept-license").returncode == 0
    assert "cc-by-nc-4.0" in run(tmp_path, url(hub), "list", "owner/model").stdout


def test_an_unreachable_server_is_reported_in_one_message(hub: Hub, tmp_path: Path) -> None:
    process = run(tmp_path, url(hub), "download", "owner/absent")
    assert process.returncode == 1
    assert "owner/absent could not be downloaded from http://127" in process.stderr
    assert "Traceback" not in process.stderr


class TestMirror:
    """A web folder with a copy of the folder of weights."""

    @pytest.fixture
    def mirror(self, hub: Hub, tmp_path: Path) -> Iterator[tuple[str, Path]]:
        source = tmp_path / "source"
        source.mkdir()
        assert run(source, url(hub), "download", MODEL).returncode == 0
        handler = partial(SimpleHTTPRequestHandler, directory=str(source / "weights"))
        for server in running(ThreadingHTTPServer(("127.0.0.1", 0), handler)):
            yield url(server), source / "weights" / MODEL

    def test_model_is_copied(self, mirror: tuple[str, Path], tmp_path: Path) -> None:
        address, source = mirror
        process = run(tmp_path, "http://127.0.0.1:9", "download", MODEL, "--base-url", address)
        assert process.returncode == 0, process.stderr
        copy = tmp_path / "weights" / MODEL
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
            path.name: path.read_bytes() for path in source.iterdir()
        }

    def test_licence_without_commercial_use_needs_consent(self, mirror: tuple[str, Path], tmp_path: Path) -> None:
        address, source = mirror
        record = json.loads((source / RECORD).read_text()) | {"licence": "cc-by-nc-4.0"}
        (source / RECORD).write_text(json.dumps(record))
        command = ["download", MODEL, "--base-url", address]
        process = run(tmp_path, "http://127.0.0.1:9", *command)
        assert process.returncode == 1
        assert "licence cc-by-nc-4.0: no commercial use; add --accept-license" in process.stderr
        assert not (tmp_path / "weights" / MODEL / "config.json").exists()
        assert run(tmp_path, "http://127.0.0.1:9", *command, "--accept-license").returncode == 0

    def test_changed_file_is_refused(self, mirror: tuple[str, Path], tmp_path: Path) -> None:
        address, source = mirror
        content = (source / "model.safetensors").read_bytes()
        (source / "model.safetensors").unlink()
        (source / "model.safetensors").write_bytes(content[:-1] + b"x")
        process = run(tmp_path, "http://127.0.0.1:9", "download", MODEL, "--base-url", address)
        assert process.returncode == 1
        assert "model.safetensors: unexpected content" in process.stderr
        assert not (tmp_path / "weights" / MODEL / RECORD).exists()

    def test_record_with_other_paths_is_refused(self, mirror: tuple[str, Path], tmp_path: Path) -> None:
        address, source = mirror
        record = json.loads((source / RECORD).read_text())
        (source / RECORD).write_text(json.dumps(record | {"sha256": {"../../config.json": "0" * 64}}))
        process = run(tmp_path, "http://127.0.0.1:9", "download", MODEL, "--base-url", address)
        assert process.returncode == 1
        assert f"{RECORD} is not the record of {MODEL}" in process.stderr
