"""Finding the objects that prompts describe by words, at the start of a clip.

    words ──> frames in their order ──> detector ──> boxes ≥ min_score ──> overlapping ones merged ──> prompts

The first frame with as many objects as asked for is taken; if none has them, the one with most objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aot.decoding.base import FrameSource
from aot.detection.base import Detections, Detector, merge_overlapping
from aot.errors import AotError, PromptError
from aot.system.text import counted
from aot.types import MAX_FOUND, Found, Prompt, UInt8Array, Words

_SCORE_DECIMALS = 4
_BOX_DECIMALS = 2


@dataclass(frozen=True)
class FoundPrompts:
    """What a detector has found of the words of a clip."""

    prompts: list[Prompt]
    """One per object, with a box or a mask, (H, W) bool; objects that were not found keep their words."""
    errors: dict[int, AotError]
    """Object id → error, of objects that were not found."""
    searches: list[dict[str, Any]]
    """Per description, what was looked at and found, for the result file."""


@dataclass(frozen=True)
class Look:
    """What was found on one frame."""

    frame: int
    found: Detections
    """Without those that show the same object, the best score first."""


def find_words(prompts: Sequence[Prompt], frames: FrameSource, detector: Detector) -> FoundPrompts:
    """Find the objects that prompts describe by words.

    Args:
        prompts: of one clip, with words; at least one frame of each is among the kept ones.
        frames: the kept frames of the clip.
        detector: that finds the words.
    Raises:
        CheckpointError: the detector's model cannot be loaded.
        OutOfMemory: memory ran out.
    """
    finder = WordFinder(frames, detector)
    located: list[Prompt] = []
    errors: dict[int, AotError] = {}
    searches = []
    for prompt in prompts:
        words = prompt.words
        if words is None:
            continue
        try:
            looks = finder.looks(words)
        except PromptError as error:  # words that the model cannot read
            errors[prompt.object_id] = PromptError(f"object {prompt.object_id}: {error}")
            located.append(replace(prompt, words=replace(words, count=1)))
            continue
        best = max(looks, key=lambda look: len(look.found))  # the first of those with equally many
        found = as_prompts(prompt, words, best, detector.model_name)
        missing = _missing(prompt, words, len(found))
        located += [*found, *missing]
        errors |= {
            one.object_id: PromptError(f"object {one.object_id}: {not_found(words, looks, detector)}")
            for one in missing
        }
        searches.append(_record(prompt, words, looks, found, detector))
    return FoundPrompts(located, errors, searches)


class WordFinder:
    """Looks for words on the frames of one clip.

    Args:
        frames: the kept frames.
        detector: that finds the words.
    """

    def __init__(self, frames: FrameSource, detector: Detector) -> None:
        self._frames, self._detector = frames, detector
        self._image: tuple[int, UInt8Array] | None = None
        """The frame that was read last: several descriptions are often looked for on the same one."""

    def looks(self, words: Words) -> list[Look]:
        """The frames that were looked at: up to the first one with enough objects."""
        looks: list[Look] = []
        for frame in words.frames:
            if frame in self._frames.index:
                looks.append(self._look(words, frame))
                if len(looks[-1].found) >= (words.count or 1):
                    break
        return looks

    def _look(self, words: Words, frame: int) -> Look:
        if self._image is None or self._image[0] != frame:
            self._image = frame, self._frames.read([frame]).rgb[0]
        return look_at(self._image[1], frame, words, self._detector)


def look_at(rgb: UInt8Array, frame: int, words: Words, detector: Detector) -> Look:
    """What a detector finds on one frame, without the boxes that show the same object.

    Args:
        rgb: (H, W, 3) image of the frame.
        frame: its number.
        words: what to find.
        detector: that finds it.
    """
    found = detector.detect(rgb, words.text, min_score=min_score_of(words, detector))
    return Look(frame, merge_overlapping(found, detector.max_overlap))


def not_found(words: Words, looks: Sequence[Look], detector: Detector) -> str:
    """Why objects are missing, as a message; `looks` are those at the words."""
    frames = f"frame{'' if len(looks) == 1 else 's'} {', '.join(str(look.frame) for look in looks)}"
    scores = [look.found.best_score for look in looks if look.found.best_score is not None]
    most = max(len(look.found) for look in looks)
    if most:
        problem = f"found {counted(most, 'time')} on {frames}, expected {words.count} with scores of"
    elif scores:
        problem = f"not found on {frames}: the best score is {max(scores):.3f}, expected"
    else:
        problem = f"not found on {frames}: {detector.model_name} has no box there, expected one with a score of"
    return (
        f'"{words.text}" {problem} at least {min_score_of(words, detector):g}; use other words, look on '
        f"other frames (frames: [0, 30]), lower min_score, or draw a box"
    )


def min_score_of(words: Words, detector: Detector) -> float:
    """The lowest score of a box that shows what the words describe."""
    return detector.min_score if words.min_score is None else words.min_score


def as_prompts(prompt: Prompt, words: Words, look: Look, model: str) -> list[Prompt]:
    """One prompt per object that was found, with successive ids.

    Args:
        prompt: with the first id, and what the objects have in common.
        words: what was looked for.
        look: what was found.
        model: name of the detector's model.
    """
    found = look.found
    prompts = []
    for row in range(min(len(found), words.count or MAX_FOUND)):
        x0, y0, x1, y1 = (round(value, _BOX_DECIMALS) for value in found.boxes[row].tolist())
        score = round(float(found.scores[row]), _SCORE_DECIMALS)
        prompts.append(
            replace(
                prompt,
                object_id=prompt.object_id + row,
                frame=look.frame,
                box=(x0, y0, x1, y1) if found.masks is None else None,
                mask=None if found.masks is None else found.masks[row],
                words=None,
                found=Found(words.text, score, model),
            )
        )
    return prompts


def _missing(prompt: Prompt, words: Words, num_found: int) -> list[Prompt]:
    """The prompts of objects that were not found; if none was, that of the first one only."""
    expected = (words.count or 1) if num_found else 1
    ids = range(prompt.object_id + num_found, prompt.object_id + expected)
    return [replace(prompt, object_id=object_id, words=replace(words, count=1)) for object_id in ids]


def _record(
    prompt: Prompt, words: Words, looks: Sequence[Look], found: Sequence[Prompt], detector: Detector
) -> dict[str, Any]:
    """What was looked at and found, as JSON values."""
    taken = next((look for look in looks if found and look.frame == found[0].frame), None)
    boxes = [] if taken is None else np.round(taken.found.boxes.astype(np.float64), _BOX_DECIMALS).tolist()
    return {
        "id": prompt.object_id,
        "text": words.text,
        "model": detector.model_name,
        "min_score": min_score_of(words, detector),
        "max_overlap": detector.max_overlap,
        "looked_at": [
            {
                "frame": look.frame,
                "num_found": len(look.found),
                "best_score": None if look.found.best_score is None else round(look.found.best_score, _SCORE_DECIMALS),
            }
            for look in looks
        ],
        "found": [
            {"id": one.object_id, "frame": one.frame, "box": box, "score": one.found.score}
            for one, box in zip(found, boxes)
            if one.found is not None
        ],
    }
