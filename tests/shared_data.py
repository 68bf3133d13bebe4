"""Paths of real and malformed videos next to the repository; tests that need them are skipped without them."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
AWKWARD = SHARED_DATA / "awkward"
CLIPS = SHARED_DATA / "clips"
DAVIS_CLIPS = SHARED_DATA / "davis_clips"
CASES = SHARED_DATA.parent / "cases"

needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no ../shared/data next to the repository")
needs_shared_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases next to the repository")


def awkward_video(name: str) -> Path:
    """Path of a malformed or unusual video by its file name; its folder is named after it."""
    return AWKWARD / name.lstrip("-").replace(".", "_") / name
