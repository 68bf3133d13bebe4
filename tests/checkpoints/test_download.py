"""Downloads from an ordinary web server: resuming, retrying and checking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aot.checkpoints import CHECKPOINTS, Checkpoint
from aot.checkpoints.download import download
from aot.errors import CheckpointError, WriteError
from tests.checkpoints.server import CONTENT, FILE, NAME, Server


def known(name: str = NAME) -> Checkpoint:
    return CHECKPOINTS[name]


def ignore(text: str) -> None:
    pass


def test_complete_file_gets_its_name(server: Server, tmp_path: Path) -> None:
    path = download(known(), tmp_path / "new", base_url=server.url, report=ignore)
    assert path == tmp_path / "new" / FILE
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", [NAME, "sam2.1_hiera_base_plus"], ids=["size known", "size unknown"])
def test_interrupted_transfers_are_resumed(name: str, server: Server, tmp_path: Path) -> None:
    server.breaks_after = [1000, 0, 50_000]
    reports: list[str] = []
    path = download(known(name), tmp_path, base_url=server.url, report=reports.append)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=51000-"]
    assert len(reports) == 3
    assert "was interrupted at 1000 bytes" in reports[0]


def test_later_call_resumes(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [100] * 5
    with pytest.raises(CheckpointError, match=r"interrupted 5 times .* to resume after 500 bytes"):
        download(known(), tmp_path, base_url=server.url, report=ignore)
    assert not (tmp_path / FILE).exists()
    assert download(known(), tmp_path, base_url=server.url, report=ignore).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=500-"


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.supports_ranges = False
    server.breaks_after = [1000]
    assert download(known(), tmp_path, base_url=server.url, report=ignore).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize("name", [NAME, "sam2.1_hiera_base_plus"], ids=["size known", "size unknown"])
def test_content_length_too_large(name: str, server: Server, tmp_path: Path) -> None:
    server.announces = len(CONTENT) + 10
    assert download(known(name), tmp_path, base_url=server.url, report=ignore).read_bytes() == CONTENT


def test_content_length_too_small(server: Server, tmp_path: Path) -> None:
    server.announces = len(CONTENT) - 10
    assert download(known(), tmp_path, base_url=server.url, report=ignore).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) - 10}-"], "the size is in the table"
    with pytest.raises(CheckpointError, match=r"SHA-256 .*, expected .*discarded"):
        download(known("sam2.1_hiera_base_plus"), tmp_path, base_url=server.url, report=ignore)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_file_that_is_too_long_is_discarded(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT + b"more"
    with pytest.raises(CheckpointError, match=rf"{len(CONTENT) + 4} bytes, expected {len(CONTENT)}.*discarded"):
        download(known(), tmp_path, base_url=server.url, report=ignore)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [NAME, "sam2.1_hiera_base_plus"], ids=["size known", "size unknown"])
def test_file_with_a_wrong_byte_is_discarded(name: str, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:500] + b"\xff" + CONTENT[501:]
    with pytest.raises(CheckpointError, match=r"SHA-256 .*, expected .*discarded"):
        download(known(name), tmp_path, base_url=server.url, report=ignore)
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    assert download(known(name), tmp_path, base_url=server.url, report=ignore).read_bytes() == CONTENT


def test_complete_part_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    for name in (NAME, "sam2.1_hiera_base_plus"):
        (tmp_path / f"{CHECKPOINTS[name].file}.part").write_bytes(CONTENT)
        assert download(known(name), tmp_path, base_url=server.url, report=ignore).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"], "a request is sent only where the size is unknown"


def test_file_missing_on_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the server answered 404"):
        download(replace(known(), file="absent"), tmp_path, base_url=server.url, report=ignore)


def test_unreachable_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aot.checkpoints.download._pause_seconds", lambda attempt: 0.0)
    with pytest.raises(CheckpointError, match="could not be reached in 5 attempts"):
        download(known(), tmp_path, base_url="http://127.0.0.1:9", report=ignore)


def test_unwritable_part_raises_write_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").mkdir()
    with pytest.raises(WriteError, match="could not be written"):
        download(known(), tmp_path, base_url=server.url, report=ignore)
