"""Settings and flags of Hydra either work or are refused with the replacement; never a traceback, never ignored."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import aot
from aot.arguments import parse_command
from aot.errors import ConfigError
from aot.run import main

DEMO = ["dataset=demo", "dataset.include=[late]", "segmenter=grabcut", "tracker=lucas_kanade", "launcher=inline"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["hydra/launcher=submitit_slurm"], "write launcher=slurm"),
        (["hydra/launcher=joblib"], "write launcher=slurm"),
        (["hydra.launcher.partition=gpu"], "launcher.partition=gpu"),
        (["-m", "hydra/sweeper=optuna"], "-m frame_interval=1,2,4"),
        (["hydra.sweeper.params={frame_interval: '1,2'}"], "-m frame_interval=1,2,4"),
        (["+hydra.sweeper.params.frame_interval='1,2'"], "-m frame_interval=1,2,4"),
        (["hydra.sweep.dir=elsewhere"], "output.root=FOLDER"),
        (["hydra.run.dir=elsewhere"], "output.root=FOLDER"),
        (["hydra.job.chdir=true"], "leave it out"),
        (["--shell-completion", "install=bash"], "tab completion is not supported"),
        (["--config-path", "elsewhere"], "--config-dir DIR"),
        (["--config-name", "elsewhere"], "--config-dir DIR"),
        (["--cfg", "hydra", "-m"], "use --cfg job"),
    ],
)
def test_settings_without_effect_are_refused(
    arguments: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*DEMO, *arguments]) == 2
    message = capsys.readouterr().err
    assert advice in message
    assert len(message.splitlines()) == 2, "one line, and the reference to --help"
    assert list(Path().iterdir()) == []


@pytest.mark.skipif(find_spec("hydra_plugins") is None, reason="needs hydra-submitit-launcher")
def test_an_installed_launcher_plugin_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DEMO, "-m", "hydra/launcher=submitit_local"]) == 2
    assert "write launcher=slurm" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("hydra.mode=FOO", "hydra.mode=FOO: no such mode; expected RUN or MULTIRUN"),
        ("--hydra-help", "--hydra-help: use --help"),
    ],
)
def test_unusable_hydra_arguments_are_refused(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DEMO, argument]) == 2
    assert message in capsys.readouterr().err


def test_sweep_in_which_nothing_started_does_not_name_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("not a folder")
    assert main([*DEMO, "-m", "frame_interval=16,24", "output.root=file/below"]) == 2
    assert "aot.sweep" not in capsys.readouterr().out


def test_hydra_mode_multirun_starts_a_sweep(demo_root: Path) -> None:
    command = [*DEMO, f"dataset.root={demo_root}", "output.report=false"]
    assert main([*command, "hydra.mode=MULTIRUN", "frame_interval=16,24"]) == 0
    (sweep,) = Path("outputs/demo").iterdir()
    assert sweep.name.startswith("sweep-")
    assert len(list(sweep.glob("*/clips/late.h5"))) == 2


def test_the_last_line_of_a_sweep_is_the_next_command(demo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*DEMO, f"dataset.root={demo_root}", "output.report=false"]
    assert main([*command, "-m", "frame_interval=16,24"]) == 0
    (sweep,) = Path("outputs/demo").iterdir()
    assert f"python -m aot.sweep {sweep}" in capsys.readouterr().out


def test_cfg_job_prints_every_configuration_of_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DEMO, "-m", "frame_interval=1,2", "--cfg", "job"]) == 0
    shown = capsys.readouterr().out
    assert "frame_interval: 1\n" in shown
    assert "frame_interval: 2\n" in shown


@pytest.mark.parametrize(
    ("typed", "joined"),
    [
        (["dataset.box=[410,", "348,", "522,", "420]"], "dataset.box=[410, 348, 522, 420]"),
        (["dataset.box=[-5,", "-3,", "8,", "9]", "frame_interval=2"], "dataset.box=[-5, -3, 8, 9]"),
        (["dataset.points=[[1,", "2],", "[3,", "4]]"], "dataset.points=[[1, 2], [3, 4]]"),
        (['dataset.root="my', 'clips"'], 'dataset.root="my clips"'),
    ],
)
def test_an_argument_split_by_the_shell_is_reported_once(typed: list[str], joined: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_command(["dataset=video", *typed])
    assert str(caught.value) == (
        f"{joined}: the shell split this argument at its spaces; put the whole argument in single quotes: '{joined}'"
    )


def test_box_split_by_the_shell_gives_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset=video", "dataset.path=a.mp4", "dataset.box=[410,", "348,", "522,", "420]"]) == 2
    message, *rest = capsys.readouterr().err.splitlines()
    assert message.endswith("put the whole argument in single quotes: 'dataset.box=[410, 348, 522, 420]'")
    assert rest == ["Nothing was started. `python -m aot.run --help` lists all options."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--verison", "--verison: no such flag; did you mean --version?"),
        ("-v", "-v: no such flag; did you mean --version?"),
        ("--multi-run dataset=demo", "--multi-run: no such flag; did you mean --multirun?"),
        ("--dataset demo", "--dataset: no such flag; settings have no dashes: dataset=demo"),
        ("--frame_interval=2", "--frame_interval=2: no such flag; settings have no dashes: frame_interval=2"),
        ("--dataset.root 'my clips'", "--dataset.root: no such flag; settings have no dashes: "
         "'dataset.root=\"my clips\"'"),
        ("--dry-run", "--dry-run: no such flag; settings have no dashes: dry_run=VALUE"),
        ("--foo dataset=demo", "--foo: no such flag; expected one of --help, --version, --cfg, --resolve, --run, "
         "--multirun, --config-dir, --info, and settings as key=value"),
        ("--cfg dataset=demo", "--cfg/-c 'dataset=demo': expected one of "),
        ("dataset = demo", "dataset = demo: remove the spaces around '=': dataset=demo"),
        ("dataset =demo", "dataset =demo: remove the spaces around '=': dataset=demo"),
        ("dataset= demo", "dataset= demo: remove the space after '=': dataset=demo"),
        ("demo", "demo: expected key=value; did you mean dataset=demo?"),
        ("dataset=demo grabcut", "grabcut: expected key=value; did you mean segmenter=grabcut?"),
        ("dataset=demo =3", "=3: expected key=value"),
        ("dataset=demo ''", "'': expected key=value"),
        ("dataset=demo 'a b=3'", "a b=3: 'a b' is not a key; expected key=value, such as frame_interval=2"),
        ("dataset=video dataset.path=my tea pot.mp4 frame_interval=2", "dataset.path=my tea pot.mp4: the shell split "
         "this argument at its spaces; write 'dataset.path=\"my tea pot.mp4\"'"),
        ("dataset=video 'dataset.path=tea (1).mp4'", "dataset.path=tea (1).mp4: this value needs double quotes inside "
         "single quotes: 'dataset.path=\"tea (1).mp4\"'"),
        ("dataset=video dataset.path=a.mp4 dataset.box=[1,2,3,4", "dataset.box=[1,2,3,4: a bracket or a quote is not "
         "closed"),
        ("dataset=video dataset.path=a.mp4 dataset.box=4,3,5,4", "dataset.box=4,3,5,4: several values are a sweep; add "
         "-m, or, where a list is expected, write it in brackets: 'dataset.box=[4,3,5,4]'"),
        ("dataset=video dataset.path=a,b.mp4", "dataset.path=a,b.mp4: several values are a sweep; add -m, or put one "
         "value that has commas in quotes: 'dataset.path=\"a,b.mp4\"'"),
        ("dataset=davis,demo", "dataset=davis,demo: several values are a sweep; add -m"),
        ("dataset=null", "dataset=null: no such option; expected one of davis, "),
        ("dataset=demo ~overlay", "~overlay: a setting cannot be deleted; give it a value: overlay=VALUE"),
        ("dataset=demo launcher.partition=gpu", "launcher.partition: no such key; it belongs to launcher=slurm"),
        ("dataset=demo tracker.window_px=9", "tracker.window_px: no such key; it belongs to tracker=lucas_kanade"),
    ],
)  # fmt: skip
def test_an_error_on_the_command_line_gives_one_message(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(arguments)) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith(message)
    assert rest == ["Nothing was started. `python -m aot.run --help` lists all options."]
    assert list(Path().iterdir()) == []


def test_help_names_the_dataset_that_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "No dataset is chosen: this help shows dataset=demo" in shown
    assert "(integer ≥ 1) keep every k-th source frame" in shown
    assert main(["--help", "dataset=davis", "tracker=lucas_kanade"]) == 0
    shown = capsys.readouterr().out
    assert "No dataset is chosen" not in shown
    assert "dataset.prompt_from=mask" in shown
    assert "tracker.window_px=9" in shown


def aot_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    package = Path(aot.__file__).parents[1]
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(package)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_commands_are_listed_and_run() -> None:
    listed = aot_command("-m", "aot", "--help")
    without_verb = aot_command("-m", "aot")
    assert (without_verb.returncode, without_verb.stdout) == (0, listed.stdout)
    assert listed.returncode == 0
    for verb in "run status cancel prompt prompts checkpoints evaluate sweep report export verify".split():
        assert f"  {verb} " in listed.stdout
    assert aot_command("-m", "aot", "--version").stdout.startswith("aot ")
    assert aot_command("-m", "aot.run", "--version").stdout.startswith("aot ")
    assert aot_command("-m", "aot", "prompts", "schema").stdout.startswith("{")
    wrong = aot_command("-m", "aot", "reprot")
    assert (wrong.returncode, wrong.stderr) == (2, "aot reprot: no such command; did you mean report?\n")


@pytest.mark.parametrize("file", ["run.py", "status.py", "evaluate/__main__.py"])
def test_starting_a_command_by_its_path_is_refused(file: str) -> None:
    started = aot_command(str(Path(aot.__file__).parent / file), "--help")
    assert started.returncode == 2
    assert "python -m aot" in started.stderr
    assert "Traceback" not in started.stderr


def test_a_missing_dependency_names_the_environment(tmp_path: Path) -> None:
    started = aot_command("-S", "-m", "aot.run", "--help")
    assert started.returncode == 2
    assert ". .venv/bin/activate" in started.stderr
    assert "Traceback" not in started.stderr
