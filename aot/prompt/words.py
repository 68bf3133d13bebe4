"""Objects found by words on the frame that the page shows."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

from aot.detection.base import Detector
from aot.detection.words import as_prompts, look_at, not_found
from aot.errors import ConfigError
from aot.manifest.schema import ObjectEntry
from aot.prompt.detect import as_entry
from aot.prompt.frames import ClipFrames
from aot.types import Prompt, Words


@dataclass(frozen=True)
class FoundOnFrame:
    """What a detector has found."""

    objects: tuple[ObjectEntry, ...]
    """With ids from 1 on, the best score first."""
    note: str
    """Why there are no objects; empty if there are."""


class LiveWords:
    """Finds objects with one model, one request at a time.

    Args:
        detector: the model; None: there is none.
        frames: source of the images.
    """

    def __init__(self, detector: Detector | None, frames: ClipFrames) -> None:
        self._detector = detector
        self._frames = frames
        self._lock = Lock()

    def find(self, clip_id: str, frame: int, text: str, *, is_every: bool) -> FoundOnFrame:
        """Find the object that a text describes, or all of them.

        Raises:
            ConfigError: there is no detector, or its model cannot be loaded.
            PromptError: the text is too long for it.
            DecodeError: the frame cannot be read.
            OutOfMemory: memory ran out.
        """
        if self._detector is None:
            raise ConfigError("there is no detector; start the page with detector=grounding_dino")
        words = Words(text, (frame,), None if is_every else 1)
        rgb = self._frames.rgb(clip_id, frame)
        with self._lock:
            look = look_at(rgb, frame, words, self._detector)
        found = as_prompts(Prompt(1, frame, words=words), words, look, self._detector.model_name)
        note = "" if found else not_found(words, [look], self._detector)
        return FoundOnFrame(tuple(map(as_entry, found)), note)
