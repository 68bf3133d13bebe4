"""Datasets written by the package lerobot itself, in both layouts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aot.datasets.lerobot import LeRobot
from aot.decoding import open_source
from tests.datasets import lerobot_writer as writer

INSTALLED = Path(sys.prefix) / "lerobot"
"""Where `make setup` installs the package that writes v3.0 and what both versions require."""
OLDER = Path(sys.prefix) / "lerobot-v2.1"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("version", "folders"),
    [
        ("v3.0", [INSTALLED]),
        # The layout that no version writes any more; its quick counterpart is in test_lerobot.py.
        pytest.param("v2.1", [OLDER, INSTALLED], marks=pytest.mark.long),
    ],
)
def test_frames_of_each_episode_are_found(version: str, folders: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "made"
    write(root, folders)
    assert json.loads((root / "meta" / "info.json").read_text())["codebase_version"] == version
    (root / "prompts.yaml").write_text("clips: {'*': {objects: [{id: 1, box: [4, 20, 23, 39]}]}}\n")
    clips = LeRobot(root, root / "prompts.yaml").clips()
    assert [clip.clip_id for clip in clips] == [f"episode_{n:06d}/{writer.CAMERA}" for n in range(3)]
    for episode, clip in enumerate(clips):
        with open_source(clip) as source:
            shown = np.concatenate([block.rgb for block in source.blocks()])
        assert len(shown) == writer.LENGTHS[episode]
        for frame, rgb in enumerate(shown):
            # Between neighbouring frames the square moves by 6 px, and the grey of neighbouring episodes differs by 60.
            expected = writer.image(episode, frame).astype(float)
            assert np.abs(rgb - expected).mean() < 6, f"episode {episode}, frame {frame}"


def write(root: Path, folders: list[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            pytest.skip(f"the package lerobot is not in {folder}; make setup installs it")
    command = [sys.executable, writer.__file__, str(root), *map(str, folders)]
    written = subprocess.run(command, capture_output=True, text=True, check=False)
    assert written.returncode == 0, written.stderr[-2000:]
