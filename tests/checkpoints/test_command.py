"""`python -m aot.checkpoints`: its three commands, wrong arguments and consent to licences."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from aot.checkpoints import CHECKPOINTS
from aot.checkpoints.__main__ import main
from aot.checkpoints.download import BASE_URL_VARIABLE
from tests.checkpoints.server import CONTENT, FILE, NAME, Server


def test_list_download_and_verify(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in CHECKPOINTS)
    assert "CC-BY-NC-4.0 (not commercial)" in listed
    assert "size unknown" in listed
    assert main(["download", NAME, "--base-url", server.url]) == 0
    assert "licence Apache-2.0" in capsys.readouterr().out
    assert main(["download", NAME, "--base-url", server.url]) == 0
    assert "already downloaded" in capsys.readouterr().out
    assert len(server.ranges) == 1
    assert main(["list", NAME]) == 0
    assert f"checkpoints/{FILE}" in capsys.readouterr().out
    assert main(["verify"]) == 0
    assert f"{FILE} is complete" in capsys.readouterr().out
    (tmp_path / "checkpoints" / FILE).write_bytes(CONTENT[:-1] + b"x")
    assert main(["verify"]) == 1
    assert "SHA-256" in capsys.readouterr().err
    assert main(["verify", "sam2.1_hiera_large"]) == 1
    assert "checkpoints/sam2.1_hiera_large.pt does not exist; download it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download"], "no name given; expected some of sam2.1_hiera_tiny"),
        (["download", "sam2.1_hiera_tinny"], "did you mean sam2.1_hiera_tiny"),
        (["verify", "nothing at all"], "no such checkpoint"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
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
    ids=["no terminal", "accepted", "no", "empty answer", "end of input", "yes"],
)
def test_consent(
    arguments: list[str], stdin: io.StringIO, expected: int, server: Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setenv(BASE_URL_VARIABLE, server.url)
    assert main(["download", NAME, "cotracker3_offline", "--folder", str(tmp_path), *arguments]) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ([FILE, "scaled_offline.pth"] if expected == 0 else [])
    output = capsys.readouterr()
    assert "CC-BY-NC-4.0" in output.out + output.err
    if "--accept-license" not in arguments:
        assert "tracker=tapnext allows it: its weights are Apache-2.0" in output.out + output.err
    if stdin.isatty() is False and expected:
        assert "--accept-license" in output.err
