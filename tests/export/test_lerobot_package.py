"""Datasets that the package lerobot has written, with added features, are read by the package itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aot
from aot import run
from aot.datasets.lerobot import LeRobot
from aot.export import __main__ as export
from tests.command_line import EMBEDDED
from tests.datasets import lerobot_writer as writer
from tests.datasets.test_lerobot_package import INSTALLED, OLDER, write

pytestmark = pytest.mark.slow
# A program, because it imports packages that this environment may lack.
READER = Path(__file__).with_name("lerobot_reader.py")
NEWEST = Path(sys.prefix) / "lerobot-newest" / "bin" / "python"
"""Where `make lerobot-newest` makes an environment with a version that needs Python 3.12."""
TRACKS, MASKS = "observation.tracks.top", "observation.masks.top"


@pytest.mark.parametrize(
    ("version", "folders"),
    [
        # Their quick counterparts are in test_lerobot.py.
        pytest.param("v3.0", [INSTALLED], marks=pytest.mark.long),
        pytest.param("v2.1", [OLDER, INSTALLED], marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("masks", ["video", "npz"])
def test_the_package_reads_tracks_and_masks(version: str, folders: list[Path], masks: str, tmp_path: Path) -> None:
    root, run_folder = exported(version, folders, tmp_path, masks)
    found = read("plain", root, folders, tmp_path)
    assert len(found["index"]) == sum(writer.LENGTHS)
    assert (found[TRACKS].dtype, found[TRACKS].shape[1:]) == (np.float32, (20, 2))
    assert found[f"{TRACKS}.visible"].dtype == np.bool_
    first = {video.number: video.first_frame for video in LeRobot(root, root / "prompts.yaml").videos()}
    for episode, length in enumerate(writer.LENGTHS):
        rows = np.flatnonzero(found["episode_index"] == episode)
        assert found["frame_index"][rows].tolist() == list(range(length))
        if episode == 1:
            assert (found[TRACKS][rows] == -1).all()
            assert not found[f"{TRACKS}.visible"][rows].any()
            assert masks == "npz" or (found[MASKS][rows] == 1).all()
            continue
        result = aot.load(run_folder / "clips" / f"episode_{episode:06d}" / f"{writer.CAMERA}.h5")
        assert result.index[0] == first[episode]
        assert np.array_equal(found[TRACKS][rows], result.tracks.xy)
        assert np.array_equal(found[f"{TRACKS}.visible"][rows], result.lifetimes.valid)
        assert (found[f"{TRACKS}.object_id"][rows] == 3).all()
        if masks == "video":
            ids = (found[MASKS][rows] * 255).round()
            assert np.array_equal(ids, np.repeat(result.masks * 3, 3, axis=1))
        else:
            path = found["annotation.masks.top.path"][rows[-1]]
            with np.load(root / path) as arrays:
                assert np.array_equal(
                    np.unpackbits(arrays[f"{length - 1:06d}"], axis=-1, count=writer.WIDTH).view(bool), result.masks[-1]
                )
    assert found[f"stats/{TRACKS}/mean"].shape == (20, 2)
    assert np.isfinite(found[f"stats/{TRACKS}/std"]).all()
    assert f"stats/{writer.CAMERA}/mean" in found
    assert masks == "npz" or found[f"stats/{MASKS}/mean"].shape == (3, 1, 1)


@pytest.mark.long
def test_the_package_merges_datasets(tmp_path: Path) -> None:
    """The quick counterpart is in test_lerobot.py: the types of the columns."""
    root, _ = exported("v3.0", [INSTALLED], tmp_path, "video")
    plain = read("plain", root, [INSTALLED], tmp_path)
    merged = read("merged", root, [INSTALLED], tmp_path)
    for name in (TRACKS, f"{TRACKS}.visible", f"{TRACKS}.object_id", MASKS):
        np.testing.assert_array_equal(merged[name], np.concatenate([plain[name]] * 2))


@pytest.mark.long
def test_the_package_converts_to_v3(tmp_path: Path) -> None:
    """The quick counterpart is in test_lerobot.py: the types of the columns."""
    folders = [OLDER, INSTALLED]
    root, _ = exported("v2.1", folders, tmp_path, "video")
    plain = read("plain", root, folders, tmp_path)
    converted = read("converted", root, [INSTALLED], tmp_path)
    for name in (TRACKS, f"{TRACKS}.visible", f"{TRACKS}.object_id", MASKS):
        np.testing.assert_array_equal(converted[name], plain[name])


@pytest.mark.long
def test_the_newest_package_reads_tracks_and_masks(tmp_path: Path) -> None:
    """With its own PyTorch and decoder. The quick counterpart is in test_lerobot.py."""
    if not NEWEST.exists():
        pytest.skip(f"no {NEWEST}; make lerobot-newest NEWEST_PYTHON=python3.12 makes it, with 6 GB")
    root, _ = exported("v3.0", [INSTALLED], tmp_path, "video")
    plain = read("plain", root, [INSTALLED], tmp_path)
    newest = read("plain", root, [], tmp_path, NEWEST)
    for name in (TRACKS, f"{TRACKS}.visible", f"{TRACKS}.object_id", MASKS, f"stats/{TRACKS}/mean"):
        np.testing.assert_array_equal(newest[name], plain[name])
    assert np.unique((newest[MASKS] * 255).round()).tolist() == [0, 3, 255]


def exported(version: str, folders: list[Path], place: Path, masks: str) -> tuple[Path, Path]:
    """A dataset of the package with the features of a run over its first and last episodes, and the run folder."""
    root = place / "made"
    write(root, folders)
    assert json.loads((root / "meta" / "info.json").read_text())["codebase_version"] == version
    box = [writer.left(0), writer.TOP, writer.left(0) + writer.SIDE, writer.TOP + writer.SIDE]
    (root / "prompts.yaml").write_text(f"clips: {{'*': {{objects: [{{id: 3, box: {box}}}]}}}}\n")
    options = [f"dataset.root='{root}'", f"output.root='{place}/out'", "output.overlay=false"]
    include = "dataset.include=['episode_000000/*','episode_000002/*']"
    assert run.main(["dataset=lerobot", *EMBEDDED, *options, include, "query_points.num_points=20"]) == 0
    (run_folder,) = (place / "out" / "lerobot").iterdir()
    assert export.main([str(run_folder), "--format", "lerobot", "--in-place", "--masks", masks]) == 0
    return root, run_folder


def read(
    form: str, root: Path, folders: list[Path], place: Path, python: Path = Path(sys.executable)
) -> dict[str, np.ndarray]:
    """Every value of every frame as the package gives it, stacked along the frames."""
    out = place / "found.npz"
    command = [str(python), str(READER), form, str(root), str(out), *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": "", "HF_HOME": str(place / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as arrays:
        return dict(arrays)
