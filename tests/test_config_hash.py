"""The configuration hash survives refactoring, and the run folders of version 0.1 keep their names."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
from annotated_types import Ge

from aot import config_hash
from aot.arguments import parse_command
from aot.compose import compose_jobs
from aot.config import RunConfig, check_config
from aot.config_hash import hashed_part
from aot.segmentation.grabcut import GrabCutSegmenter

VERSION_0_1 = json.loads((Path(__file__).parent / "data" / "config_hashes_0_1.json").read_text())


def checked(*arguments: str) -> RunConfig:
    jobs, errors = compose_jobs(parse_command(arguments))
    assert not errors
    return check_config(jobs[0].values, jobs[0].choices)


@pytest.mark.parametrize("known", VERSION_0_1, ids=lambda known: " ".join(known["overrides"]))
def test_hashes_of_version_0_1_are_unchanged(known: dict[str, object], tmp_path: Path) -> None:
    assert checked(*known["overrides"]).hash == known["hash"]  # type: ignore[misc]


class MovedSegmenter(GrabCutSegmenter):
    """A class with another name is another option."""


def test_a_class_is_the_same_option_whatever_module_it_is_imported_from(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = ModuleType("aot_elsewhere")
    elsewhere.GrabCutSegmenter = GrabCutSegmenter  # type: ignore[attr-defined]
    elsewhere.MovedSegmenter = MovedSegmenter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "aot_elsewhere", elsewhere)
    first = hashed_part("aot.segmentation.grabcut.GrabCutSegmenter", {"memory": 0.3})
    assert hashed_part("aot_elsewhere.GrabCutSegmenter", {"memory": 0.3}) == first
    assert hashed_part("aot_elsewhere.MovedSegmenter", {"memory": 0.5})[0] != first[0]


class SegmenterWithNewArgument(GrabCutSegmenter):
    """A later version of the segmenter, with one more argument."""

    def __init__(self, memory: float = 0.3, smoothing: Annotated[int, Ge(0)] = 2) -> None:
        super().__init__(memory=memory)


def test_a_new_argument_is_hashed_only_if_it_differs_from_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    import aot.segmentation.grabcut as package

    target = "aot.segmentation.grabcut.GrabCutSegmenter"
    before = hashed_part(target, {"memory": 0.3})
    monkeypatch.setattr(package, "GrabCutSegmenter", SegmenterWithNewArgument)
    assert hashed_part(target, {"memory": 0.3, "smoothing": 2}) == before
    assert hashed_part(target, {"memory": 0.3, "smoothing": 3}) != before


def test_part_whose_results_were_corrected_gets_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of aot invalidates nothing else, and only the results of this part."""
    target = "aot.tracking.lucas_kanade.LucasKanadeTracker"
    arguments = {"window_px": 21}
    before = config_hash.hashed_part(target, arguments)
    other = config_hash.hashed_part("aot.query_points.grid.GridSampler", {"grid_size": 5})
    assert config_hash._REVISIONS == {}, "no part of this version computes what an earlier one computed wrongly"
    monkeypatch.setattr(config_hash, "_REVISIONS", {target: 1})
    assert config_hash.hashed_part(target, arguments) == (before[0], before[1] | {"revision": 1})
    assert config_hash.hashed_part("aot.query_points.grid.GridSampler", {"grid_size": 5}) == other
