"""Weights whose SHA-256 is not published: the first download is recorded, and can be reduced to its weights."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch

from aot.checkpoints import CHECKPOINTS, identify, read_state_dict
from aot.checkpoints.__main__ import main
from aot.checkpoints.download import check, download
from aot.checkpoints.record import read_record, record_path
from aot.checkpoints.slimming import keep_only_weights
from aot.errors import CheckpointError
from tests.checkpoints.server import Server

NAME = "tapnextpp"


@pytest.fixture
def training_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What the server sends: weights and the state of an optimizer; the table has no SHA-256 for it."""
    file = BytesIO()
    torch.save({"state_dict": {"w": torch.arange(6.0)[::2]}, "optimizer_states": [torch.zeros(5000)]}, file)
    monkeypatch.setattr(server, "content", file.getvalue(), raising=False)
    monkeypatch.setitem(CHECKPOINTS, NAME, replace(CHECKPOINTS[NAME], sha256=None, num_bytes=None))
    return file.getvalue()


def test_first_download_is_recorded_and_later_ones_compared_with_it(
    training_file: bytes, server: Server, tmp_path: Path
) -> None:
    reports: list[str] = []
    path = download(CHECKPOINTS[NAME], tmp_path, base_url=server.url, report=reports.append)
    record = read_record(path)
    assert record is not None
    assert record.sha256 == record.downloaded_sha256 == identify(path).sha256
    assert record.sha256 in reports[0]
    assert identify(path).licence == "Apache-2.0"
    path.unlink()
    server.content = training_file[:-1] + b"x"
    with pytest.raises(CheckpointError, match=rf"expected {record.sha256}; the download was discarded"):
        download(CHECKPOINTS[NAME], tmp_path, base_url=server.url, report=reports.append)


def test_changed_file_is_noticed(training_file: bytes, server: Server, tmp_path: Path) -> None:
    path = download(CHECKPOINTS[NAME], tmp_path, base_url=server.url, report=print)
    check(CHECKPOINTS[NAME], path)
    path.write_bytes(training_file[:-1] + b"x")
    with pytest.raises(CheckpointError, match="has the SHA-256"):
        check(CHECKPOINTS[NAME], path)
    record_path(path).write_text("{")
    with pytest.raises(CheckpointError, match="is damaged; delete it to record"):
        check(CHECKPOINTS[NAME], path)


def test_file_is_reduced_to_its_weights(
    training_file: bytes, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["download", NAME, "--folder", str(tmp_path), "--base-url", server.url, "--weights-only"]
    assert main(command) == 0
    path = tmp_path / CHECKPOINTS[NAME].file
    assert torch.equal(read_state_dict(path, key="state_dict")["w"], torch.tensor([0.0, 2.0, 4.0]))
    assert path.stat().st_size < len(training_file) - 4 * 5000
    record = read_record(path)
    assert record is not None
    assert record.sha256 == identify(path).sha256 != record.downloaded_sha256
    reduced = path.read_bytes()
    assert main(command) == 0
    assert path.read_bytes() == reduced, "a second command changes nothing"
    assert main(["verify", NAME, "--folder", str(tmp_path)]) == 0
    assert "besides the weights were removed" in capsys.readouterr().out


def test_file_without_a_record_is_not_reduced(training_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    path.write_bytes(training_file)
    with pytest.raises(CheckpointError, match="has no record of its download"):
        keep_only_weights(path)
    assert path.read_bytes() == training_file
