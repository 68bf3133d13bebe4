"""The batch script for SLURM, as a dry run prints it on any machine; tests/faults submits such scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aot.run import main
from tests.launching.clips import Clips

PROFILES = Path(__file__).parents[3] / "launch" / "profiles"


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path, {"a": 5, "b": 7, "c": 9})


def sbatch_options(shown: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", shown, re.MULTILINE))


def test_batch_script_has_every_option(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    values = [
        "partition=[gpu,long]", "exclude='node[1-3]'", "gres=craynetwork:1", "comment='two words'", "requeue=false",
        "account=robots", "qos=long", "constraint=a100", "gpus_per_node=2", "cpus_per_task=8",
        "mem_gb=0.5", "timeout_min=90", "signal_delay_s=60", "array_parallelism=2", "clips_per_task=1",
    ]  # fmt: skip
    others = ["launcher.setup=[module load cuda]", "launcher.additional_parameters={nice: 100, mail-type: END}"]
    assert clips.run("launcher=slurm", "dry_run=true", *(f"launcher.{option}" for option in values), *others) == 0
    shown = capsys.readouterr().out
    options = sbatch_options(shown)
    expected = {
        "partition": "gpu,long", "exclude": "'node[1-3]'", "gres": "craynetwork:1", "comment": "'two words'",
        "no-requeue": "", "account": "robots", "qos": "long", "constraint": "a100", "gpus-per-node": "2",
        "cpus-per-task": "8", "mem": "512M", "time": "90", "signal": "B:USR2@60", "array": "0-2%2", "nice": "100",
        "mail-type": "END", "open-mode": "append",
    }  # fmt: skip
    assert {key: options.get(key) for key in expected} == expected
    assert not {"wckey", "requeue"} & options.keys()
    assert "\nmodule load cuda\n" in shown
    assert re.search(r"^exec \S+python\S* -u -m submitit", shown, re.MULTILINE), "signals reach our process"
    assert "3 shards of 2 workers, at most 2 at a time" in shown
    assert "memory of a worker: 0.2 GB" in shown


def test_profile_sets_the_options(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [argument.replace(str(clips.folder / "options"), str(PROFILES)) for argument in clips.arguments()]
    arguments = [argument.replace("tracker=scripted", "tracker=lucas_kanade") for argument in arguments]
    assert main([*arguments, "launcher=devcluster", "dry_run=true"]) == 0
    options = sbatch_options(capsys.readouterr().out)
    assert (options["mem"], options["array"], options["time"]) == ("922M", "0-1%2", "240")


@pytest.mark.parametrize("option", ["mem_per_gpu=32G", "mem_per_cpu=8G"])
def test_memory_per_gpu_and_per_core(clips: Clips, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert clips.run("launcher=slurm", "dry_run=true", f"launcher.{option}") == 0
    options = sbatch_options(capsys.readouterr().out)
    name, _, value = option.partition("=")
    assert options[name.replace("_", "-")] == value
    assert "mem" not in options


def test_missing_sbatch_is_refused(
    clips: Clips, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(clips.folder))
    assert clips.run("launcher=slurm") == 2
    assert "there is no sbatch on this machine" in capsys.readouterr().err
