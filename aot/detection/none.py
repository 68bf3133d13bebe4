"""No detector: prompts mark their objects themselves."""

from __future__ import annotations

from aot.detection.base import Detections
from aot.errors import ConfigError
from aot.types import UInt8Array


class NoDetector:
    """Finds nothing. A run whose prompts have words is refused before it starts."""

    min_score = 0.0
    max_overlap = 1.0
    model_name = ""

    def detect(self, rgb: UInt8Array, text: str, *, min_score: float) -> Detections:
        raise ConfigError(f'"{text}" cannot be found with detector=none; add detector=grounding_dino')
