"""GrabCut and optical flow on small synthetic images with known masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from aot.errors import AotError, OutOfMemory, SegmentationError
from aot.segmentation.base import Segmenter
from aot.segmentation.grabcut import GrabCutSegmenter
from aot.segmentation.grabcut.propagation import optical_flow
from aot.types import BoolArray, MaskBlock, Prompt, UInt8Array
from tests.fakes import ArraySource
from tests.segmentation import contract
from tests.segmentation.contract import FailingObjectContract, SegmenterContract

HEIGHT, WIDTH = 90, 120
RED, BLUE, YELLOW = (200, 40, 40), (40, 60, 200), (230, 220, 60)
BYSTANDER = 105, 15


def disc(x: float, y: float, radius: float = 12.0) -> BoolArray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def draw(*discs: tuple[BoolArray, tuple[int, int, int]], seed: int = 0) -> UInt8Array:
    """Discs on a green background; both are textured, so that optical flow can be estimated."""
    texture = cv2.GaussianBlur(np.random.default_rng(7).normal(0, 60, (HEIGHT, WIDTH)), (0, 0), 2)
    rgb = np.array((60, 130, 60)) + texture[..., np.newaxis]
    for mask, colour in discs:
        rgb[mask] = np.array(colour) + texture[mask][:, np.newaxis]
    rgb += np.random.default_rng(seed).normal(0, 2, rgb.shape)
    return rgb.clip(0, 255).astype(np.uint8)


def red_positions(num_frames: int) -> list[tuple[float, float]]:
    return [(30 + 2 * t, 40) for t in range(num_frames)]


def one_disc(num_frames: int = 6) -> tuple[ArraySource, list[BoolArray]]:
    truth = [disc(*position) for position in red_positions(num_frames)]
    return ArraySource(np.stack([draw((mask, RED), seed=t) for t, mask in enumerate(truth)])), truth


def two_discs(num_frames: int = 6) -> tuple[ArraySource, list[BoolArray], list[BoolArray]]:
    """A red disc moves right and touches a blue one that does not move."""
    blue = disc(66, 46)
    red = [disc(*position) & ~blue for position in red_positions(num_frames)]
    bystander = disc(*BYSTANDER, 6), YELLOW
    rgb = np.stack([draw((mask, RED), (blue, BLUE), bystander, seed=t) for t, mask in enumerate(red)])
    return ArraySource(rgb), red, [blue] * num_frames


def box_of(mask: BoolArray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def similarity(mask: BoolArray, truth: BoolArray) -> float:
    return float(np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth))


def no_error(object_id: int, error: AotError) -> None:
    raise error


class Masks:
    """All masks that a segmenter yielded; checks that each (frame, object) is yielded once."""

    def __init__(self, blocks: Sequence[MaskBlock]) -> None:
        self.masks: dict[tuple[int, int], BoolArray] = {}
        self.scores: dict[tuple[int, int], float] = {}
        for block in blocks:
            for row, frame in enumerate(block.index):
                for column, object_id in enumerate(block.object_id):
                    key = int(frame), int(object_id)
                    assert key not in self.masks, f"frame {key[0]}, object {key[1]} was yielded twice"
                    self.masks[key] = block.masks[row, column]
                    self.scores[key] = float(block.score[row, column])

    def of(self, object_id: int) -> list[BoolArray]:
        return [mask for (_, i), mask in sorted(self.masks.items()) if i == object_id]

    def frames_of(self, object_id: int) -> list[int]:
        return sorted(frame for frame, i in self.masks if i == object_id)


class TestContract(SegmenterContract, FailingObjectContract):
    @pytest.fixture(params=[True, False], ids=["all frames", "prompt frames"])
    def segmenter(self, request: pytest.FixtureRequest) -> Segmenter:
        return GrabCutSegmenter(propagate=request.param)

    @pytest.fixture
    def unusable(self) -> Prompt:
        return Prompt(object_id=5, frame=4, mask=np.zeros((contract.HEIGHT, contract.WIDTH), np.bool_))


def run(source: ArraySource, *prompts: Prompt, **options: object) -> Masks:
    segmenter = GrabCutSegmenter(**options)  # type: ignore[arg-type]
    return Masks(list(segmenter.segment(source, prompts, on_object_error=no_error)))


@pytest.mark.parametrize("kind", ["box", "points", "box+points", "mask"])
def test_every_kind_of_prompt_finds_and_tracks_the_object(kind: str) -> None:
    source, truth = one_disc()
    prompt = Prompt(
        object_id=1,
        frame=0,
        box=box_of(truth[0]) if "box" in kind else None,
        points=((30.0, 40.0),) if "points" in kind else (),
        labels=(1,) if "points" in kind else (),
        mask=truth[0] if kind == "mask" else None,
    )
    masks = run(source, prompt)
    assert masks.frames_of(1) == list(range(6))
    for found, expected in zip(masks.of(1), truth):
        assert found.shape == (HEIGHT, WIDTH)
        assert similarity(found, expected) > 0.85
    assert all(0.5 < score <= 1 for score in masks.scores.values())


def test_a_mask_prompt_is_yielded_unchanged() -> None:
    source, truth = one_disc()
    given = truth[0].copy()
    given[0, 0] = True
    masks = run(source, Prompt(object_id=1, frame=0, mask=given), working_height=40)
    assert np.array_equal(masks.of(1)[0], given)


def test_a_background_point_is_excluded() -> None:
    source, red, blue = two_discs()
    around_both = box_of(red[0] | blue[0])
    prompt = Prompt(object_id=1, frame=0, box=around_both, points=((30, 40), (66, 46)), labels=(1, 0))
    mask = run(source, prompt, propagate=False).of(1)[0]
    assert mask[40, 30]
    assert not mask[46, 66]


def test_objects_never_overlap() -> None:
    source, red, blue = two_discs(10)
    masks = run(
        source,
        Prompt(object_id=1, frame=0, box=box_of(red[0])),
        Prompt(object_id=2, frame=0, box=box_of(blue[0])),
        working_height=60,
    )
    for first, second, true_red, true_blue in zip(masks.of(1), masks.of(2), red, blue):
        assert not (first & second).any()
        assert similarity(first, true_red) > 0.6
        assert similarity(second, true_blue) > 0.6


def test_the_smaller_of_two_nested_prompts_keeps_its_pixels() -> None:
    source, truth = one_disc(1)
    inner = disc(30, 40, 4)
    masks = run(source, Prompt(object_id=1, frame=0, mask=truth[0]), Prompt(object_id=2, frame=0, mask=inner))
    assert np.array_equal(masks.of(2)[0], inner)
    assert np.array_equal(masks.of(1)[0], truth[0] & ~inner)


def test_an_object_prompted_late_is_tracked_in_both_directions_without_overlap() -> None:
    source, red, blue = two_discs(10)
    masks = run(
        source,
        Prompt(object_id=1, frame=5, box=box_of(red[5]), points=((40, 40),), labels=(1,)),
        Prompt(object_id=2, frame=0, mask=blue[0]),
        Prompt(object_id=3, frame=3, box=box_of(disc(*BYSTANDER, 6))),
    )
    for object_id in (1, 2, 3):
        assert masks.frames_of(object_id) == list(range(10))
    for t, (mask, truth) in enumerate(zip(masks.of(1), red)):
        assert similarity(mask, truth) > 0.6
        taken = np.sum([masks.masks[t, object_id] for object_id in (1, 2, 3)], axis=0)
        assert taken.max() <= 1


def test_the_backward_pass_reads_only_the_frames_before_late_prompts() -> None:
    source, truth = one_disc(8)
    run(source, Prompt(object_id=1, frame=2, mask=truth[2]))
    assert source.num_decoded == 6 + 3  # 2..7 forwards; 2, 1, 0 backwards


def test_only_kept_frames_get_masks() -> None:
    source, truth = one_disc(9)
    source.keep(np.array([0, 3, 4, 8]))
    masks = run(source, Prompt(object_id=1, frame=4, mask=truth[4]))
    assert masks.frames_of(1) == [0, 3, 4, 8]


def test_a_correction_changes_its_frame_and_those_after_it() -> None:
    source, red, blue = two_discs(8)
    both = Prompt(object_id=1, frame=0, mask=red[0] | blue[0])
    correction = Prompt(object_id=1, frame=3, points=((66, 46), (36, 40)), labels=(0, 1))
    plain, corrected = run(source, both).of(1), run(source, both, correction).of(1)
    for t in range(3):
        assert np.array_equal(plain[t], corrected[t])
    for t in range(3, 8):
        assert plain[t][46, 66]
        assert not corrected[t][46, 66]
        assert similarity(corrected[t], red[t]) > 0.6


@pytest.mark.parametrize("is_object", [True, False], ids=["object", "background"])
def test_one_point_adds_or_removes_a_part_on_all_later_frames(is_object: bool) -> None:
    source, red, blue = two_discs(8)
    start = red[0] if is_object else red[0] | blue[0]
    y, x = (int(values.mean()) for values in np.nonzero(blue[3] & ~red[3]))
    click = Prompt(object_id=1, frame=3, points=((x, y),), labels=(int(is_object),))
    masks = run(source, Prompt(object_id=1, frame=0, mask=start), click).of(1)
    for t in range(3, 8):
        expected = red[t] | blue[t] if is_object else red[t] & ~blue[t]
        assert similarity(masks[t], expected) > 0.75, f"frame {t}"


def test_an_object_point_far_from_the_mask_adds_a_part_that_is_propagated() -> None:
    """The parts need not touch, and the expected mask stays."""
    truth = [(disc(30, 40, 14), disc(110 - 2 * t, 80, 10)) for t in range(5)]
    source = ArraySource(np.stack([draw((near, RED), (far, BLUE), seed=t) for t, (near, far) in enumerate(truth)]))
    click = Prompt(object_id=1, frame=2, points=((106, 80),), labels=(1,))
    masks = run(source, Prompt(object_id=1, frame=0, mask=truth[0][0]), click).of(1)
    for t, (near, far) in enumerate(truth):
        assert similarity(masks[t], near | far if t >= 2 else near) > 0.75, f"frame {t}"


def test_a_background_point_on_the_only_colour_of_the_mask_does_not_erase_it() -> None:
    truth = disc(30, 40)
    source = ArraySource(
        np.where(truth[..., np.newaxis], np.uint8(RED), np.uint8((60, 130, 60)))[np.newaxis].repeat(4, 0)
    )
    click = Prompt(object_id=1, frame=2, points=((30, 40),), labels=(0,))
    masks = run(source, Prompt(object_id=1, frame=0, mask=truth), click).of(1)
    assert not masks[2][40, 30]
    assert similarity(masks[2], truth) > 0.7


def test_a_correction_recovers_a_lost_object() -> None:
    source, truth = one_disc(6)
    masks = run(
        source,
        Prompt(object_id=1, frame=0, mask=truth[0]),
        Prompt(object_id=1, frame=2, mask=np.zeros((HEIGHT, WIDTH), np.bool_) | disc(110, 80, 3)),
        Prompt(object_id=1, frame=4, box=box_of(truth[4])),
    )
    assert similarity(masks.of(1)[5], truth[5]) > 0.8


def test_background_points_can_erase_an_object_that_has_disappeared() -> None:
    source = ArraySource(np.stack([draw((disc(30, 40, 4), RED))] + [draw(seed=t) for t in range(3)]))
    masks = run(
        source,
        Prompt(object_id=1, frame=0, mask=disc(30, 40, 4)),
        Prompt(object_id=1, frame=2, points=((30, 40), (26, 40), (34, 40), (30, 44), (30, 36)), labels=(0,) * 5),
    )
    assert not masks.of(1)[2][40, 30]
    assert masks.frames_of(1) == [0, 1, 2, 3]


def test_without_propagation_only_prompt_frames_get_masks() -> None:
    source, red, blue = two_discs(8)
    prompts = [
        Prompt(object_id=1, frame=1, box=box_of(red[1])),
        Prompt(object_id=1, frame=3, points=((66, 46),), labels=(0,)),
        Prompt(object_id=2, frame=6, box=box_of(blue[6])),
    ]
    masks = run(source, *prompts, propagate=False)
    assert masks.frames_of(1) == [1, 3]
    assert masks.frames_of(2) == [6]
    assert source.num_decoded == 4  # 1, 2, 3: the correction starts from the frame before it; 6
    assert similarity(masks.of(1)[1], red[3]) > 0.8


def test_masks_do_not_depend_on_earlier_clips() -> None:
    source, truth = one_disc()
    prompt = Prompt(object_id=1, frame=2, box=box_of(truth[2]))
    segmenter = GrabCutSegmenter()
    first = Masks(list(segmenter.segment(source, [prompt], on_object_error=no_error)))
    other, red, blue = two_discs()
    cv2.setRNGSeed(123)
    for mask in (red[0], blue[0], red[0] | blue[0]):  # windows of different sizes
        elsewhere = [Prompt(object_id=1, frame=0, mask=mask)]
        list(segmenter.segment(other, elsewhere, on_object_error=no_error))
    again = Masks(list(segmenter.segment(source, [prompt], on_object_error=no_error)))
    assert first.scores == again.scores
    for one, two in zip(first.of(1), again.of(1)):
        assert np.array_equal(one, two)


def test_flow_does_not_depend_on_earlier_images() -> None:
    """DISOpticalFlow keeps parameters that it chose for an earlier image of another size."""
    rng = np.random.default_rng(0)
    # For images that do not match, the result depends on where the search starts.
    start, end = rng.integers(0, 255, (2, 220, 220), dtype=np.uint8)
    for height, width in rng.integers(40, 220, (12, 2)):
        pair = start[:height, :width].copy(), end[:height, :width].copy()
        fresh = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        assert np.array_equal(optical_flow(*pair), fresh.calc(*pair, None))


def test_an_object_without_a_mask_is_reported_and_the_others_continue() -> None:
    source, truth = one_disc()
    errors: dict[int, AotError] = {}
    prompts = [
        Prompt(object_id=1, frame=0, box=box_of(truth[0])),
        Prompt(object_id=2, frame=1, mask=np.zeros((HEIGHT, WIDTH), np.bool_)),
        Prompt(object_id=2, frame=3, box=(90, 60, 100, 70)),
        Prompt(object_id=3, frame=0, points=((5, 5),), labels=(0,)),
    ]
    blocks = GrabCutSegmenter().segment(source, prompts, on_object_error=errors.__setitem__)
    masks = Masks(list(blocks))
    assert masks.frames_of(1) == list(range(6))
    assert not masks.of(2)
    assert not masks.of(3)
    assert sorted(errors) == [2, 3]
    with pytest.raises(SegmentationError, match=r"object 2: its prompt on frame 1 .* gave an empty mask.*expected"):
        raise errors[2]


def test_an_object_that_leaves_the_frame_gets_empty_masks() -> None:
    truth = [disc(100 + 6 * t, 40, 8) for t in range(8)]
    source = ArraySource(np.stack([draw((mask, RED), seed=t) for t, mask in enumerate(truth)]))
    masks = run(source, Prompt(object_id=1, frame=0, mask=truth[0]))
    assert masks.frames_of(1) == list(range(8))
    assert np.count_nonzero(masks.of(1)[-1]) < 0.2 * np.count_nonzero(truth[0])


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (7, 5), (33, 51), (601, 37)])
@pytest.mark.parametrize(
    "kind", [{"box": (0, 0, 0, 0)}, {"points": ((0, 0),), "labels": (1,)}, {"box": (0, 0, 3, 3)}], ids=str
)
def test_small_and_odd_frames_do_not_crash(num_frames: int, size: tuple[int, int], kind: dict[str, object]) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (num_frames, *size, 3), dtype=np.uint8)
    errors: dict[int, AotError] = {}
    prompt = Prompt(object_id=1, frame=num_frames - 1, **kind)  # type: ignore[arg-type]
    blocks = list(GrabCutSegmenter().segment(ArraySource(rgb), [prompt], on_object_error=errors.__setitem__))
    if errors:
        assert not blocks
        assert isinstance(errors[1], SegmentationError)
    else:
        assert Masks(blocks).frames_of(1) == list(range(num_frames))
        assert blocks[0].masks.shape == (1, 1, *size)


def test_a_uniform_frame_has_no_object_and_the_error_names_the_prompt() -> None:
    source = ArraySource(np.full((3, 40, 50, 3), 90, np.uint8))
    errors: dict[int, AotError] = {}
    prompt = Prompt(object_id=1, frame=0, box=(10, 10, 20, 20), points=((25, 30),), labels=(0,))
    assert not list(GrabCutSegmenter().segment(source, [prompt], on_object_error=errors.__setitem__))
    assert "(box [10, 10, 20, 20], points [[25, 30]], labels [0]) gave an empty mask" in str(errors[1])


def test_blocks_are_yielded_while_the_clip_is_read() -> None:
    source, truth = one_disc(6)
    blocks = GrabCutSegmenter().segment(source, [Prompt(object_id=1, frame=0, mask=truth[0])], on_object_error=no_error)
    block = next(blocks)
    assert block.masks.shape == (1, 1, HEIGHT, WIDTH)
    assert block.score.tolist() == [[pytest.approx(1.0)]]


def test_no_prompts_give_no_masks() -> None:
    source, _ = one_disc(2)
    assert not run(source).masks


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [(-4, OutOfMemory, "out of memory in OpenCV"), (-5, SegmentationError, "OpenCV failed on a 120x90 px frame")],
)
def test_errors_of_opencv_are_mapped(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: type[AotError], message: str
) -> None:
    def fail(*arguments: object) -> None:
        error = cv2.error("grabCut went wrong")
        error.code = code
        raise error

    monkeypatch.setattr(cv2, "grabCut", fail)
    source, truth = one_disc(2)
    with pytest.raises(kind, match=message):
        run(source, Prompt(object_id=1, frame=0, box=box_of(truth[0])))
