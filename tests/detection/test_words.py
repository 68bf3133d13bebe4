"""Finding what prompts describe: which frames are looked at, which objects are taken, and the messages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aot.detection.words import FoundPrompts, find_words
from aot.errors import PromptError
from aot.types import Found, Prompt, Words
from tests.fakes import ArraySource, ListedDetector

MUG = ((1.0, 2.0, 11.0, 12.0), 0.8)
OTHER = ((20.0, 2.0, 30.0, 12.0), 0.6)
THIRD = ((40.0, 2.0, 50.0, 12.0), 0.5)
WEAK = ((60.0, 2.0, 70.0, 12.0), 0.2)
SAME_AS_MUG = ((2.0, 2.0, 12.0, 12.0), 0.7)


def clip(num_frames: int = 10) -> ArraySource:
    rgb = np.zeros((num_frames, 64, 96, 3), dtype=np.uint8)
    rgb[:, 0, 0, 0] = range(num_frames)
    return ArraySource(rgb)


def asked(count: int | None = 1, frames: tuple[int, ...] = (0,), min_score: float | None = None) -> Prompt:
    return Prompt(object_id=4, frame=frames[0], name="cup", words=Words("mug", frames, count, min_score))


def find(detector: ListedDetector, *prompts: Prompt) -> FoundPrompts:
    return find_words(prompts, clip(), detector)


def test_the_best_box_becomes_the_prompt() -> None:
    found = find(ListedDetector({0: {"mug": [OTHER, MUG, WEAK]}}), asked())
    (prompt,) = found.prompts
    assert (prompt.object_id, prompt.frame, prompt.name, prompt.box) == (4, 0, "cup", MUG[0])
    assert prompt.found == Found("mug", pytest.approx(0.8), "listed")
    assert prompt.words is None
    assert not found.errors


def test_masks_are_taken_instead_of_boxes() -> None:
    (prompt,) = find(ListedDetector({0: {"mug": [MUG]}}, masks=True), asked()).prompts
    assert prompt.box is None
    assert isinstance(prompt.mask, np.ndarray)
    assert prompt.mask.sum() == 100


def test_several_objects_get_successive_ids_in_order_of_their_scores() -> None:
    detector = ListedDetector({0: {"mug": [THIRD, SAME_AS_MUG, MUG, WEAK, OTHER]}})
    some = find(detector, asked(count=2)).prompts
    assert [(prompt.object_id, prompt.box) for prompt in some] == [(4, MUG[0]), (5, OTHER[0])]
    every = find(detector, asked(count=None)).prompts
    assert [(prompt.object_id, prompt.box) for prompt in every] == [(4, MUG[0]), (5, OTHER[0]), (6, THIRD[0])]


def test_all_are_twenty_at_most() -> None:
    many = [((4.0 * n, 0.0, 4.0 * n + 3, 3.0), 0.9 - n / 100) for n in range(24)]
    found = find(ListedDetector({0: {"mug": many}}), asked(count=None))
    assert [prompt.object_id for prompt in found.prompts] == list(range(4, 24))
    assert len(found.searches[0]["found"]) == 20


def test_frames_are_looked_at_in_their_order_until_the_objects_are_found() -> None:
    detector = ListedDetector({3: {"mug": [WEAK]}, 7: {"mug": [MUG]}, 1: {"mug": [OTHER]}})
    found = find(detector, asked(frames=(3, 7, 1)))
    assert detector.calls == [(3, "mug"), (7, "mug")]
    assert [(prompt.frame, prompt.box) for prompt in found.prompts] == [(7, MUG[0])]


def test_the_frame_with_most_objects_is_taken_if_none_has_enough() -> None:
    detector = ListedDetector({1: {"mug": [MUG]}, 2: {"mug": [OTHER, THIRD]}, 3: {"mug": [MUG, THIRD]}})
    found = find(detector, asked(count=3, frames=(1, 2, 3)))
    located = [prompt for prompt in found.prompts if prompt.words is None]
    assert [(prompt.object_id, prompt.frame, prompt.box) for prompt in located] == [(4, 2, OTHER[0]), (5, 2, THIRD[0])]
    assert list(found.errors) == [6]
    assert isinstance(found.errors[6], PromptError)
    assert str(found.errors[6]).startswith(
        'object 6: "mug" found 2 times on frames 1, 2, 3, expected 3 with scores of at least 0.3; '
    )
    assert [prompt.object_id for prompt in found.prompts] == [4, 5, 6]


def test_frames_outside_the_clip_are_not_looked_at() -> None:
    detector = ListedDetector({7: {"mug": [MUG]}})
    find(detector, asked(frames=(99, 7)))
    assert detector.calls == [(7, "mug")]


def test_nothing_found_reports_the_best_score() -> None:
    detector = ListedDetector({0: {"mug": [WEAK]}, 5: {"mug": [(MUG[0], 0.24)]}})
    found = find(detector, asked(count=3, frames=(0, 5)))
    assert str(found.errors[4]) == (
        'object 4: "mug" not found on frames 0, 5: the best score is 0.240, expected at least 0.3; use other words, '
        "look on other frames (frames: [0, 30]), lower min_score, or draw a box"
    )
    assert list(found.errors) == [4]
    found = find(ListedDetector({}), asked())
    assert "not found on frame 0: listed has no box there, expected one with a score of at least 0.3;" in str(
        found.errors[4]
    )


def test_the_limit_of_the_prompt_replaces_that_of_the_detector() -> None:
    detector = ListedDetector({0: {"mug": [WEAK]}})
    assert find(detector, asked(min_score=0.1)).prompts[0].box == WEAK[0]
    assert "the best score is 0.200, expected at least 0.9" in str(find(detector, asked(min_score=0.9)).errors[4])


def test_each_description_is_recorded() -> None:
    detector = ListedDetector({2: {"mug": [WEAK]}, 3: {"mug": [MUG], "hat": [OTHER]}})
    hat = Prompt(object_id=1, frame=3, words=Words("hat", (3,), min_score=0.55))
    found = find(detector, hat, asked(frames=(2, 3)))
    assert found.searches == [
        {
            "id": 1, "text": "hat", "model": "listed", "min_score": 0.55, "max_overlap": 0.5,
            "looked_at": [{"frame": 3, "num_found": 1, "best_score": 0.6}],
            "found": [{"id": 1, "frame": 3, "box": [20, 2, 30, 12], "score": pytest.approx(0.6)}],
        },
        {
            "id": 4, "text": "mug", "model": "listed", "min_score": 0.3, "max_overlap": 0.5,
            "looked_at": [
                {"frame": 2, "num_found": 0, "best_score": 0.2}, {"frame": 3, "num_found": 1, "best_score": 0.8},
            ],
            "found": [{"id": 4, "frame": 3, "box": [1, 2, 11, 12], "score": pytest.approx(0.8)}],
        },
    ]  # fmt: skip


def test_query_points_stay_with_the_object() -> None:
    prompt = replace(asked(), query_points=((0, 3, 3),))
    assert find(ListedDetector({0: {"mug": [MUG]}}), prompt).prompts[0].query_points == ((0, 3, 3),)
