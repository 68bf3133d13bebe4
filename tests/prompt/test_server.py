"""The server of the prompt page: access control and untrusted input."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image

from aot.manifest.edit_file import version_of
from aot.manifest.read import load_manifest
from aot.prompt import connections
from aot.prompt.__main__ import main, ssh_command
from tests.prompt.prompt_server import prompt_server, started_in_thread
from tests.synthetic import moving_square, write_video

SECRET = "not for the browser"
SQUARE = {"id": 1, "frame": 0, "box": [8, 20, 28, 40]}
GIGABYTE = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_video(folder / "clips" / "a.mp4", moving_square(6))
    write_video(folder / "clips" / "mask.mp4", moving_square(6))
    (folder / "secret.txt").write_text(SECRET)
    (folder / "clips" / "secret.txt").write_text(SECRET)
    mask = np.zeros((64, 96), np.uint8)
    mask[10:20, 30:50] = 255
    for name in ("clips/mask.png", "elsewhere.png"):
        Image.fromarray(mask).save(folder / name)
    (folder / "clips" / "prompts.yaml").write_text("clips: {mask: {objects: [{id: 2, mask: mask.png}]}}")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with prompt_server(folder, "dataset=videos", "dataset.root=clips", "segmenter=grabcut") as url:
        yield url


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


def ask(address: str, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """Send only these headers; `path` is relative to the token, or to the host if it starts with a slash."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=120)
    try:
        target = path if path.startswith("/") else f"{parts.path}{path}"
        sent = {"Content-Type": "application/json"} if body is not None else {}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(
            method, target, data, sent | {key.replace("_", "-"): value for key, value in headers.items()}
        )
        return Answer(connection.getresponse())
    finally:
        connection.close()


class TestAccess:
    def test_page_is_served_with_security_headers(self, address: str) -> None:
        answer = ask(address, "")
        assert answer.status == 200
        assert b"<title>Prompts" in answer.body
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"

    @pytest.mark.parametrize(
        "path", ["/", "/wrong/", "/api/clips", "/static/app.js", "//", "/wrong/api/clips", "/%00/"]
    )
    def test_wrong_tokens_are_refused(self, address: str, path: str) -> None:
        answer = ask(address, path)
        assert answer.status == 403
        assert b"token" in answer.body

    def test_similar_tokens_are_refused(self, address: str) -> None:
        token = urlsplit(address).path.strip("/")
        assert len(token) >= 32
        for wrong in (token[:-1], token + "A", token.lower(), token[:-1] + "\u00e9"):
            assert ask(address, f"/{quote(wrong)}/api/clips").status == 403

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://["]
    )
    def test_cross_origin_requests_are_refused(self, address: str, origin: str) -> None:
        assert ask(address, "api/clips", Origin=origin).status == 403
        assert ask(address, "api/entry", "PUT", {}, Origin=origin).status == 403

    def test_links_from_other_sites_open_only_the_page(self, address: str) -> None:
        assert ask(address, "", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
        assert ask(address, "api/clips", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403
        assert ask(address, "api/clips", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors").status == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "", "["]
    )
    def test_unknown_host_names_are_refused(self, address: str, host: str) -> None:
        """DNS rebinding: the attacker's host name resolves to this address."""
        assert ask(address, "api/clips", Host=host).status in (400, 421)

    @pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1:9000", "[::1]:9000"])
    def test_requests_through_an_ssh_tunnel_are_accepted(self, address: str, host: str) -> None:
        assert ask(address, "api/clips", Host=host, Origin=f"http://{host}").status == 200

    def test_other_machines_cannot_connect(self, address: str) -> None:
        port = urlsplit(address).port or 0
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)} - {"127.0.0.1"}
        for other in others:
            with socket.socket() as outside, pytest.raises(OSError, match="refused"):
                outside.connect((other, port))


class TestRemote:
    """The page behind a proxy, on a compute node, and started again."""

    ARGUMENTS = ("dataset=videos", "dataset.root=clips", "segmenter=grabcut")

    def test_address_stays_the_same_with_a_token_file(self, folder: Path, tmp_path: Path) -> None:
        file = tmp_path / "my token"
        for _ in range(2):
            with started_in_thread(folder, *self.ARGUMENTS, "--token-file", str(file)) as lines:
                assert urlsplit(lines[-1].split()[1]).path == f"/{file.read_text().strip()}/"
        assert file.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize(
        ("content", "mode", "message"),
        [
            ("x" * 32, 0o640, "others can read it; run chmod 600"),
            ("short", 0o600, "holds no token; expected at least 22 letters"),
            ("", 0o600, "holds no token"),
            ("a/" * 20, 0o600, "holds no token"),
            (None, 0o700, "cannot be used"),
        ],
    )
    def test_wrong_token_files_are_refused(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        content: str | None, mode: int, message: str,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(folder)
        file = tmp_path / "token"
        file.mkdir() if content is None else file.write_text(content)
        file.chmod(mode)
        assert main([*self.ARGUMENTS, "--token-file", str(file)]) == 2
        assert message in capsys.readouterr().err

    def test_named_proxies_are_accepted(self, folder: Path) -> None:
        allowed = ["--allow-host", "Hub.example", "--allow-origin", "https://hub.example"]
        with started_in_thread(folder, *self.ARGUMENTS, *allowed) as lines:
            address = lines[-1].split()[1]
            assert ask(address, "api/clips", Host="hub.example", Origin="https://hub.example").status == 200
            assert ask(address, "api/clips", Host="hub.example", Origin="http://hub.example").status == 200
            assert ask(address, "api/clips", Host="other.example").status == 421
            assert ask(address, "api/clips", Host="hub.example", Origin="https://evil.example").status == 403

    @pytest.mark.parametrize("origin", ["hub.example", "ftp://hub.example", "https://hub.example/page", "*"])
    def test_wrong_origins_are_refused(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], origin: str
    ) -> None:
        monkeypatch.chdir(folder)
        assert main([*self.ARGUMENTS, "--port", "0", "--allow-origin", origin]) == 2
        assert "expected a scheme and a host, such as https://hub.example.org" in capsys.readouterr().err

    def test_redirect_stays_below_the_path_of_a_proxy(self, address: str) -> None:
        answer = ask(address, urlsplit(address).path.rstrip("/"))
        assert answer.status == 307
        assert answer.headers["Location"] == urlsplit(address).path.strip("/") + "/"

    @pytest.mark.parametrize(
        ("variables", "command"),
        [
            ({}, ""),
            ({"SSH_CONNECTION": "1 2 3 4"}, "ssh -L 8000:127.0.0.1:8000 me@node7"),
            ({"SLURM_SUBMIT_HOST": "login"}, "ssh -J me@login -L 8000:127.0.0.1:8000 me@node7"),
            ({"SLURM_SUBMIT_HOST": "node7"}, "ssh -L 8000:127.0.0.1:8000 me@node7"),
        ],
    )
    def test_ssh_command_names_the_host_and_the_port(
        self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], command: str
    ) -> None:
        for name in ("SSH_CONNECTION", "SLURM_SUBMIT_HOST"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (variables | {"LOGNAME": "me"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(socket, "gethostname", lambda: "node7")
        assert ssh_command(8000) == command


class TestConnections:
    def test_half_open_connections_do_not_stop_the_page(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
        with ExitStack() as stack, started_in_thread(folder, *TestRemote.ARGUMENTS) as lines:
            address = lines[-1].split()[1]
            place = (urlsplit(address).hostname, urlsplit(address).port)
            for number in range(100):
                half_open = stack.enter_context(socket.create_connection(place))
                half_open.sendall(b"GET / HTTP/1.1\r\n" if number % 2 else b"")
            assert ask(address, "api/clips").status == 200
        assert "Traceback" not in capfd.readouterr().err

    @pytest.mark.parametrize(
        "begun", [b"", b"GET / HTTP/1.1\r\nX: ", b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1"]
    )
    def test_request_that_does_not_arrive_ends(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
    ) -> None:
        monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
        with started_in_thread(folder, *TestRemote.ARGUMENTS) as lines:
            address = lines[-1].split()[1]
            with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=60) as slow:
                slow.sendall(begun)
                with suppress(ConnectionResetError):
                    while slow.recv(1000):  # an answer, then the end
                        pass
            assert ask(address, "api/clips").status == 200


def test_masks_of_too_many_objects_are_refused(address: str) -> None:
    """Each takes time and memory; the page asks for those of one frame."""
    for number, status in ((2, 200), (301, 422)):
        objects = [SQUARE | {"id": 1 + place} for place in range(number)]
        assert ask(address, "api/masks", "POST", {"clip": "a", "frame": 0, "objects": objects}).status == status


class TestReachableFiles:
    @pytest.mark.parametrize(
        "path",
        [
            "static/../../secret.txt", "static/..%2f..%2fsecret.txt", "static/%2e%2e/%2e%2e/secret.txt",
            "static//etc/passwd", "static/%2fetc%2fpasswd", "static/prompt.html%00.js", "static/", "..", "../", "./",
            "static/server.py", "static/__init__.py", "api/../static/../../clips/secret.txt", "secret.txt",
            "api/frame?clip=../../secret.txt&frame=0", "api/frame?clip=secret&frame=0",
            "api/thumbnail?clip=/etc/passwd",
            "api/thumbnail?clip=a.mp4", "api/clip?clip=..%2fsecret.txt", "api/clip",
        ],
    )  # fmt: skip
    def test_other_files_cannot_be_read(self, address: str, path: str) -> None:
        answer = ask(address, path)
        assert answer.status in (403, 404)
        assert SECRET.encode() not in answer.body
        assert b"root:" not in answer.body

    @pytest.mark.parametrize("mask", ["../elsewhere.png", "/etc/passwd", "mask.png", "https://evil.example/m.png"])
    def test_mask_files_of_other_entries_are_refused(self, address: str, mask: str, folder: Path) -> None:
        objects = [{"id": 1, "frame": 0, "mask": mask}]
        assert ask(address, "api/masks", "POST", {"clip": "a", "frame": 0, "objects": objects}).status == 403
        change = {"clip": "a", "version": version_of(None), "objects": objects}
        assert ask(address, "api/entry", "PUT", change).status == 403
        assert "a" not in load_manifest(folder / "clips" / "prompts.yaml").clips

    def test_mask_file_named_by_the_manifest_is_read(self, address: str) -> None:
        objects = [{"id": 2, "frame": 0, "mask": "mask.png"}]
        (mask,) = ask(address, "api/masks", "POST", {"clip": "mask", "frame": 0, "objects": objects}).json()["masks"]
        assert (mask["area"], mask["x"], mask["y"]) == (200, 30, 10)

    def test_other_http_methods_are_refused(self, address: str) -> None:
        for method, path in [("POST", "api/clips"), ("GET", "api/entry"), ("DELETE", "api/entry"), ("TRACE", "")]:
            assert ask(address, path, method).status == 405


class TestUntrustedInput:
    def memory(self, address: str) -> int:
        """Resident bytes of the server process."""
        port = f":{urlsplit(address).port:04X} "
        inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if port in line}
        for process in Path("/proc").glob("[0-9]*/fd"):
            try:
                links = {str(link.readlink()) for link in process.iterdir()}
            except OSError:
                continue
            if links & {f"socket:[{inode}]" for inode in inodes} and int(process.parent.name) != os.getpid():
                status = (process.parent / "status").read_text()
                return int(status.split("VmRSS:")[1].split()[0]) * 1024
        raise AssertionError("no server found")

    def test_body_with_a_content_length_of_a_gigabyte_is_refused(self, address: str) -> None:
        before = self.memory(address)
        for path, method in [("api/entry", "PUT"), ("api/masks", "POST"), ("api/clips", "GET"), ("", "GET")]:
            answer = ask(address, path, method, Content_Length=str(GIGABYTE), Content_Type="application/json")
            assert answer.status == 413
        assert self.memory(address) - before < 30 * 2**20

    def test_chunked_body_of_a_gigabyte_is_refused(self, address: str) -> None:
        """Reading stops long before its end."""
        before = self.memory(address)
        parts = urlsplit(address)
        piece = b"100000\r\n" + b" " * 2**20 + b"\r\n"
        sent = 0
        with socket.create_connection((parts.hostname, parts.port), timeout=120) as connection:
            head = f"PUT {parts.path}api/entry HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            try:
                while sent < GIGABYTE:
                    connection.sendall(piece)
                    sent += 2**20
            except OSError:
                pass
        assert sent < GIGABYTE / 4
        assert self.memory(address) - before < 30 * 2**20
        assert ask(address, "api/clips").status == 200

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"", 400), (b"{", 400), (b"[" * 100_000, 400), (b"\xff\xfe", 400), (b"[]", 422), (b"{}", 422),
            (json.dumps({"clip": "a", "version": "x", "objects": [], "more": 1}).encode(), 422),
            (json.dumps({"clip": "unknown", "version": "x", "objects": []}).encode(), 404),
            (json.dumps({"clip": "a", "version": "x", "objects": [SQUARE] * 20_000}).encode(), 422),
        ],
    )  # fmt: skip
    def test_malformed_bodies_are_refused(self, address: str, body: bytes, status: int) -> None:
        assert ask(address, "api/entry", "PUT", body).status == status

    def test_other_content_types_are_refused(self, address: str) -> None:
        """Other sites can send these without a preflight request."""
        assert ask(address, "api/entry", "PUT", b"{}", Content_Type="text/plain").status == 415

    @pytest.mark.parametrize("frame", ["", "-1", "6", "99999999999999999999", "1.5", "٣", "0x0"])
    def test_invalid_frame_numbers_are_refused(self, address: str, frame: str) -> None:
        assert ask(address, f"api/frame?clip=a&frame={quote(frame)}").status in (400, 422)

    @pytest.mark.parametrize(
        ("objects", "reason"),
        [
            ([{"id": 0, "box": [1, 2, 3, 4]}], "an integer ≥ 1"),
            ([{"id": 1, "box": [3, 2, 1, 4]}], "x0 < x1"),
            ([{"id": 1}], "none given; expected at least one"),
            ([{"id": 1, "points": [[1, 2]], "labels": [0]}], "has only background points"),
            ([{**SQUARE, "nam": "x"}], "did you mean name"),
            ([{"id": 1, "points": [[float("nan"), 2]]}], "expected [[x, y]"),
            ([{**SQUARE, "name": "a\u202eb"}], "U+202E RIGHT-TO-LEFT OVERRIDE"),
            ([{"id": 1, "box": [0.1, 0.2, 0.9, 0.8]}], "positions are pixels"),
        ],
    )
    def test_mistakes_in_prompts_are_reported_and_not_saved(
        self, address: str, objects: list[Any], reason: str, folder: Path
    ) -> None:
        before = (folder / "clips" / "prompts.yaml").read_bytes()
        answer = ask(address, "api/entry", "PUT", {"clip": "a", "version": version_of(None), "objects": objects})
        assert answer.status == 422
        assert reason in answer.json()["error"]
        assert (folder / "clips" / "prompts.yaml").read_bytes() == before

    def test_save_with_a_stale_version_is_a_conflict(self, address: str) -> None:
        answer = ask(address, "api/entry", "PUT", {"clip": "mask", "version": version_of(None), "objects": [SQUARE]})
        assert answer.status == 409
        assert answer.json()["objects"] == [{"id": 2, "frame": 0, "mask": "mask.png"}]


class TestMaskMaker:
    """The choice of the segmenter; models are loaded on the first click, so any file serves as weights."""

    def output(self, folder: Path, *arguments: str) -> str:
        with started_in_thread(folder, "dataset=videos", "dataset.root=clips", *arguments) as lines:
            assert lines[2].startswith("open http://127.0.0.1:")
        return lines[1]

    def test_grabcut_is_used_without_the_weights_of_sam2(self, folder: Path) -> None:
        output = self.output(folder)
        assert output.startswith("masks by grabcut (not sam2: ")
        assert "aot.checkpoints download" in output

    def test_sam2_is_used_with_its_weights(self, folder: Path) -> None:
        weights = folder / "checkpoints" / "sam2.1_hiera_large.pt"
        weights.parent.mkdir()
        weights.write_bytes(b"weights")
        try:
            assert self.output(folder) == "masks by sam2"
            assert self.output(folder, "segmenter=grabcut") == "masks by grabcut"
        finally:
            weights.unlink()

    def test_segmenter_without_support_for_single_frames_shows_no_masks(self, folder: Path) -> None:
        assert "no masks are shown" in self.output(folder, "segmenter=none")


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "dataset: none chosen"),
            (["dataset=videos"], "dataset.root: required"),
            (["dataset=videos", "dataset.root=nowhere"], "is not a folder"),
            (["dataset=demo"], "does not use a prompt manifest"),
            (["dataset=video", "dataset.path=clips/a.mp4"], "does not use a prompt manifest"),
            (["dataset=davis", "dataset.root=clips"], "dataset.prompts: required"),
            (["dataset=videos", "dataset.root=clips", "frame_intervall=2"], "did you mean frame_interval"),
            (["dataset=videos", "dataset.root=clips", "segmenter=sam2"], "download them with"),
            (["dataset=videos", "dataset.root=clips", "-m"], "remove it"),
            (
                ["dataset=videos", "dataset.root=clips", "segmenter=grabcut", "--port", "1", "--host", "203.0.113.7"],
                "cannot listen on this",
            ),
        ],
    )
    def test_wrong_commands_start_nothing(
        self,
        arguments: list[str],
        message: str,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(folder)
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_words_without_a_detector_are_refused(address: str) -> None:
    answer = ask(address, "api/words", "POST", {"clip": "a", "frame": 0, "text": "mug", "every": False})
    assert answer.status == 422
    assert answer.json()["error"] == "there is no detector; start the page with detector=grounding_dino"
    answer = ask(address, "api/words", "POST", {"clip": "a", "frame": 0, "text": "x" * 201, "every": False})
    assert answer.status == 422
    assert "text: expected words that describe the object, at most 200 characters" in answer.json()["error"]
    assert ask(address, "api/words", "POST", {"clip": "none", "frame": 0, "text": "mug", "every": False}).status == 404
