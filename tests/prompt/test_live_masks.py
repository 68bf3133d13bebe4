"""Masks for clicks: their content and the time they take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from aot.drawing.colours import object_colour
from aot.errors import DecodeError
from aot.images.masks import encode_rle
from aot.manifest.schema import ObjectEntry
from aot.prompt.frames import ClipFrames
from aot.prompt.masks import LiveMasks
from aot.segmentation.grabcut import GrabCutSegmenter
from aot.types import Clip, UInt8Array
from tests.synthetic import moving_square, write_video

WIDTH, HEIGHT = 854, 480


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipFrames]:
    folder = tmp_path_factory.mktemp("clips")
    square = write_video(folder / "a.mp4", moving_square(40, WIDTH, HEIGHT))
    large = write_video(folder / "large.mp4", large_object(3))
    with closing(ClipFrames({"a": Clip("a", square), "large": Clip("large", large)})) as frames:
        yield frames


def large_object(num_frames: int) -> UInt8Array:
    """An ellipse over a third of the image, object and background textured with similar colours."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH, 3)), (0, 0), 6) * 400
    image = np.array((110, 120, 90)) + texture
    inside = cv2.ellipse(np.zeros((HEIGHT, WIDTH), np.uint8), (427, 240), (300, 150), 0, 0, 360, 1, -1) > 0
    image[inside] += np.array((60, 10, -40))
    return np.repeat(image.clip(0, 255).astype(np.uint8)[None], num_frames, axis=0)


def entry(**values: object) -> ObjectEntry:
    return ObjectEntry.model_validate({"id": 1, **values})


def test_a_mask_covers_the_object(frames: ClipFrames) -> None:
    masks = LiveMasks(GrabCutSegmenter(), frames, Path())
    (found,) = masks.masks("a", 5, [entry(id=3, frame=5, box=[17, 19, 39, 41]), entry(frame=4, points=[[1, 1]])])
    image = cv2.imdecode(np.frombuffer(found.png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.object_id == 3
    assert (found.x, found.y) == pytest.approx((18, 20), abs=2)
    assert image.shape[:2] == pytest.approx((20, 20), abs=4)
    assert found.area == np.count_nonzero(image[..., 3])
    blue, green, red, _ = image[image.shape[0] // 2, image.shape[1] // 2]
    assert (red, green, blue) == object_colour(3)


def test_mistakes_of_one_object_do_not_affect_others(frames: ClipFrames) -> None:
    masks = LiveMasks(GrabCutSegmenter(), frames, Path())
    found = masks.masks(
        "a",
        0,
        [
            entry(id=1, box=[7, 19, 29, 41]),
            entry(id=2, box=[900, 19, 950, 41]),
            entry(id=3, points=[[1, 1]], labels=[0]),
            entry(id=4, mask="nowhere.png"),
        ],
    )
    assert [bool(mask.png) for mask in found] == [True, False, False, False]
    assert "outside the frame" in found[1].note
    assert "only background points" in found[2].note
    assert "nowhere.png" in found[3].note


def test_a_mask_prompt_is_shown_unchanged(frames: ClipFrames) -> None:
    given = np.zeros((HEIGHT, WIDTH), np.bool_)
    given[100:120, 300:340] = True
    rle = encode_rle(given)
    mask = {"size": [rle.height, rle.width], "counts": rle.counts}
    (found,) = LiveMasks(GrabCutSegmenter(), frames, Path()).masks("a", 0, [entry(mask=mask)])
    assert (found.x, found.y, found.area, found.score) == (300, 100, 800, 1.0)


def test_without_a_segmenter_there_are_no_masks(frames: ClipFrames) -> None:
    assert LiveMasks(None, frames, Path()).masks("a", 0, [entry(points=[[1, 1]])]) == []


def test_each_frame_is_encoded_once(frames: ClipFrames) -> None:
    opened: list[int] = []

    class Counting(GrabCutSegmenter):
        def open_frame(self, rgb: UInt8Array):  # type: ignore[no-untyped-def]
            opened.append(len(opened))
            return super().open_frame(rgb)

    masks = LiveMasks(Counting(), frames, Path())
    masks.masks("a", 0, [])
    masks.masks("a", 0, [entry(points=[[18, 30]])])
    masks.masks("a", 0, [entry(points=[[18, 30], [60, 30]], labels=[1, 0])])
    assert opened == [0]
    for frame in (1, 2, 3, 4, 0):
        masks.masks("a", frame, [])
    assert len(opened) == 6, "only a few frames are kept"


@pytest.mark.parametrize(
    "prompt",
    [
        {"points": [[427, 240]]},
        {"box": [126, 88, 728, 392]},
        {"box": [126, 88, 728, 392], "points": [[427, 240], [135, 95]], "labels": [1, 0]},
    ],
    ids=["a point", "a box", "both"],
)
def test_a_click_takes_less_cpu_time_than_six_iterations_on_the_full_frame(
    prompt: dict[str, object], frames: ClipFrames
) -> None:
    """CPU time of all threads; the frame is not encoded yet.."""
    masks = LiveMasks(GrabCutSegmenter(), frames, Path())
    image = cv2.imdecode(np.frombuffer(frames.shown("large", 1).jpeg, np.uint8), cv2.IMREAD_COLOR)
    labels, models = np.zeros(image.shape[:2], np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    started = time.process_time()
    cv2.grabCut(image, labels, (126, 88, 602, 304), *models, 1, cv2.GC_INIT_WITH_RECT)
    between = time.process_time()
    (found,) = masks.masks("large", 1, [entry(frame=1, **prompt)])
    assert time.process_time() - between < 6 * (between - started)
    assert found.area > 0


class TestFrames:
    def test_frames_can_be_read_in_any_order(self, frames: ClipFrames) -> None:
        expected = moving_square(40, WIDTH, HEIGHT)
        for frame in (30, 29, 28, 0, 39, 12, 27):
            shown = frames.shown("a", frame)
            image = cv2.cvtColor(cv2.imdecode(np.frombuffer(shown.jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            assert np.abs(image[20:40].astype(int) - expected[frame, 20:40]).mean() < 30
            square = image[22:38, 12 + 2 * min(frame, 60 - frame) : 24 + 2 * min(frame, 60 - frame)]
            assert square.mean() > 150, "the bright square is at its position on this frame"
            assert shown.time == pytest.approx(frame / 10)

    def test_a_step_back_decodes_several_frames(self, frames: ClipFrames) -> None:
        with closing(ClipFrames(frames._clips)) as own:
            own.shown("a", 35), own.shown("a", 34)
            source = own._opened("a").source
            before = source.num_decoded
            for frame in range(33, 24, -1):
                own.shown("a", frame)
            assert source.num_decoded == before

    def test_missing_frames_are_refused(self, frames: ClipFrames) -> None:
        with pytest.raises(DecodeError, match="a: no frame 40; expected a frame from 0 to 39"):
            frames.shown("a", 40)

    def test_only_a_few_clips_stay_open(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", moving_square(3))
        clips = {str(number): Clip(str(number), path) for number in range(9)}
        with closing(ClipFrames(clips)) as many:
            for clip_id in clips:
                many.shown(clip_id, 1)
            assert len(many._open) == 4
            assert many.shown("0", 2).time == pytest.approx(0.2)

    def test_a_thumbnail_decodes_only_the_first_frame(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mkv", moving_square(50, WIDTH, HEIGHT))
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
        with closing(ClipFrames({"a": Clip("a", path)})) as own:
            thumbnail = cv2.imdecode(np.frombuffer(own.thumbnail("a"), np.uint8), cv2.IMREAD_COLOR)
            assert thumbnail.shape == (67, 120, 3)
            with pytest.raises(DecodeError, match="truncated"):
                own.shown("a", 0)
