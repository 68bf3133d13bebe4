"""The data of the report: the part of each clip, and the first page."""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from aot.errors import WriteError
from aot.images.masks import encode_rle
from aot.lifetimes import Lifetimes
from aot.paths import RunPaths
from aot.report.__main__ import main
from aot.report.clip import is_reported, report_clip
from aot.report.index import write_report
from aot.run import main as run_main
from aot.runs.ledger import read_events
from aot.runs.timing import STAGES
from aot.types import Clip, MaskBlock, Prompt, QueryPoints, Tracks
from aot.writing.hdf5 import new_clip_file
from tests.command_line import EMBEDDED
from tests.synthetic import moving_square, write_video

FAST = [*EMBEDDED, "query_points.num_points=20"]
DIAGONAL = encode_rle(np.eye(64, 96, dtype=np.bool_)).counts
ENTRY = (
    '{objects: [{id: 1, name: "<b>square</b>", box: [8, 20, 28, 40]}, {id: 3, query_points: [[2, 5, 6]]},'
    f' {{id: 1, frame: 4, mask: {{size: [64, 96], counts: "{DIAGONAL}"}}}}]}}'
)


@pytest.fixture(scope="module")
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run of two finished clips and a failed one."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("a.mp4", "day 1/c.mp4"):
        write_video(folder / "clips" / name, moving_square(8))
    (folder / "clips" / "broken.mp4").write_text("not a video")
    (folder / "clips" / "prompts.yaml").write_text(f"clips:\n  '*': {ENTRY}\n")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run_main(["dataset=videos", "dataset.root=clips", *FAST]) == 1
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(working_folder: Path, tmp_path: Path) -> RunPaths:
    shutil.copytree(working_folder, tmp_path / "copy", copy_function=shutil.copy2)
    (root,) = (tmp_path / "copy" / "outputs" / "videos").iterdir()
    return RunPaths(root)


def data(path: Path) -> Any:
    """The data in a script."""
    text = path.read_text()
    return json.loads(text[text.index("(") + 1 : text.rindex(")")])


class TestRun:
    def test_a_run_writes_a_report(self, run: RunPaths) -> None:
        assert (run.report / "index.html").is_file()
        run_data = data(run.report / "data" / "run.js")
        rows = [dict(zip(run_data["columns"], row)) for row in run_data["rows"]]
        assert [(row["clip_id"], row["state"]) for row in rows] == [
            ("a", "done"), ("broken", "failed"), ("day 1/c", "done"),
        ]  # fmt: skip
        assert rows[0]["attempts"] == 1
        assert run_data["pages"] == ["a", "broken", "day 1/c"]
        (group,) = run_data["failures"]
        assert group["class"] == "decode"
        assert group["retry"].endswith("'retry=[decode]'")
        (failure,) = group["clips"]
        assert "cannot be read as a video" in failure["message"]
        assert (run.report / failure["log"]["href"]).resolve().is_file()

    def test_the_page_of_a_failed_clip_shows_the_error(self, run: RunPaths) -> None:
        failure = data(run.clip("broken").report.data)["failure"]
        assert failure["stage"] == "open"
        assert "DecodeError" in failure["traceback"]
        assert any("failed" in line for line in failure["log_lines"])

    def test_the_report_folder_is_self_contained(self, run: RunPaths, tmp_path: Path) -> None:
        """Moved without the run, it still has every file that its pages refer to."""
        moved = shutil.move(run.report, tmp_path / "moved")
        clip = data(moved / "data" / "clips" / "day 1" / "c.js")
        assert (moved / clip["video"]).stat().st_size > 1000
        assert all((moved / image["file"]).is_file() for image in [*clip["pictures"], clip["flow"]])
        page = (moved / "index.html").read_text() + (moved / "clip.html").read_text()
        assert "http" not in page.replace("http-equiv", "")

    def test_the_video_is_a_hard_link(self, working_folder: Path) -> None:
        (root,) = (working_folder / "outputs" / "videos").iterdir()
        clip = RunPaths(root).clip("a")
        assert clip.report.video.samefile(clip.overlay)

    def test_a_resumed_run_rewrites_no_clip_part(self, working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(working_folder)
        (root,) = (working_folder / "outputs" / "videos").iterdir()
        parts = [
            path for path in (root / "report").rglob("*") if path.is_file() and path.name not in ("run.js", "pages.js")
        ]
        before = {path: path.stat().st_mtime_ns for path in parts}
        assert run_main(["dataset=videos", "dataset.root=clips", *FAST]) == 1
        assert {path: path.stat().st_mtime_ns for path in parts} == before

    def test_a_changed_overlay_style_updates_the_report(self, run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(run.root.parents[2])
        result, video = run.clip("a").result.read_bytes(), run.clip("a").report.video.read_bytes()
        command = ["dataset=videos", "dataset.root=clips", *FAST]
        assert run_main([*command, "overlay.side_by_side=true"]) == 1
        assert run.clip("a").result.read_bytes() == result
        assert run.clip("a").report.video.read_bytes() == run.clip("a").overlay.read_bytes() != video

    def test_the_report_can_be_switched_off(self, run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(run.root.parents[2])
        shutil.rmtree(run.report)
        assert run_main(["dataset=videos", "dataset.root=clips", *FAST, "output.report=false"]) == 1
        assert not run.report.exists()


class TestCommand:
    def test_missing_and_outdated_parts_are_written(self, run: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.rmtree(run.report)
        assert main([str(run.root)]) == 0
        assert "3 clips, 2 updated" in capsys.readouterr().out
        assert is_reported(run.clip("day 1/c"))
        os.utime(run.clip("a").result)
        assert not is_reported(run.clip("a"))
        assert main([str(run.root)]) == 0
        assert "3 clips, 1 updated" in capsys.readouterr().out
        os.utime(run.clip("a").result, (9e9, 9e9))  # by a machine whose clock is ahead
        for updated in (1, 0):
            assert main([str(run.root)]) == 0
            assert f"3 clips, {updated} updated" in capsys.readouterr().out
        assert main([str(run.root), "--all"]) == 0
        assert "3 clips, 2 updated" in capsys.readouterr().out

    def test_report_of_a_moved_run_is_updated(self, run: RunPaths, tmp_path: Path) -> None:
        moved = shutil.move(run.root, tmp_path / "moved")
        shutil.rmtree(moved / "report")
        assert main([str(moved)]) == 0
        assert (moved / "report" / "index.html").is_file()

    def test_clip_page_without_the_source_video_explains_why_it_has_no_images(
        self, working_folder: Path, run: RunPaths
    ) -> None:
        (working_folder / "clips" / "a.mp4").rename(working_folder / "clips" / "b.mp4")
        try:
            assert main([str(run.root), "--all"]) == 0
        finally:
            (working_folder / "clips" / "b.mp4").rename(working_folder / "clips" / "a.mp4")
        clip = data(run.clip("a").report.data)
        assert clip["pictures"] == []
        assert "a.mp4" in clip["pictures_note"]
        assert clip["charts"]["area"][0][0] > 0

    def test_flow_is_drawn_where_points_move_most(self, run: RunPaths) -> None:
        """The square of `moving_square` moves to the right by 2 px from frame to frame."""
        flow = data(run.clip("a").report.data)["flow"]
        assert flow["next"] == flow["frame"] + 1
        assert flow["full_px"] == pytest.approx(2, abs=0.3)
        with Image.open(run.report / flow["file"]) as image:
            colours = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
        coloured = colours[colours.max(axis=1) > 0]
        assert 10 < len(coloured) < 800, "black outside the object"
        red, green, blue = np.median(coloured, axis=0)
        assert red > 180 > 120 > max(green, blue)

    def test_clip_without_moving_points_has_no_flow(self, run: RunPaths) -> None:
        with h5py.File(run.clip("a").result, "r+") as file:
            file["tracks/valid"][...] = False
        assert main([str(run.root), "--all"]) == 0
        assert data(run.clip("a").report.data)["flow"] is None

    def test_damaged_result_does_not_prevent_the_report(
        self, run: RunPaths, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run.clip("a").result.write_bytes(b"no")
        assert main([str(run.root)]) == 1
        assert "a: " in capsys.readouterr().err
        assert (run.report / "index.html").is_file()

    def test_folders_that_are_not_runs_are_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([str(tmp_path)]) == 2
        assert "is not a run folder" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_unwritable_folder_is_a_write_error(self, run: RunPaths) -> None:
        shutil.rmtree(run.report)
        run.report.write_text("a file")
        with pytest.raises(WriteError, match="could not be written"):
            write_report(run)

    def test_every_stage_is_recorded_everywhere(self, run: RunPaths) -> None:
        """In the result and on the clip's page, as far as it is known when they are written; elsewhere completely."""
        import aot

        computed = set("hash open prompts predict wait_for_frames segment query_points track write".split())
        drawn = {"score", "overlay", "report"}
        assert json.loads(aot.load(run.clip("a").result).attributes["seconds"]).keys() == computed
        page = data(run.clip("a").report.data)
        assert page["facts"]["seconds"].keys() == computed
        assert page["drawing_seconds"].keys() == drawn - {"report"}
        (done,) = [event for event in read_events(run, ("done",)) if event["clip_id"] == "a"]
        assert done["summary"]["seconds"].keys() == computed
        (ended,) = [event for event in read_events(run, ("ended",)) if event["clip_id"] == "a"]
        assert ended["seconds"].keys() == drawn
        run_data = data(run.report / "data" / "run.js")
        shown = dict(zip(run_data["columns"], run_data["rows"][0]))
        assert {stage for stage in STAGES if shown[f"{stage}_seconds"] is not None} == computed | drawn
        row = next(csv.DictReader(run.summary.read_text().splitlines()))
        assert float(row["overlay_seconds"]) == ended["seconds"]["overlay"]
        (worker,) = run_data["workers"]
        assert (worker["worker"], worker["clips"]) == (shown["worker"], 2)
        assert worker["busy"] == run_data["busy"] == pytest.approx(float(row["worker_busy"]), abs=1e-4)
        assert 0 < run_data["busy"] < 1

    def test_a_part_that_is_written_again_has_all_times(self, run: RunPaths) -> None:
        assert main([str(run.root), "--all"]) == 0
        assert data(run.clip("a").report.data)["drawing_seconds"].keys() == {"score", "overlay", "report"}


class TestClip:
    def test_clip_page_data_match_the_result(self, run: RunPaths) -> None:
        clip = data(run.clip("a").report.data)
        square, single = clip["objects"]
        assert (square["id"], square["name"], square["points"]) == (1, "<b>square</b>", 20)
        assert (single["id"], single["points"], single["in_mask"], single["score"]) == (3, 1, None, None)
        assert clip["frames"] == list(range(8))
        assert clip["times"] == pytest.approx(np.arange(8) / 10, abs=1e-3)
        charts = clip["charts"]
        assert charts["rows"] == list(range(8))
        assert all(300 < area < 500 for area in charts["area"][0][:4])
        assert charts["area"][0][4] == 64
        assert charts["area"][1] == [None] * 8
        assert len(charts["visible_share"][0]) == 8
        assert [image["frame"] for image in clip["pictures"]] == [0, 2, 4]
        assert [prompt.get("mask") for prompt in square["prompts"]] == [None, "as run lengths"]
        assert clip["facts"]["frame_interval"] == 1
        assert "lucas_kanade" in clip["config"]

    def test_packed_positions_match_the_result(self, run: RunPaths) -> None:
        import aot

        points = data(run.clip("a").report.data)["charts"]["points"]
        result = aot.load(run.clip("a").result)
        shape = (len(points["number"]), 8)
        x = np.frombuffer(base64.b64decode(points["x"]), "<i2").reshape(shape) / points["steps"]
        np.testing.assert_allclose(x.T, result.tracks.xy[:, points["number"], 0], atol=0.13)
        visible = np.frombuffer(base64.b64decode(points["visible"]), np.uint8).reshape(shape)
        np.testing.assert_array_equal(visible.T, result.tracks.visible[:, points["number"]])

    def test_long_clips_and_many_points_are_subsampled(self, tmp_path: Path) -> None:
        paths = RunPaths(tmp_path).clip("long")
        write_result(paths.result, num_frames=2000, num_points=300, num_objects=3)
        report_clip(paths, {})
        assert paths.report.data.stat().st_size < 400_000
        clip = data(paths.report.data)
        assert len(clip["frames"]) == 2000
        rows = clip["charts"]["rows"]
        assert (len(rows), rows[0], rows[-1]) == (600, 0, 1999)
        assert sorted(set(clip["charts"]["points"]["object_id"])) == [1, 2, 3]
        assert len(clip["charts"]["points"]["number"]) == 36
        x = np.frombuffer(base64.b64decode(clip["charts"]["points"]["x"]), "<i2")
        assert (x == clip["charts"]["points"]["none"]).any(), "a position that is NaN"
        assert clip["video"] is None


def write_result(path: Path, *, num_frames: int, num_points: int, num_objects: int) -> None:
    """A result with small masks and with positions that are NaN or out of range."""
    ids = range(1, num_objects + 1)
    clip = Clip("long", Path("nowhere.mp4"), tuple(Prompt(i, 0, box=(1, 1, 4, 4)) for i in ids))
    index = np.arange(num_frames, dtype=np.int64)
    with new_clip_file(path, clip, index=index, time=index / 25, mask_index=index[:5], height=8, width=12) as file:
        masks = np.ones((1, num_objects, 8, 12), np.bool_)
        for frame in index[:5]:
            scores = np.ones((1, num_objects), np.float32)
            file.write_masks(MaskBlock(np.array([frame]), np.array(ids, np.int32), masks, scores))
        shape = (num_frames, num_points)
        xy = np.full((*shape, 2), 3e38, np.float32)
        xy[0], xy[1] = np.nan, -np.inf
        tracks = Tracks(xy, np.ones(shape, np.bool_), np.ones(shape, np.float32), np.ones(shape, np.float32))
        object_id = np.repeat(np.array(ids, np.int32), num_points // num_objects)
        queries = QueryPoints(np.zeros((num_points, 3), np.float32), object_id)
        life = Lifetimes.unlimited(tracks.visible, np.arange(num_frames))
        file.write_tracks(tracks, queries, tracks.visible, life, np.ones((num_frames, num_objects)))
        names = (
            "clip_id source source_sha256 width height fps num_source_frames frame_interval_requested frame_interval "
            "config_yaml config_hash device peak_memory_bytes created weights"
        ).split()
        known = {"source": "nowhere.mp4", "width": 12, "height": 8, "fps": 25.0, "weights": "[]"}
        attributes = {name: known.get(name, 1) for name in names} | {
            "versions": "{}",
            "attempts": "[]",
            "seconds": "{}",
        }
        file.write_provenance(attributes, {})
