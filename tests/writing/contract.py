"""Contract tests that every `ClipWriter` must pass; test classes inherit them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from aot.errors import DecodeError, WriteError
from aot.lifetimes import Lifetimes
from aot.types import MaskBlock, QueryPoints, Tracks
from aot.writing.base import ClipWriter

HEIGHT, WIDTH = 6, 8
FRAMES = [0, 3, 6, 9]
MASK_FRAMES = [3, 6]
OBJECTS = [2, 7]

Begin = Callable[[Path], AbstractContextManager[ClipWriter]]


def one_mask(frame: int, object_id: int, column: int) -> MaskBlock:
    """A mask that is one column of pixels."""
    masks = np.zeros((1, 1, HEIGHT, WIDTH), np.bool_)
    masks[..., column] = True
    return MaskBlock(
        np.array([frame], np.int64), np.array([object_id], np.int32), masks, np.full((1, 1), 0.5, np.float32)
    )


def write_tracks(writer: ClipWriter) -> None:
    shape = (len(FRAMES), 1)
    ones = np.ones(shape, np.float32)
    tracks = Tracks(np.zeros((*shape, 2), np.float32), np.ones(shape, np.bool_), ones, ones)
    queries = QueryPoints(np.zeros((1, 3), np.float32), np.array(OBJECTS[:1], np.int32))
    life = Lifetimes.unlimited(tracks.visible, np.array(FRAMES, np.int64))
    writer.write_tracks(tracks, queries, tracks.visible, life, np.ones((len(FRAMES), len(OBJECTS))))


class ClipWriterContract:
    """Subclasses define the fixtures `begin` (creates a file with FRAMES, MASK_FRAMES and OBJECTS) and `provenance`."""

    @pytest.fixture
    def begin(self) -> Begin:
        raise NotImplementedError

    @pytest.fixture
    def provenance(self) -> dict[str, object]:
        raise NotImplementedError

    def test_masks_are_known_while_the_file_is_written(self, begin: Begin, tmp_path: Path) -> None:
        with pytest.raises(DecodeError, match="enough"), begin(tmp_path / "a.h5") as writer:
            writer.write_masks(one_mask(6, 7, column=1))
            writer.write_masks(one_mask(3, 2, column=4))
            for frame, expected in {3: {2: 4}, 6: {7: 1}}.items():
                masks = writer.masks(frame)
                assert masks is not None
                assert len(masks) == len(OBJECTS)
                for object_id, mask in zip(OBJECTS, masks):
                    columns = np.flatnonzero(mask.in_frame(HEIGHT, WIDTH).all(axis=0)).tolist()
                    assert columns == ([expected[object_id]] if object_id in expected else [])
            assert writer.masks(0) is None, "a frame without masks"
            raise DecodeError("enough")

    def test_a_file_gets_its_name_when_it_is_complete(
        self, begin: Begin, provenance: dict[str, object], tmp_path: Path
    ) -> None:
        path = tmp_path / "day 1" / "a.h5"
        with begin(path) as writer:
            write_tracks(writer)
            writer.write_provenance(provenance, {7: "no mask"})
            assert not path.exists()
        assert [entry.name for entry in path.parent.iterdir()] == ["a.h5"]

    def test_an_error_leaves_the_existing_file_unchanged(self, begin: Begin, tmp_path: Path) -> None:
        path = tmp_path / "a.h5"
        path.write_text("older")
        with pytest.raises(RuntimeError, match="of a model"), begin(path) as writer:
            writer.write_masks(one_mask(3, 2, column=4))
            raise RuntimeError("of a model")
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]
        assert path.read_text() == "older"

    def test_an_incomplete_file_is_refused(self, begin: Begin, tmp_path: Path) -> None:
        with pytest.raises(WriteError, match="are missing"), begin(tmp_path / "a.h5") as writer:
            write_tracks(writer)
        assert list(tmp_path.iterdir()) == []
