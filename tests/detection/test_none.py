"""No detector."""

from __future__ import annotations

import pytest

from aot.detection.base import Detector
from aot.detection.none import NoDetector
from tests.detection.contract import NoDetectorContract


class TestContract(NoDetectorContract):
    @pytest.fixture
    def detector(self) -> Detector:
        return NoDetector()
