"""Scenes of the demo that are rendered on request only: `dataset.scenes`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aot.datasets.demo.dataset import Demo
from aot.errors import ConfigError
from aot.types import QueryPoints


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    found = Demo(tmp_path_factory.mktemp("data") / "demo", ("turn", "leave"))
    found.clips()
    return found


def test_only_the_requested_clips_are_listed_and_rendered(demo: Demo) -> None:
    assert [clip.clip_id for clip in demo.clips()] == ["leave", "turn"]
    assert not demo.root.exists()
    assert all(clip.prompts[0].mask is not None for clip in demo.clips())


def test_clips_of_both_folders_can_be_requested(demo_root: Path) -> None:
    assert [clip.clip_id for clip in Demo(demo_root, ("zoom", "hide")).clips()] == ["hide", "zoom"]
    assert [clip.clip_id for clip in Demo(demo_root).clips()] == ["hide", "late", "pair", "spin", "zoom"]


def test_an_unknown_scene_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no scene 'trun'.*turn"):
        Demo(tmp_path, ("trun",))


def test_the_object_leaves_and_returns(demo: Demo) -> None:
    truth = demo.ground_truth("leave")
    assert truth is not None
    area = np.array([truth.mask(frame)[1].sum() for frame in truth.mask_frames.tolist()])  # type: ignore[index]
    assert area[0] > 4500
    assert (area[20:30] == 0).all()
    assert area[-1] > 4500


def test_each_face_of_the_box_has_its_own_motion(demo: Demo) -> None:
    truth = demo.ground_truth("turn")
    assert truth is not None
    assert truth.object_ids == (1,)
    first, last = truth.mask(0), truth.mask(55)
    assert first is not None
    assert last is not None
    assert first[1].sum() == pytest.approx(last[1].sum(), rel=0.15)
    queries = QueryPoints(np.array([[0, 150, 124], [55, 170, 124]], np.float32), np.ones(2, np.int32))
    found = truth.tracks(queries, np.arange(56))
    assert found is not None
    assert found.annotated.all()
    np.testing.assert_allclose(found.xy[0, 0], [150, 124], atol=1e-3)
    np.testing.assert_allclose(found.xy[55, 1], [170, 124], atol=1e-3)
    assert found.xy[55, 0, 0] < 115, "the front face has turned to the left edge"
    assert found.xy[0, 1, 0] > 205, "the side was at the right edge"
