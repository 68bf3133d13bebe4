"""`aot.run` as tests call it: common options, working directory, run folder, environment of a child process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import aot
from aot.run import main

EMBEDDED_MODELS = ("segmenter=grabcut", "tracker=lucas_kanade")
"""The models that need no weights and no GPU."""
EMBEDDED = (*EMBEDDED_MODELS, "launcher=inline")
"""The same, run in the process of the test."""
FAST = (*EMBEDDED_MODELS, "query_points.num_points=20")
"""The same with few points, run by the default launcher."""
VIDEOS = ("dataset=videos", "dataset.root=clips", *EMBEDDED, "output.report=false", "output.overlay=false")
"""A run of the videos in clips/, without pages and overlays."""

DEMO_CLIPS = ("late", "zoom")
"""The clips of the run that the fixture `demo_outputs` makes."""


def demo_command(demo_root: Path, out: Path) -> list[str]:
    """The arguments of the run that the fixture `demo_outputs` makes."""
    options = [f"dataset.root={demo_root}", f"dataset.include=[{','.join(DEMO_CLIPS)}]", f"output.root={out}"]
    options += ["output.overlay=false", "output.evaluate=false", "query_points.num_points=20", "frame_interval=8"]
    return ["dataset=demo", *EMBEDDED, *options]


def run_in(folder: Path, *arguments: str) -> int:
    """Run `python -m aot.run` in this process with `folder` as working directory; returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return main(list(arguments))


def only_run(folder: Path, dataset: str = "videos") -> Path:
    """The only run folder (or sweep folder) of a dataset below an output folder."""
    (path,) = (folder / dataset).iterdir()
    return path


def child_environment(**variables: str) -> dict[str, str]:
    """The environment of a child process that imports this checkout, with these variables added."""
    return os.environ | {"PYTHONPATH": str(Path(aot.__file__).parents[1])} | variables
