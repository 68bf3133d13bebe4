"""The contract of every dataset (`aot.datasets.base`), as tests to inherit."""

from __future__ import annotations

import numpy as np
import pytest

from aot.datasets.base import Dataset, check_clip_ids
from aot.decoding import open_source
from aot.manifest.fit import check_prompts
from aot.manifest.serialize import prompts_as_json
from aot.types import QueryPoints


class DatasetContract:
    """Inherit this and define the fixture `dataset`, at least one clip with frames and prompts."""

    @pytest.fixture
    def dataset(self) -> Dataset:
        raise NotImplementedError

    def test_clip_ids_are_unique_and_prompts_are_ordered(self, dataset: Dataset) -> None:
        clips = dataset.clips()
        check_clip_ids(clips)
        assert any(clip.prompts for clip in clips)
        for clip in clips:
            order = [(prompt.object_id, prompt.frame) for prompt in clip.prompts]
            assert order == sorted(set(order)), clip.clip_id

    def test_clips_are_the_same_every_time(self, dataset: Dataset) -> None:
        first, again = dataset.clips(), dataset.clips()
        assert [(clip.clip_id, clip.source) for clip in first] == [(clip.clip_id, clip.source) for clip in again]
        assert [prompts_as_json(clip.prompts) for clip in first] == [prompts_as_json(clip.prompts) for clip in again]

    def test_prompts_fit_the_frames(self, dataset: Dataset) -> None:
        for clip in dataset.clips():
            with open_source(clip) as frames:
                _, errors = check_prompts(
                    clip.prompts,
                    width=frames.width,
                    height=frames.height,
                    frames=frames.index.tolist(),
                    num_source_frames=frames.num_source_frames,
                )
            assert not errors, clip.clip_id

    def test_truth_matches_the_frames_and_objects_of_the_clip(self, dataset: Dataset) -> None:
        for clip in dataset.clips():
            truth = dataset.ground_truth(clip.clip_id)
            if truth is None:
                continue
            with open_source(clip) as frames:
                index, size = frames.index, (frames.height, frames.width)
            queries = [(query, prompt.object_id) for prompt in clip.prompts for query in prompt.query_points]
            known = truth.tracks(
                QueryPoints(
                    np.array([query for query, _ in queries], np.float32).reshape(-1, 3),
                    np.array([object_id for _, object_id in queries], np.int32),
                ),
                index,
            )
            assert len(truth.mask_frames) or (known is not None and known.annotated.any()), "something is annotated"
            assert list(truth.object_ids) == sorted(truth.object_ids)
            assert truth.mask_frames.tolist() == [frame for frame in index.tolist() if truth.mask(frame)]
            for frame in truth.mask_frames.tolist():
                masks = truth.mask(frame) or {}
                assert set(masks) <= set(truth.object_ids)
                assert all(mask.shape == size and mask.dtype == np.bool_ for mask in masks.values())
