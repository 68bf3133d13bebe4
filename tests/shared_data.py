"""Real and awkward videos that lie beside the repository; tests over them skip where they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
AWKWARD = SHARED_DATA / "awkward"
CLIPS = SHARED_DATA / "clips"
DAVIS_CLIPS = SHARED_DATA / "davis_clips"

needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no ../shared/data beside the repository")


def awkward_video(name: str) -> Path:
    """Find one of the awkward videos by its file name; each lies in a folder named after it."""
    return AWKWARD / name.lstrip("-").replace(".", "_") / name
