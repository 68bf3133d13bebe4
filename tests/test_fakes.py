"""The fakes satisfy the contracts of their roles, which also shows that a simple implementation can."""

from __future__ import annotations

import numpy as np
import pytest

from aot.decoding.base import FrameSource
from aot.tracking.base import Tracker
from tests.decoding.coded_video import coded_frame
from tests.decoding.contract import NUM_FRAMES, FrameSourceContract
from tests.fakes import ArraySource, StillTracker
from tests.tracking.contract import TrackerContract


class TestArraySource(FrameSourceContract):
    @pytest.fixture
    def source(self) -> FrameSource:
        return ArraySource(np.stack([coded_frame(number) for number in range(NUM_FRAMES)]))


class TestStillTracker(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Tracker:
        return StillTracker()
