"""Checking prompts against the opened video."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot.errors import PromptError
from aot.manifest.fit import check_prompts, covering_masks, read_mask, without_prompts_outside_range
from aot.manifest.serialize import prompts_as_json as shown
from aot.types import MaskFile, Prompt, Words


def fit(prompt: Prompt, **changes: object) -> tuple[list[Prompt], dict[int, PromptError]]:
    video = {"width": 20, "height": 10, "frames": list(range(5)), "num_source_frames": 8} | changes
    return check_prompts([prompt], **video)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(object_id=1, frame=8, box=(0, 0, 5, 5)), "frame 8 is beyond the end of the video; expected 0 to 7"),
        (Prompt(object_id=1, frame=6, box=(0, 0, 5, 5)), "outside the time range; expected 0 to 4"),
        (
            Prompt(object_id=1, frame=0, points=((20, 5),), labels=(1,)),
            r"the point \(20, 5\) is outside the frame of 20x10",
        ),
        (Prompt(object_id=1, frame=0, box=(0, 0, 21, 5)), r"the box corner \(21, 5\) is outside the frame"),
        (Prompt(object_id=1, frame=0, query_points=((9, 1, 1),)), "frame 9 is beyond the end"),
        (Prompt(object_id=1, frame=0, query_points=((0, 1, -1),)), r"the query point \(1, -1\) is outside the frame"),
    ],
)
def test_prompts_outside_their_video_are_refused(prompt: Prompt, message: str) -> None:
    fitting, errors = fit(prompt)
    assert fitting == []
    assert re.search(message, str(errors[1]))


def test_box_may_end_at_the_outer_edge() -> None:
    fitting, errors = fit(Prompt(object_id=1, frame=4, box=(0, 0, 20, 10)))
    assert len(fitting) == 1
    assert not errors


def test_other_objects_are_kept_when_one_fails() -> None:
    good, bad = Prompt(object_id=1, frame=0, box=(0, 0, 5, 5)), Prompt(object_id=2, frame=9, box=(0, 0, 5, 5))
    fitting, errors = check_prompts([good, bad], width=20, height=10, frames=range(5), num_source_frames=5)
    assert fitting == [good]
    assert list(errors) == [2]


def test_mask_files_are_read_by_pixel_value_and_checked(tmp_path: Path) -> None:
    values = np.zeros((10, 20), dtype=np.uint8)
    values[2:4, 3:6], values[7, 7] = 2, 5
    image = Image.fromarray(values).convert("P")
    image.putpalette([channel for value in range(256) for channel in (value, 0, 255 - value)])
    image.putdata(values.reshape(-1).tolist())
    image.save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(MaskFile(tmp_path / "palette.png", 2)), values == 2)
    assert np.array_equal(read_mask(MaskFile(tmp_path / "palette.png", has_several_ids=True)), values != 0)
    with pytest.raises(PromptError, match=r"palette\.png: contains the values 2, 5; expected .* mask_id: 2"):
        read_mask(MaskFile(tmp_path / "palette.png"))
    (fitted,), _ = fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "palette.png", 5)))
    assert isinstance(fitted.mask, np.ndarray)
    assert fitted.mask.sum() == 1
    no_such_id = fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "palette.png", 9)))[1][1]
    assert "contains the values 2, 5; expected pixels of the value 9 (mask_id)" in str(no_such_id)
    Image.new("L", (20, 10)).save(tmp_path / "black.png")
    assert "is empty" in str(fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "black.png")))[1][1])
    assert "expected 30x10" in str(
        fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "palette.png", 2)), width=30)[1][1]
    )
    (tmp_path / "broken.png").write_bytes(b"not an image")
    assert "not a readable image" in str(
        fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "broken.png")))[1][1]
    )


def left_out(*prompts: Prompt) -> tuple[list[Prompt], list[str]]:
    """What is kept of prompts in a time range of frames 2 to 4 of a video of 8 frames."""
    return without_prompts_outside_range(prompts, frames=range(2, 5), num_source_frames=8)


FIRST = Prompt(object_id=1, frame=2, box=(0, 0, 5, 5))


def test_corrections_outside_the_time_range_are_left_out_with_a_note() -> None:
    inside = Prompt(object_id=1, frame=4, points=((1, 1),), labels=(0,))
    outside = replace(inside, frame=5)
    kept, notes = left_out(FIRST, inside, outside)
    assert shown(kept) == shown([FIRST, inside])
    assert notes == ["object 1: its correction on frame 5 is outside the time range (frames 2 to 4) and was left out"]
    assert left_out(FIRST, inside)[1] == []


@pytest.mark.parametrize("frame", [0, 8])
def test_a_missing_first_prompt_and_frames_beyond_the_end_still_fail_the_object(frame: int) -> None:
    prompts = [replace(FIRST, frame=min(frame, 2)), replace(FIRST, frame=max(frame, 2))]
    kept, notes = left_out(*prompts)
    assert shown(kept) == shown(prompts)
    assert not notes
    _, errors = check_prompts(kept, width=20, height=10, frames=range(2, 5), num_source_frames=8)
    assert f"frame {frame} is " in str(errors[1])


def test_query_points_outside_the_time_range_are_left_out_unless_none_remains() -> None:
    queries = Prompt(object_id=1, frame=0, query_points=((2, 1, 1), (5, 2, 2), (7, 3, 3)))
    kept, notes = left_out(queries)
    assert shown(kept) == shown([replace(queries, query_points=((2, 1, 1),))])
    assert notes == ["object 1: 2 of its 3 query points are outside the time range (frames 2 to 4) and were left out"]
    early = replace(queries, query_points=((0, 1, 1), (1, 2, 2)))
    kept, notes = left_out(early)
    assert shown(kept) == shown([early])
    assert not notes
    # The points of a correction that is left out are kept if they are inside.
    correction = replace(FIRST, frame=6, query_points=((3, 1, 1),))
    expected = [FIRST, Prompt(object_id=1, frame=6, query_points=((3, 1, 1),))]
    assert shown(left_out(FIRST, correction)[0]) == shown(expected)


def test_masks_around_a_hole_are_named() -> None:
    mask = np.ones((10, 20), dtype=np.bool_)
    mask[1:9, 5:15] = False
    assert covering_masks([Prompt(object_id=1, frame=3, mask=mask)]) == [
        "object 1: its mask covers 60.0% and the whole edge of frame 3; check that it marks the object and not the "
        "background"
    ]
    for edge in (np.s_[0, 3], np.s_[9, 3], np.s_[3, 0], np.s_[3, 19]):
        open_mask = mask.copy()
        open_mask[edge] = False
        assert not covering_masks([Prompt(object_id=1, frame=3, mask=open_mask)])


def test_masks_of_nearly_the_whole_frame_are_named() -> None:
    mask = np.ones((10, 20), dtype=np.bool_)
    mask[0, :9] = False
    whole = Prompt(object_id=1, frame=3, mask=mask)
    part = Prompt(object_id=2, frame=3, mask=np.triu(mask))
    assert covering_masks([whole, part, Prompt(object_id=3, frame=0, box=(0, 0, 20, 10))]) == [
        "object 1: its mask covers 95.5% of frame 3; check that it marks the object and not the background"
    ]


def words(*frames: int) -> Prompt:
    return Prompt(object_id=1, frame=frames[0], words=Words("red mug", frames))


def test_words_need_one_of_their_frames_in_the_clip() -> None:
    assert len(fit(words(9, 3))[0]) == 1
    _, errors = fit(words(6, 9))
    assert str(errors[1]) == (
        'object 1: "red mug" is to be found on frames 6, 9, which the clip does not have; expected frames of 0 to 4'
    )
    assert '"red mug" is to be found on frame 7,' in str(fit(words(7))[1][1])


def test_words_stay_when_corrections_outside_the_time_range_are_left_out() -> None:
    correction = Prompt(object_id=1, frame=6, points=((3, 3),), labels=(0,))
    kept, notes = left_out(words(7, 2), correction)
    assert shown(kept) == shown([words(7, 2)])
    assert notes == ["object 1: its correction on frame 6 is outside the time range (frames 2 to 4) and was left out"]
