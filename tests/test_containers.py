"""The container image and the cluster profile that uses it.

Apptainer is not packaged in Debian 12. Where it is not installed, the scripts of the definition are run in a folder in
place of the image, and tasks of the devcluster in a program that takes its place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from aot.run import main
from tests.faults.devcluster import Devcluster, require_devcluster

ROOT = Path(__file__).parents[1]
DEFINITION = ROOT / "launch" / "apptainer.def"
SCRIPTS = ("post", "environment", "runscript", "test")

# Records its arguments, and runs the command as a container does: with the environment of the image.
APPTAINER = """#!/bin/bash
printf '%s\\n' "$@" > "$AOT_TEST_ARGUMENTS"
while [ "$1" != python ]; do shift; done
shift
export AOT_CHECKPOINTS=/checkpoints IN_IMAGE=1
exec "$AOT_TEST_PYTHON" "$@"
"""


def sections() -> dict[str, str]:
    """The sections of the definition; "" is its header."""
    parts = re.split(r"^%(\w+)\n", DEFINITION.read_text(), flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2]))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_image_is_debian_and_takes_the_wheel(wheel: Path) -> None:
    found = sections()
    assert found[""].startswith("Bootstrap: docker\nFrom: debian:12-slim\n")
    source, target = found["files"].split()
    assert fnmatch(f"dist/{wheel.name}", source)
    assert f"{target}{Path(source).name}" in found["post"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_of_the_definition_are_valid(name: str) -> None:
    checked = subprocess.run(["bash", "-n"], input=sections()[name], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_documents_name_the_commands_of_the_definition() -> None:
    commands = re.findall(r"^#   (\S.*)$", sections()[""], flags=re.MULTILINE)
    assert len(commands) == 2
    text = (ROOT / "docs" / "slurm.md").read_text()
    assert all(command in text for command in commands)


@pytest.mark.slow
def test_scripts_of_the_definition_install_aot(wheel: Path, tmp_path: Path) -> None:
    """The dependencies are those of this environment: pip installs only the wheel."""
    image, programs = tmp_path / "image", tmp_path / "programs"
    (image / "opt/aot").mkdir(parents=True)
    (image / "var/lib/apt/lists").mkdir(parents=True)
    shutil.copy(wheel, image / "opt/aot")
    programs.mkdir()
    (programs / "apt-get").write_text('#!/bin/sh\necho "$@" >> "$APT_CALLS"\n')
    (programs / "apt-get").chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "APT_CALLS": str(tmp_path / "calls"),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "HOME": str(tmp_path),
    }
    found = {name: re.sub(r"(?<=[ :=])/(?=opt|var|checkpoints)", f"{image}/", sections()[name]) for name in SCRIPTS}
    run = {"env": environment, "capture_output": True, "text": True, "check": False, "cwd": tmp_path}
    installed = subprocess.run(["bash", "-euc", found["post"]], **run)  # type: ignore[call-overload]
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "calls").read_text().splitlines() == [
        "update",
        "install -y --no-install-recommends ca-certificates python3 python3-venv",
    ]
    assert (image / "checkpoints").is_dir()
    assert not list((image / "opt/aot").glob("*.whl"))
    libraries = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    script = f"{found['environment']}\nexport PYTHONPATH={libraries}\n{found['runscript']}"
    shown = subprocess.run(["bash", "-euc", script, "aot", "--version"], **run)  # type: ignore[call-overload]
    assert re.fullmatch(r"aot \d+\.\d+\.\d+\n", shown.stdout), shown.stderr
    tested = subprocess.run(["bash", "-euc", f"export PYTHONPATH={libraries}\n{found['test']}"], **run)  # type: ignore[call-overload]
    assert tested.returncode == 0, tested.stderr


@pytest.mark.long
def test_the_image_is_built(wheel: Path, tmp_path: Path) -> None:
    """Quick: test_scripts_of_the_definition_install_aot."""
    if shutil.which("apptainer") is None:
        pytest.skip("apptainer is not installed; Debian 12 does not package it")
    (tmp_path / "dist").mkdir()
    shutil.copy(wheel, tmp_path / "dist")
    image = tmp_path / "aot.sif"
    subprocess.run(["apptainer", "build", str(image), str(DEFINITION)], cwd=tmp_path, check=True)
    shown = subprocess.run(["apptainer", "run", str(image), "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("aot ")


@pytest.fixture
def cluster() -> Iterator[Devcluster]:
    with require_devcluster() as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")
def test_tasks_of_the_profile_run_in_the_image(
    cluster: Devcluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "apptainer").write_text(APPTAINER)
    (programs / "apptainer").chmod(0o755)
    weights = tmp_path / "my weights"
    weights.mkdir()
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "AOT_TEST_ARGUMENTS": str(tmp_path / "arguments"),
        "AOT_TEST_PYTHON": sys.executable,
        "AOT_IMAGE": "/images/aot.sif",
        "AOT_CHECKPOINTS": str(weights),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    options = ["--config-dir", str(ROOT / "launch/profiles"), "launcher=apptainer", "launcher.gpus_per_node=0"]
    options += ["launcher.cpus_per_task=1", "launcher.mem_gb=0.9", "launcher.poll_seconds=1"]
    clips = ["dataset=demo", "dataset.scenes=[late]", "frame_interval=8", "output.overlay=false"]
    assert main([*options, *clips, "segmenter=grabcut", "tracker=lucas_kanade"]) == 0
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:8] == [
        *("exec", "--nv", "--bind", str(tmp_path), "--bind", f"{weights}:/checkpoints"),
        *("/images/aot.sif", "python"),
    ]
    assert arguments[8:11] == ["-u", "-m", "submitit.core._submit"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "AOT_IMAGE is not set: expected the path of aot.sif"),
        ({"AOT_IMAGE": "a b.sif"}, "exec|--nv|--bind|/|a b.sif|python|-u|-m|module"),
        (
            {"AOT_IMAGE": "i", "AOT_CHECKPOINTS": "/c"},
            "exec|--nv|--bind|/|--bind|/c:/checkpoints|i|python|-u|-m|module",
        ),
    ],
    ids=["no image", "no weights", "weights"],
)
def test_setup_of_the_profile(variables: dict[str, str], expected: str, tmp_path: Path) -> None:
    profile = yaml.safe_load((ROOT / "launch/profiles/launcher/apptainer.yaml").read_text())
    (tmp_path / "apptainer").write_text('#!/bin/bash\nIFS="|"; echo "$*"\n')
    (tmp_path / "apptainer").chmod(0o755)
    script = "\n".join([*profile["setup"], "exec /venv/bin/python -u -m module"])
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
    ended = subprocess.run(
        ["bash", "-c", script], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert (ended.returncode == 0) == bool(variables)
    assert (ended.stdout or ended.stderr) == f"{expected}\n"
