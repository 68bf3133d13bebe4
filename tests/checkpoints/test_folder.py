"""The folder of weights: which one is used, by the commands and by the models, also one that cannot be written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aot.checkpoints import require_checkpoint, weights_folder
from aot.checkpoints.__main__ import main
from tests.checkpoints.server import CONTENT, FILE, NAME, Server


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_environment_comes_before_the_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("checkpoints").mkdir()
    monkeypatch.setenv("AOT_CHECKPOINTS", str(tmp_path / "shared"))
    assert weights_folder() == tmp_path / "shared"
    monkeypatch.setenv("AOT_CHECKPOINTS", "")
    assert weights_folder() == Path("checkpoints")


def test_home_of_the_user_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AOT_CHECKPOINTS", "~/weights")
    assert weights_folder() == tmp_path / "weights"


@pytest.mark.parametrize("is_file", [False, True])
def test_without_a_local_folder_the_cache_is_used(
    is_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_file:
        Path("checkpoints").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert weights_folder() == tmp_path / "cache/aot/checkpoints"


@pytest.mark.parametrize("given", ["", "relative/cache"])
@pytest.mark.parametrize(("platform", "cache"), [("linux", ".cache"), ("darwin", "Library/Caches")])
def test_cache_of_the_platform(
    given: str, platform: str, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    assert weights_folder() == tmp_path / cache / "aot/checkpoints"


def test_a_download_is_found_by_runs_in_other_folders(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["download", NAME, "--base-url", server.url]) == 0
    capsys.readouterr()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = require_checkpoint(NAME, None, option="segmenter.checkpoint", without="segmenter=grabcut")
    assert found.read_bytes() == CONTENT
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == f"{NAME}: {found} is complete\n"


@pytest.mark.parametrize("command", ["list", "verify", "download"])
def test_a_shared_folder_is_only_read(
    command: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / FILE).write_bytes(CONTENT)
    before = shared.stat().st_mtime_ns
    monkeypatch.setenv("AOT_CHECKPOINTS", str(shared))
    shared.chmod(0o555)  # ignored for root, for whom the comparison of times remains
    assert main([command, NAME]) == 0
    shown = "".join(capsys.readouterr().out.split())  # the table folds long paths
    assert str(shared / FILE) in shown
    assert require_checkpoint(NAME, None, option="segmenter.checkpoint", without="") == shared / FILE
    assert (shared.stat().st_mtime_ns, server.ranges) == (before, [])


def test_missing_weights_name_the_folder_that_was_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOT_CHECKPOINTS", str(tmp_path / "shared"))
    with pytest.raises(Exception, match=r"AOT_CHECKPOINTS=FOLDER in the environment") as caught:
        require_checkpoint(NAME, None, option="segmenter.checkpoint", without="segmenter=grabcut")
    assert f"no weights at {tmp_path / 'shared' / FILE};" in str(caught.value)
