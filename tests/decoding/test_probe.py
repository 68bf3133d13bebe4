"""How often a video file is opened: opening takes longer than reading the packets of a short clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aot.decoding import probe
from aot.decoding.probe import probe_video
from tests.synthetic import moving_square, write_video


def test_probing_opens_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    open_container = probe.open_container

    def count(path: Path) -> Any:
        opened.append(path)
        return open_container(path)

    monkeypatch.setattr(probe, "open_container", count)
    video = write_video(tmp_path / "a.mp4", moving_square(5))
    found = probe_video(video)
    assert (found.num_frames, found.first_frame.width, found.first_frame.height) == (5, found.width, found.height)
    probe_video(video)
    assert opened == [video], "the second time it is not opened"
