"""A clip's file: data is read back as written, and only complete files get their final name."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aot
from aot.errors import DecodeError, WriteError
from aot.lifetimes import Lifetimes
from aot.types import Clip, MaskBlock, Prompt, QueryPoints, Tracks
from aot.writing.base import ClipWriter
from aot.writing.hdf5 import new_clip_file
from aot.writing.reader import MaskReader, check_file, load
from tests.writing.contract import FRAMES, HEIGHT, MASK_FRAMES, WIDTH, Begin, ClipWriterContract

CLIP = Clip(
    clip_id="day1/ep 1",
    source=Path("ep 1.mp4"),
    prompts=(
        Prompt(object_id=2, frame=0, name="mug", box=(0, 0, 4, 4)),
        Prompt(object_id=2, frame=6, points=((1, 1),), labels=(0,)),
        Prompt(object_id=7, frame=3, points=((5, 5),), labels=(1,)),
    ),
)
INDEX = np.array(FRAMES, dtype=np.int64)
TIMES = np.array([0.2, 0.35, 0.5, 0.75])
TEXTS = "clip_id source source_sha256 config_yaml config_hash versions device attempts seconds created".split()
ATTRIBUTES: dict[str, Any] = dict.fromkeys(TEXTS, "") | {
    "width": WIDTH, "height": HEIGHT, "fps": 20.0, "num_source_frames": 10, "frame_interval_requested": 3,
    "frame_interval": 3, "peak_memory_bytes": 1,
}  # fmt: skip


class TestContract(ClipWriterContract):
    kept_mask_bytes = 2**20

    @pytest.fixture
    def begin(self) -> Begin:
        def begin(path: Path) -> AbstractContextManager[ClipWriter]:
            return new_clip_file(
                path,
                CLIP,
                index=INDEX,
                time=TIMES,
                mask_index=np.array(MASK_FRAMES, np.int64),
                height=HEIGHT,
                width=WIDTH,
                kept_mask_bytes=self.kept_mask_bytes,
            )

        return begin

    @pytest.fixture
    def provenance(self) -> dict[str, object]:
        return dict(ATTRIBUTES)


class TestContractWithMasksReadBack(TestContract):
    kept_mask_bytes = 0


class TestContractWithOneMaskKept(TestContract):
    kept_mask_bytes = 1100


def tracks(num_frames: int, num_points: int, seed: int = 0) -> Tracks:
    rng = np.random.default_rng(seed)
    shape = (num_frames, num_points)
    return Tracks(
        xy=rng.normal(size=(*shape, 2)).astype(np.float32),
        visible=rng.random(shape) > 0.5,
        visibility=rng.random(shape).astype(np.float32),
        confidence=rng.random(shape).astype(np.float32),
    )


def block(frames: list[int], object_ids: list[int], seed: int = 0) -> MaskBlock:
    rng = np.random.default_rng(seed)
    shape = (len(frames), len(object_ids))
    return MaskBlock(
        index=np.array(frames, dtype=np.int64),
        object_id=np.array(object_ids, dtype=np.int32),
        masks=rng.random((*shape, HEIGHT, WIDTH)) > 0.5,
        score=rng.random(shape).astype(np.float32),
    )


COVERAGE = np.linspace(0, 1, 8).reshape(4, 2)


def lifetimes(made: Tracks) -> Lifetimes:
    num_points = made.visible.shape[1]
    ended = np.full(num_points, 6, dtype=np.int64)
    return Lifetimes(born=np.full(num_points, 3, dtype=np.int64), ended=ended, valid=~made.visible)


def write(path: Path, blocks: list[MaskBlock], num_points: int = 5, mask_index: np.ndarray = INDEX) -> Tracks:
    made = tracks(len(INDEX), num_points)
    txy = np.zeros((num_points, 3), dtype=np.float32)
    queries = QueryPoints(txy=txy, object_id=np.full(num_points, 2, dtype=np.int32))
    with new_clip_file(
        path, CLIP, index=INDEX, time=TIMES, mask_index=mask_index, height=HEIGHT, width=WIDTH
    ) as writer:
        for item in blocks:
            writer.write_masks(item)
        writer.write_tracks(made, queries, made.visible, lifetimes(made), COVERAGE)
        writer.write_provenance(ATTRIBUTES, {7: "no mask"})
    return made


def test_result_is_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "clips" / "day1" / "ep 1.h5"
    forward, backward = block([3, 6, 9], [2, 7]), block([0], [7], seed=1)
    made = write(path, [forward, backward])
    result = aot.load(path)
    assert result.index.tolist() == INDEX.tolist()
    assert result.time.tolist() == TIMES.tolist()
    assert result.object_id.tolist() == [2, 7]
    assert result.object_name == ("mug", "")
    assert [prompt["frame"] for prompt in result.object_prompts[0]] == [0, 6]
    assert result.object_error == ("", "no mask")
    assert result.mask_row.tolist() == [0, 1, 2, 3]
    assert result.masks is not None
    assert np.array_equal(result.masks[1:], forward.masks)
    assert np.array_equal(result.masks[0, 1], backward.masks[0, 0])
    assert not result.masks[0, 0].any(), "unwritten masks read as False"
    assert np.isnan(result.mask_score[0, 0])
    assert np.array_equal(result.mask_score[1:], forward.score)
    assert np.array_equal(result.tracks.xy, made.xy)
    assert np.array_equal(result.in_mask, made.visible)
    assert np.array_equal(result.lifetimes.valid, ~made.visible)
    assert result.lifetimes.born.tolist() == [3] * 5
    assert result.lifetimes.ended.tolist() == [6] * 5
    np.testing.assert_allclose(result.coverage, COVERAGE, atol=1e-6)
    np.testing.assert_allclose(result.tracks.visibility, made.visibility, atol=1e-3)
    np.testing.assert_allclose(result.flow(), np.diff(made.xy, axis=0))
    assert result.attributes["schema"] == "aot/2"
    assert result.attributes["num_source_frames"] == 10


def test_file_has_the_datasets_of_the_schema(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", [block([0, 3, 6, 9], [2, 7])])
    expected = {
        "frames/index": ((4,), "int64"), "frames/time": ((4,), "float64"), "objects/id": ((2,), "int32"),
        "masks/data": ((4, 2, HEIGHT, WIDTH), "bool"), "masks/row": ((4,), "int64"), "masks/score": ((4, 2), "float32"),
        "tracks/xy": ((4, 5, 2), "float32"), "tracks/visible": ((4, 5), "bool"),
        "tracks/visibility": ((4, 5), "float16"), "tracks/confidence": ((4, 5), "float16"),
        "tracks/query": ((5, 3), "float32"), "tracks/object_id": ((5,), "int32"), "tracks/in_mask": ((4, 5), "bool"),
        "tracks/valid": ((4, 5), "bool"), "tracks/born": ((5,), "int64"), "tracks/ended": ((5,), "int64"),
        "masks/coverage": ((4, 2), "float32"),
    }  # fmt: skip
    with h5py.File(tmp_path / "a.h5") as file:
        assert {name: (file[name].shape, str(file[name].dtype)) for name in expected} == expected
        assert file["masks/data"].chunks == (1, 1, HEIGHT, WIDTH)
        assert file["masks/data"].compression == "gzip", "readable without any filter plugin"
        assert json.loads(file["objects/prompt"].asstr()[0])[0]["box"] == [0, 0, 4, 4]


def test_a_file_without_lifetimes_is_read_with_tracks_that_do_not_end(tmp_path: Path) -> None:
    made = write(tmp_path / "a.h5", [block([0, 3, 6, 9], [2, 7])])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["schema"] = "aot/1"
        for name in ("tracks/valid", "tracks/born", "tracks/ended", "masks/coverage"):
            del file[name]
    check_file(tmp_path / "a.h5")
    result = load(tmp_path / "a.h5")
    assert np.array_equal(result.lifetimes.valid, made.visible)
    assert result.lifetimes.born.tolist() == [0] * 5
    assert result.lifetimes.ended.tolist() == [-1] * 5
    assert np.isnan(result.coverage).all()


def test_masks_can_cover_only_some_frames(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", [block([3], [2, 7])], mask_index=np.array([3], dtype=np.int64))
    result = load(tmp_path / "a.h5")
    assert result.mask_row.tolist() == [1]
    with MaskReader(tmp_path / "a.h5") as masks:
        assert masks.row(0) is None
        assert [frame for frame, _ in masks] == [3]
        only = masks.row(1)
    assert only is not None
    assert result.masks is not None
    assert np.array_equal(only, result.masks[0])


def test_file_without_masks_and_points_is_valid(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", [], num_points=0, mask_index=np.zeros(0, dtype=np.int64))
    result = load(tmp_path / "a.h5")
    assert result.masks is not None
    assert result.masks.shape == (0, 2, HEIGHT, WIDTH)
    assert result.tracks.xy.shape == (4, 0, 2)


def test_an_error_while_writing_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(DecodeError, match="frame 3"),
        new_clip_file(
            tmp_path / "a.h5", CLIP, index=INDEX, time=TIMES, mask_index=INDEX, height=HEIGHT, width=WIDTH
        ) as writer,
    ):
        writer.write_masks(block([0], [2]))
        raise DecodeError("frame 3")
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_file_gets_no_name(tmp_path: Path) -> None:
    with (
        pytest.raises(WriteError, match="attributes"),
        new_clip_file(tmp_path / "a.h5", CLIP, index=INDEX, time=TIMES, mask_index=INDEX, height=HEIGHT, width=WIDTH),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/a\.h5 could not be written"):
        write(tmp_path / "file" / "a.h5", [])


# A limit on the file size simulates a full disk: a write fails in the middle, and no root privileges are needed.
FULL_DISK = """
import resource, sys
from pathlib import Path
from aot.errors import WriteError
from tests.writing.test_hdf5 import block, write

path, refusals = Path(sys.argv[1]), 0
write(path, [block([0, 3, 6, 9], [2, 7])])
size = path.stat().st_size
for limit in range(0, size, size // 50):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(path.with_name("b.h5"), [block([0, 3, 6, 9], [2, 7])])
    except WriteError as error:
        refusals += "b.h5 could not be written: the file is larger than" in str(error)
print(refusals, [entry.name for entry in path.parent.iterdir()])
"""


def test_a_full_disk_is_reported_once_without_a_crash(tmp_path: Path) -> None:
    """Without `DiskFile`, HDF5 floods the terminal and crashes when the process exits."""
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.split(maxsplit=1) == ["51", "['a.h5']\n"]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(INDEX.tolist()),
    ids=st.lists(st.sampled_from([2, 7]), min_size=1, unique=True),
    seed=st.integers(0, 99),
)
def test_blocks_can_be_written_in_any_order(tmp_path: Path, order: list[int], ids: list[int], seed: int) -> None:
    full = block(order, ids, seed)
    blocks = [
        MaskBlock(full.index[i : i + 1], full.object_id, full.masks[i : i + 1], full.score[i : i + 1])
        for i in range(len(order))
    ]
    write(tmp_path / "a.h5", blocks)
    result = load(tmp_path / "a.h5")
    assert result.masks is not None
    for position, frame in enumerate(order):
        row = INDEX.tolist().index(frame)
        for column, object_id in enumerate(ids):
            stored = result.masks[row, result.object_id.tolist().index(object_id)]
            assert np.array_equal(stored, full.masks[position, column])
