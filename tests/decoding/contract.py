"""The contract of every frame source (`aot.decoding.base`), as tests to inherit."""

from __future__ import annotations

import numpy as np
import pytest

from aot.decoding.base import FrameSource
from aot.errors import DecodeError
from tests.decoding.coded_video import numbers_in

NUM_FRAMES, FPS = 40, 25


class FrameSourceContract:
    """Inherit this and define the fixture `source`: 40 frames of 64x48 px at 25 per second; frame i encodes i."""

    @pytest.fixture
    def source(self) -> FrameSource:
        raise NotImplementedError

    def test_properties(self, source: FrameSource) -> None:
        assert source.index.tolist() == list(range(NUM_FRAMES))
        np.testing.assert_allclose(source.time, np.arange(NUM_FRAMES) / FPS, atol=1e-6)
        assert (source.width, source.height, source.num_source_frames) == (64, 48, NUM_FRAMES)
        assert source.fps == pytest.approx(FPS)

    @pytest.mark.parametrize("order", ["forwards", "backwards", "at random", "with repeats"])
    def test_frames_can_be_read_repeatedly_in_any_order(self, source: FrameSource, order: str) -> None:
        index = {
            "forwards": source.index,
            "backwards": source.index[::-1],
            "at random": np.random.default_rng(0).permutation(NUM_FRAMES),
            "with repeats": np.array([39, 0, 0, 39, 7]),
        }[order]
        for _ in range(2):
            block = source.read(index)
            assert block.index.tolist() == index.tolist()
            assert numbers_in(block.rgb).tolist() == index.tolist()
            np.testing.assert_allclose(block.time, index / FPS, atol=1e-6)

    def test_blocks_stream_the_kept_frames(self, source: FrameSource, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aot.decoding.base.BLOCK_BYTES", 3 * 64 * 48 * 3)
        source.keep(source.index[::4])
        assert source.num_source_frames == NUM_FRAMES
        for index in (None, source.index[::-1]):
            blocks = list(source.blocks(index))
            assert max(len(block.index) for block in blocks) == 3
            numbers = [number for block in blocks for number in numbers_in(block.rgb).tolist()]
            assert numbers == (list(range(0, NUM_FRAMES, 4)) if index is None else list(range(36, -1, -4)))

    def test_stream_may_be_abandoned(self, source: FrameSource) -> None:
        next(source.blocks())
        assert numbers_in(source.read([5]).rgb).tolist() == [5]

    @pytest.mark.parametrize(("num_kept", "num_decoded"), [(40, 40), (14, 40 + 2 * (40 - 12)), (3, 120), (0, 120)])
    def test_decoded_frames_are_kept_within_a_budget(
        self, source: FrameSource, monkeypatch: pytest.MonkeyPatch, num_kept: int, num_decoded: int
    ) -> None:
        """Blocks of 4 frames are kept as long as they fit; the frames are the same in every order."""
        monkeypatch.setattr("aot.decoding.base.BLOCK_BYTES", 4 * 64 * 48 * 3)
        monkeypatch.setattr("aot.decoding.base.BACKWARD_BYTES", 8 * 64 * 48 * 3)
        source.keep_decoded(num_kept * 64 * 48 * 3)
        for index in (None, source.index[::-1], source.index):
            blocks = list(source.blocks(index))
            numbers = [number for block in blocks for number in numbers_in(block.rgb).tolist()]
            assert numbers == [int(frame) for block in blocks for frame in block.index]
            assert sorted(numbers) == list(range(NUM_FRAMES))
        assert source.num_decoded == num_decoded

    def test_frames_decoded_ahead_are_not_decoded_again(self, source: FrameSource) -> None:
        source.keep_decoded(4 * 64 * 48 * 3)
        source.decode_ahead(np.arange(5, 9))
        assert source.wait_seconds == 0
        source.keep_decoded(8 * 64 * 48 * 3)
        assert numbers_in(source.read([9, 8, 3, 6, 6]).rgb).tolist() == [9, 8, 3, 6, 6]
        assert source.num_decoded == 4 + 2
        assert numbers_in(source.read([3, 9, 5]).rgb).tolist() == [3, 9, 5]
        assert source.num_decoded == 4 + 2, "the larger budget holds those of the second read, too"

    def test_closed_source_is_not_read(self, source: FrameSource) -> None:
        source.read([3])
        source.close()
        for read in (lambda: source.read([3]), lambda: next(source.blocks())):
            with pytest.raises(DecodeError, match="the clip is closed; read its frames inside the `with` block"):
                read()
        source.close()

    def test_frame_that_is_not_kept_is_refused(self, source: FrameSource) -> None:
        source.keep(np.array([1, 5]))
        with pytest.raises(KeyError, match=r"\[4\] are not among the 2 kept frames"):
            source.read([4])
