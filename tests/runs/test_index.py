"""Access to results: parts of a clip, lazy masks, tables, and selections of thousands of clips."""

from __future__ import annotations

import csv
import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import aot
from aot.errors import ConfigError, ResultError
from aot.paths import RunPaths
from aot.runs.ledger import Ledger
from aot.types import Clip, Prompt
from tests.results import write_result

QUERIES = [(0, 1, 1, 1), (0, 2, 2, 1), (4, 3, 3, 2)]


def masks_of(num_frames: int = 5) -> np.ndarray:
    return np.random.default_rng(0).random((num_frames, 2, 6, 9)) > 0.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Frames 0, 2, … 8 of two objects, `mug` with two points and an unnamed one with one."""
    clip = Clip("a", Path("a.mp4"), (Prompt(1, 0, name="mug", box=(0, 0, 1, 1)), Prompt(2, 4, box=(0, 0, 1, 1))))
    rng = np.random.default_rng(1)
    return write_result(
        tmp_path / "a.h5", masks=masks_of(), queries=QUERIES, xy=rng.random((5, 3, 2)),
        visible=rng.random((5, 3)) > 0.5,
        index=[0, 2, 4, 6, 8], clip=clip,
    )  # fmt: skip


class TestLazyMasks:
    def test_indexing_equals_indexing_an_array(self, path: Path) -> None:
        lazy, expected = aot.load(path, masks="lazy").masks, masks_of()
        assert lazy is not None
        assert (lazy.shape, lazy.dtype, len(lazy)) == (expected.shape, np.bool_, 5)
        for key in [0, -1, slice(1, 4), (2, 1), (slice(None), 0), (3, slice(None), 2), (slice(0, 5, 2), 1, 3, 4),
                    [0, 3], (slice(None), slice(None), slice(2, 4), slice(0, 3))]:  # fmt: skip
            assert np.array_equal(lazy[key], expected[key]), key
        assert np.array_equal(np.asarray(lazy), expected)
        assert np.array_equal(pickle.loads(pickle.dumps(lazy))[1], expected[1]), "can be sent to other processes"
        with pytest.raises(IndexError):
            lazy[5]
        for key in [..., (0, ...), (0, 0, 0, 0, 0)]:
            with pytest.raises(IndexError, match="expected up to 4 indices, without an ellipsis"):
                lazy[key]

    def test_only_the_indexed_masks_are_read(self, path: Path) -> None:
        import h5py

        with h5py.File(path, "a") as file:
            offset = file["masks/data"].id.get_chunk_info(9).byte_offset
        content = bytearray(path.read_bytes())
        content[offset : offset + 8] = b"\xff" * 8  # the chunk of the last frame's second object
        path.write_bytes(content)
        lazy = aot.load(path, masks="lazy").masks
        assert lazy is not None
        assert np.array_equal(lazy[:, 0], masks_of()[:, 0])
        with pytest.raises(ResultError, match=r"a\.h5 cannot be read"):
            lazy[4, 1]


class TestSelect:
    @pytest.mark.parametrize("masks", [True, "lazy", False])
    def test_select_objects_by_id_or_name(self, path: Path, masks: bool) -> None:
        result = aot.load(path, masks=masks)
        mug = result.select(objects="mug")
        assert (mug.object_id.tolist(), mug.object_name, mug.track_object_id.tolist()) == ([1], ("mug",), [1, 1])
        assert np.array_equal(mug.tracks.xy, result.tracks.xy[:, :2])
        assert np.array_equal(result.select(objects=[2]).query, result.query[2:])
        if masks:
            assert np.array_equal(np.asarray(result.select(objects=2).masks)[:, 0], masks_of()[:, 1])
        with pytest.raises(KeyError, match="no object 'cup'; expected one of 1, 2, 'mug'"):
            result.select(objects="cup")

    @pytest.mark.parametrize("masks", [True, "lazy"])
    def test_select_frames_by_source_frame_number(self, path: Path, masks: bool) -> None:
        result = aot.load(path, masks=masks)
        part = result.select(frames=slice(2, 7), objects=[1, 2])
        assert part.index.tolist() == [2, 4, 6]
        assert part.mask_row.tolist() == [0, 1, 2]
        assert np.array_equal(np.asarray(part.masks), masks_of()[1:4])
        assert np.array_equal(part.in_mask, result.in_mask[1:4])
        assert np.array_equal(part.flow(), result.flow()[1:3])
        assert result.select(frames=[8, 0]).index.tolist() == [0, 8], "always ascending"
        assert part.select(frames=[4]).index.tolist() == [4]
        with pytest.raises(KeyError, match=r"source frames \[3\] are not among the 5 kept frames"):
            result.select(frames=[2, 3])

    def test_to_pandas_has_one_row_per_frame_and_point(self, path: Path) -> None:
        result = aot.load(path, masks=False)
        table = result.to_pandas()
        assert len(table) == 5 * 3
        line = table[(table.frame == 6) & (table.point == 1)].iloc[0]
        assert (line.x, line.y) == tuple(result.tracks.xy[3, 1])
        assert (line.object_id, line.object_name, line.visible) == (1, "mug", result.tracks.visible[3, 1])
        assert table.groupby("object_name").point.nunique().to_dict() == {"": 1, "mug": 2}


@pytest.fixture
def run(tmp_path: Path, path: Path) -> Path:
    """A run folder of twelve clips; clip n has visible = n / 12."""
    root = tmp_path / "run"
    for number in range(12):
        checks = {"1": {"visible": number / 12, "in_mask": None}, "2": {"visible": 1.0, "in_mask": 0.5}}
        write_result(
            root / "clips" / f"day{number % 2}" / f"{number:02d}.h5", masks=masks_of(), queries=QUERIES,
            clip=Clip(f"day{number % 2}/{number:02d}", Path("a.mp4"), (Prompt(1, 0, name="mug", box=(0, 0, 1, 1)),
                                                                     Prompt(2, 0, box=(0, 0, 1, 1)))),
            attributes={"checks": json.dumps(checks), "seconds": json.dumps({"track": 2.0, "segment": number})},
        )  # fmt: skip
    (root / "run.json").write_text("{}")
    return root


class TestOpenRun:
    def test_table_has_one_row_per_clip(self, run: Path) -> None:
        found = aot.open_run(run)
        assert len(found) == 12
        assert found.clip_ids[:2] == ["day0/00", "day0/02"]
        assert found["seconds"][1] == 4.0
        assert (found["num_objects"][0], found["num_points"][0], found["num_frames"][0]) == (2, 3, 5)
        assert found["object_names"][0] == "mug;"
        assert found["visible"][1] == pytest.approx(2 / 12), "the value of the worst object"
        assert np.isnan(found["return_error_px"]).all()
        assert len(found.to_pandas()) == 12
        assert found["day0/02"].attributes["clip_id"] == "day0/02"
        with pytest.raises(KeyError, match="no column or clip 'nothing'; expected one of clip_id"):
            found["nothing"]

    def test_where_selects_clips(self, run: Path) -> None:
        bad = aot.open_run(run)
        bad = bad.where(bad["visible"] < 0.25)
        assert bad.clip_ids == ["day0/00", "day0/02", "day1/01"]
        (first, *_) = bad
        assert first.attributes["clip_id"] == "day0/00"
        assert np.array_equal(np.asarray(first.masks), masks_of()), "lazy"
        with pytest.raises(ValueError, match=r"got \(12,\) bool, expected \(3,\) bool"):
            bad.where(np.ones(12, dtype=np.bool_))

    def test_only_new_and_changed_files_are_opened(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        aot.open_run(run)
        from aot.runs import index as results

        opened: list[str] = []
        own = results.read_overview
        monkeypatch.setattr(
            results, "read_overview", lambda path, names: (opened.append(path.stem), own(path, names))[1]
        )
        aot.open_run(run)
        assert opened == []
        shutil.copy(run / "clips" / "day1" / "11.h5", run / "clips" / "day0" / "00.h5")
        (run / "clips" / "day0" / "02.h5").unlink()
        shutil.copy(run / "clips" / "day1" / "03.h5", run / "clips" / "new.h5")
        found = aot.open_run(run)
        assert sorted(opened) == ["00", "new"]
        assert found["visible"][found.clip_ids.index("day0/00")] == pytest.approx(11 / 12)
        assert "day0/02" not in found.clip_ids
        assert "new" in found.clip_ids

    def test_scores_come_from_the_summary(self, run: Path) -> None:
        assert np.isnan(aot.open_run(run)["J"]).all()
        with (run / "summary.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["clip_id", "J", "PCK"], ["day0/00", "0.5", ""], ["gone", "1", "1"]])
        found = aot.open_run(run)
        assert found["J"][0] == 0.5
        assert np.isnan(found["PCK"][0])
        assert np.isnan(found["J"][1])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"clip_id;J\nday0/00;0.5\n", "the key 'clip_id' is missing"),
            (b"clip_id,J\nday0/00,half\n", "a value is not of the expected type"),
            (b"clip_id,J\n\xff,1\n", "line 2, column 1: not text in UTF-8"),
        ],
    )
    def test_an_edited_summary_is_described(self, run: Path, content: bytes, message: str) -> None:
        (run / "summary.csv").write_bytes(content)
        with pytest.raises(
            ConfigError, match=rf"summary\.csv.*{message}.*expected the table that aot\.run writes: delete"
        ):
            aot.open_run(run)

    def test_damaged_file_is_skipped_and_index_rebuilt(self, run: Path, caplog: pytest.LogCaptureFixture) -> None:
        (run / "clips" / "day0" / "00.h5").write_bytes(b"not HDF5")
        (run / "index.npz").write_bytes(b"no index")
        with caplog.at_level(logging.WARNING):
            assert len(aot.open_run(run)) == 11
        assert "skipped: " in caplog.text
        assert "day0/00.h5 is not an HDF5 file" in caplog.text

    def test_run_whose_index_cannot_be_written_can_be_opened(self, run: Path, caplog: pytest.LogCaptureFixture) -> None:
        (run / "index.npz").mkdir()  # a folder cannot be replaced by a file; stands for a read-only run folder
        with caplog.at_level(logging.WARNING):
            assert len(aot.open_run(run)) == 12
        assert "index.npz could not be written" in caplog.text

    def test_empty_run_opens_and_other_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("{}")
        assert len(aot.open_run(tmp_path)) == 0
        with pytest.raises(ConfigError, match="nothing does not exist; expected a run folder"):
            aot.open_run(tmp_path / "nothing")


class TestDataset:
    def test_data_loader_returns_tensors(self, run: Path) -> None:
        dataset = aot.open_run(run).as_dataset()
        assert isinstance(dataset, torch.utils.data.Dataset)
        items = list(DataLoader(dataset, batch_size=None, num_workers=0))
        assert [item["clip_id"] for item in items] == aot.open_run(run).clip_ids
        assert items[3]["xy"].shape == (5, 3, 2)
        assert items[3]["object_id"].tolist() == [1, 1, 2]
        assert len(pickle.loads(pickle.dumps(dataset))) == 12, "can be sent to worker processes"

    def test_transform_replaces_the_tensors(self, run: Path) -> None:
        dataset = aot.open_run(run).as_dataset(lambda result: np.asarray(result.masks).sum())
        assert dataset[2] == masks_of().sum()


def test_many_clips_are_selected_without_opening_them(run: Path) -> None:
    """200 clips; benchmarks/open_run.py measures 10 000."""
    source = run / "clips" / "day0" / "00.h5"
    for number in range(200):
        target = run / "clips" / "many" / f"{number:05d}.h5"
        target.parent.mkdir(exist_ok=True)
        os.link(source, target)
    assert len(aot.open_run(run)) == 212
    assert len(aot.open_run(run).where(aot.open_run(run)["visible"] == 0)) == 201


class TestRowsFromLedgers:
    """The index of a run whose ledgers record the results: no file is opened."""

    def done(self, run: Path, clip_id: str, **changes: Any) -> None:
        paths = RunPaths(run)
        result = paths.clip(clip_id).result
        summary = {
            "num_objects": 2, "num_points": 9, "num_frames": 4, "num_source_frames": 8, "frame_interval": 2,
            "width": 64, "height": 48, "fps": 29.97, "object_names": ["mug", ""], "object_errors": {"2": "no mask"},
            "checks": {"1": {"visible": 0.5}}, "seconds": {"track": 1.5, "overlay": 9.0}, "peak_memory_bytes": 7,
        } | changes  # fmt: skip
        file_bytes = changes.get("file_bytes", result.stat().st_size)
        Ledger(paths, "w").append("done", clip_id=clip_id, file_bytes=file_bytes, summary=summary)

    def test_recorded_results_are_not_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "run.json").write_text("{}")
        for clip_id in ("day1/a", "b"):
            path = RunPaths(tmp_path).clip(clip_id).result
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not opened")
            self.done(tmp_path, clip_id)
        found = aot.open_run(tmp_path)
        assert found.clip_ids == ["b", "day1/a"]
        row = {name: found[name][0] for name in found.columns}
        assert (row["object_names"], row["num_failed_objects"], row["fps"], row["seconds"]) == ("mug;", 1, 29.97, 1.5)
        assert (row["width"], row["height"], row["num_points"], row["visible"]) == (64, 48, 9, 0.5)
        assert np.isnan(row["in_mask"])
        assert (tmp_path / "index.npz").exists()

    @pytest.mark.parametrize("changes", [{"file_bytes": 3}, {"width": 0}], ids=["another file", "version 0.1"])
    def test_files_without_a_complete_record_are_opened(self, run: Path, changes: dict[str, Any]) -> None:
        expected = aot.open_run(run)
        (run / "index.npz").unlink()
        for clip_id in expected.clip_ids:
            self.done(run, clip_id, **changes)
        found = aot.open_run(run)
        assert {name: list(map(str, values)) for name, values in found.columns.items()} == {
            name: list(map(str, values)) for name, values in expected.columns.items()
        }
