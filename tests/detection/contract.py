"""The guarantees of every detector (`aot.detection.base`), as test classes to inherit from."""

from __future__ import annotations

import numpy as np
import pytest

from aot.detection.base import Detections, Detector
from aot.errors import ConfigError
from aot.types import UInt8Array
from tests.synthetic import moving_square

HEIGHT, WIDTH = 64, 96
TEXT = "bright square"


def frame(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> UInt8Array:
    """A bright square of 20 px with its upper left corner at (8, 20)."""
    return moving_square(1, width, height, seed)[0]


def assert_same(one: Detections, other: Detections) -> None:
    assert np.array_equal(one.boxes, other.boxes)
    assert np.array_equal(one.scores, other.scores)
    assert one.best_score == other.best_score
    assert (one.masks is None) == (other.masks is None)
    assert one.masks is None or np.array_equal(one.masks, other.masks)


class DetectorContract:
    """Subclasses define the fixture `detector`, of a model that finds some box on the frame, however bad its score."""

    @pytest.fixture
    def detector(self) -> Detector:
        raise NotImplementedError

    def test_boxes_are_within_the_frame(self, detector: Detector) -> None:
        found = detector.detect(frame(), TEXT, min_score=0.0)
        assert len(found)
        assert (found.boxes[:, :2] >= 0).all()
        assert (found.boxes[:, 2:] <= [WIDTH, HEIGHT]).all()
        assert (found.boxes[:, 2:] - found.boxes[:, :2] >= 1).all()
        assert found.masks is None or found.masks.shape == (len(found), HEIGHT, WIDTH)

    def test_lower_scores_are_left_out_and_the_best_one_is_known(self, detector: Detector) -> None:
        every = detector.detect(frame(), TEXT, min_score=0.0)
        assert ((every.scores >= 0) & (every.scores <= 1)).all()
        limit = float(np.median(every.scores))
        some = detector.detect(frame(), TEXT, min_score=limit)
        expected = every.take(np.flatnonzero(every.scores >= limit))
        assert_same(some, expected)
        none = detector.detect(frame(), TEXT, min_score=1.0)
        assert len(none) == np.count_nonzero(every.scores >= 1)
        assert none.best_score is not None
        assert none.best_score == every.best_score >= every.scores.max()

    def test_one_instance_finds_objects_in_several_clips(self, detector: Detector) -> None:
        first = detector.detect(frame(), TEXT, min_score=0.0)
        detector.detect(frame(seed=1, width=50, height=40), "something else", min_score=0.0)
        assert_same(detector.detect(frame(), TEXT, min_score=0.0), first)

    def test_the_frame_is_not_changed(self, detector: Detector) -> None:
        image = frame()
        image.setflags(write=False)
        detector.detect(image, TEXT, min_score=0.0)
        assert np.array_equal(image, frame())

    def test_limits_and_the_name_of_the_model(self, detector: Detector) -> None:
        assert 0 <= detector.min_score <= 1
        assert 0 <= detector.max_overlap <= 1
        assert detector.model_name


class NoDetectorContract:
    """For the option that finds nothing."""

    @pytest.fixture
    def detector(self) -> Detector:
        raise NotImplementedError

    def test_words_are_refused_with_what_to_write(self, detector: Detector) -> None:
        with pytest.raises(ConfigError, match=r'"bright square" cannot be found .* add detector=grounding_dino'):
            detector.detect(frame(), TEXT, min_score=0.0)
