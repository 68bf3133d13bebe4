"""A path that is not a run folder or a sweep folder: the message describes it, and names the next step."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import aot
from aot.errors import ConfigError
from aot.runs.folders import not_a_run, not_a_sweep

RUN_COMMANDS = {
    "aot.verify": [],
    "aot.evaluate.__main__": [],
    "aot.report.__main__": [],
    "aot.export.__main__": ["--format", "npz"],
    "aot.cancel": [],
    "aot.status": [],
}


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, and a sweep with four."""
    monkeypatch.chdir(tmp_path)
    root = Path("outputs")
    names = [f"sweep-01234567/grabcut-k{k}" for k in (1, 2, 4, 8)]
    for name in ["videos/grabcut-k1-aaaa", "videos/sam2-k1-bbbb", *(f"videos/{name}" for name in names)]:
        (root / name / "clips").mkdir(parents=True)
        (root / name / "run.json").write_text('{"config_hash": "0", "clips": {}}')
    return root


SWEEP = (
    "outputs/videos/sweep-01234567 is a sweep folder with 4 runs (grabcut-k1, grabcut-k2, grabcut-k4, …); use one of "
    "them, or compare the runs of a sweep with: python -m aot.sweep outputs/videos/sweep-01234567"
)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("outputs/videos/sweep-01234567", SWEEP),
        ("outputs/vidoes/grabcut-k1-aaaa", "does not exist; expected a run folder, as printed by aot.run, such as "),
        ("outputs/vidoes/grabcut-k1-aaaa", "; did you mean outputs/videos/grabcut-k1-aaaa?"),
        ("outputs/vidoes/sam2-k1", "; did you mean outputs/videos/sam2-k1-bbbb?"),
        ("outputs/videos/zzz", "does not exist; expected a run folder"),
        ("outputs/videos/grabcut-k1-aaaa/run.json", "is a file; expected a run folder"),
        ("outputs/videos/grabcut-k1-aaaa/run.json", "outputs/videos/grabcut-k1-aaaa?"),
        ("outputs/videos/grabcut-k1-aaaa/clips", "is a folder inside a run folder; use "),
        ("outputs/videos", "it contains 2 runs (grabcut-k1-aaaa, sam2-k1-bbbb); use one of them"),
        ("outputs", "it contains no run.json; expected a run folder"),
        ("outputs", "below it (outputs/videos/grabcut-k1-aaaa, outputs/videos/sam2-k1-bbbb)"),
        ("x" * 300, "cannot be read: a name in its path is too long; expected a run folder"),
    ],
)
def test_path_that_is_not_a_run_is_described(path: str, message: str, outputs: Path) -> None:
    assert message in str(not_a_run(Path(path)))


def test_the_only_run_in_a_folder_is_named(outputs: Path) -> None:
    run = outputs / "demo" / "grabcut-k1"
    (run / "clips").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    assert str(not_a_run(run.parent)) == f"outputs/demo is not a run folder, but contains one; use {run}"


@pytest.mark.parametrize(
    "path", ["outputs/videos/sweep-01234567", "outputs/vidoes", "outputs/a file", "outputs", "x" * 300]
)
@pytest.mark.parametrize("command", RUN_COMMANDS)
def test_commands_print_the_description(
    command: str, path: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outputs / "a file").touch()
    main = importlib.import_module(command).main
    if command == "aot.status" and "sweep-" in path:  # it shows all runs of a sweep
        assert main([path]) == 0
        return
    assert main([path, *RUN_COMMANDS[command]]) == 2
    message = capsys.readouterr().err
    assert message == f"{not_a_run(Path(path))}\n" or "a name in its path is too long" in message
    assert "Errno" not in message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("outputs/videos/sweep-01234567/grabcut-k2", "is a single run; expected a sweep folder"),
        ("outputs/videos/sweep-01234567/grabcut-k2", "/outputs/videos/sweep-01234567; score a single run with: "),
        ("outputs/videos/sam2-k1-bbbb", "python -m aot.evaluate outputs/videos/sam2-k1-bbbb"),
        ("outputs/videos/sweep-01234568", "does not exist; expected a sweep folder"),
        ("outputs/videos/sweep-01234568", "; did you mean outputs/videos/sweep-01234567?"),
        ("outputs/videos/sam2-k1-bbbb/run.json", "is a file; expected a sweep folder"),
        ("outputs", "is not a sweep folder, it contains 0 runs; expected a sweep folder"),
    ],
)
def test_path_that_is_not_a_sweep_is_described(
    path: str, message: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in str(not_a_sweep(Path(path)))
    assert importlib.import_module("aot.sweep.__main__").main([path]) == 2
    assert capsys.readouterr().err == f"{not_a_sweep(Path(path))}\n"


def test_sweep_folders_below_are_named(outputs: Path) -> None:
    """A folder of single runs is compared like a sweep; without any, the sweeps below it are named."""
    for run in outputs.glob("videos/*-k1-*/run.json"):
        run.unlink()
    assert str(not_a_sweep(outputs / "videos")).endswith("below it (outputs/videos/sweep-01234567)")


@pytest.mark.parametrize("path", ["outputs/vidoes", "outputs/videos/sweep-01234567", "x" * 300])
def test_open_run_describes_the_path(path: str, outputs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        aot.open_run(path)
    assert str(caught.value) == str(not_a_run(Path(path)))
