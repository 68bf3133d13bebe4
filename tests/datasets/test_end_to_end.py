"""Published layouts, run and scored with the embedded models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

import aot
from aot import run
from aot.evaluate import __main__ as evaluate
from tests.command_line import EMBEDDED
from tests.datasets.test_lerobot import TOP, v3  # noqa: F401 (a fixture)
from tests.datasets.test_tap_vid import example, write
from tests.synthetic import moving_square


def finished(folder: Path, *arguments: str) -> Path:
    """Run a command; returns the run folder."""
    options = [f"output.root='{folder}/out'", "output.overlay=false", "query_points.num_points=20"]
    assert run.main([*arguments, *EMBEDDED, *options]) == 0
    (found,) = (folder / "out").glob("*/*")
    return found


def scores(root: Path) -> dict[str, float]:
    assert evaluate.main([str(root), "--workers", "1"]) == 0
    overall: dict[str, float] = json.loads((root / "scores.json").read_text())["all"]
    return overall


def test_youtube_vos_with_frame_names_in_steps_of_five(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / "0a").mkdir(parents=True)
    for number, rgb in enumerate(moving_square(8)):
        name, mask = f"{5 * number:05d}", np.zeros((64, 96), dtype=np.uint8)
        mask[20:40, 8 + 2 * number : 28 + 2 * number] = 1
        Image.fromarray(rgb).save(folder / "JPEGImages" / "0a" / f"{name}.jpg", quality=95)
        Image.fromarray(mask).save(folder / "Annotations" / "0a" / f"{name}.png")
    objects = {"1": {"category": "box", "frames": [f"{5 * number:05d}" for number in range(8)]}}
    (folder / "meta.json").write_text(json.dumps({"videos": {"0a": {"objects": objects}}}))
    root = finished(tmp_path, "dataset=youtube_vos", f"dataset.root='{tmp_path}'", "dataset.subset=train")
    result = aot.load(root / "clips" / "0a.h5")
    assert result.object_name == ("box",)
    assert result.index.tolist() == list(range(8))
    assert scores(root)["J&F"] > 0.9


def test_tapvid_is_scored_by_its_query_mode(tmp_path: Path) -> None:
    path = write(tmp_path / "davis.pkl", {"goat": example()})
    root = finished(
        tmp_path, "dataset=tapvid", f"dataset.path='{path}'", f"dataset.unpacked='{tmp_path}/unpacked'",
        "segmenter=none",
    )  # fmt: skip
    found = scores(root)
    assert found["positions"] == 9 + 11, "frames after each query, without the hidden ones"
    assert found["delta_16"] > 0.5


def test_lerobot_clips_contain_the_frames_of_their_episode(v3: Path, tmp_path: Path) -> None:  # noqa: F811
    root = finished(tmp_path, "dataset=lerobot", f"dataset.root='{v3}'", f"dataset.cameras=[{TOP}]")
    lengths = {path.parent.name: aot.load(path).index.tolist() for path in sorted(root.glob("clips/*/*.h5"))}
    assert lengths == {
        "episode_000000": list(range(7)), "episode_000001": list(range(7, 12)), "episode_000002": list(range(9)),
    }  # fmt: skip


def test_frames_chosen_by_time_count_from_the_start_of_the_episode(v3: Path, tmp_path: Path) -> None:  # noqa: F811
    options = ["dataset=lerobot", f"dataset.root='{v3}'", f"dataset.cameras=[{TOP}]", "sample_fps=10"]
    root = finished(tmp_path, *options)
    kept = {path.parent.name: aot.load(path).index.tolist() for path in sorted(root.glob("clips/*/*.h5"))}
    expected = {"episode_000000": [0, 2, 3, 6], "episode_000001": [7, 9, 10], "episode_000002": [0, 2, 3, 6]}
    assert kept == expected, "and the third frame of each, which has the prompt"
