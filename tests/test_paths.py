"""The folders of a run mirror those of its dataset."""

from __future__ import annotations

from pathlib import Path

from aot.paths import RunPaths


def test_results_mirror_the_datasets_tree() -> None:
    paths = RunPaths(Path("run")).clip("day1/cam2/ep.003")
    assert paths.result == Path("run/clips/day1/cam2/ep.003.h5")
    assert paths.overlay == Path("run/overlays/day1/cam2/ep.003.mp4")
    assert paths.failure == Path("run/failures/day1/cam2/ep.003.json")
