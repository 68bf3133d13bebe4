"""The table at the end of a run and summary.csv, from events and failures without results."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aot.config import Output
from aot.paths import RunPaths
from aot.runs.ledger import Ledger
from aot.runs.summary import COLUMNS, print_summary, summary_rows, write_summary
from aot.runs.timing import STAGES, worker_times
from tests.launching.in_memory import summary_of


class Recorded:
    """A run folder with events, failures, and empty files in place of results."""

    def __init__(self, root: Path) -> None:
        self.paths = RunPaths(root)
        root.mkdir(exist_ok=True)
        self.paths.run_json.touch()

    def finish(
        self,
        clip_id: str,
        *,
        scores: dict[str, Any] | None = None,
        drawing: dict[str, float] | None = None,
        **summary: Any,
    ) -> None:
        touch(self.paths.clip(clip_id).result)
        scores = {} if scores is None else scores
        ledger = Ledger(self.paths, "w")
        ledger.append("done", clip_id=clip_id, content={}, summary=summary_of(**summary))
        ledger.append("scored", clip_id=clip_id, file_sha256="0", scores=scores)
        ledger.append("ended", clip_id=clip_id, state="done", seconds=drawing or {})

    def fail(self, clip_id: str, kind: str = "decode", message: str = "a.mp4: broken; copy it again") -> None:
        touch(self.paths.clip(clip_id).failure).write_text(json.dumps({"class": kind, "message": message}))

    def rows(self, *clip_ids: str) -> list[dict[str, Any]]:
        return summary_rows(self.paths, clip_ids)

    def shown(self, *clip_ids: str, rows: list[dict[str, Any]] | None = None, **outputs: bool) -> str:
        text = io.StringIO()
        output = Output(
            root=self.paths.root,
            **({"overlay": True, "pictures": True, "evaluate": True, "report": True} | outputs),
        )
        console = Console(file=text, width=200, soft_wrap=True)
        print_summary(
            self.paths, output, self.rows(*clip_ids) if rows is None else rows, worker_times(self.paths), console
        )
        return text.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "run")


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_states(run: Recorded) -> None:
    run.finish("done")
    run.finish("object failed", object_errors={"2": "no mask", "3": "object 3, frame 0: no point"})
    run.finish("drawing failed")
    run.fail("drawing failed", "write", "disk full")
    run.fail("failed")
    run.finish("deleted")
    run.paths.clip("deleted").result.unlink()
    touch(run.paths.clip("no event").result)
    touch(run.paths.clip("damaged").failure).write_text("{")
    rows = run.rows("done", "object failed", "drawing failed", "failed", "deleted", "no event", "damaged")
    assert {row["clip_id"]: (row["state"], row["error"]) for row in rows} == {
        "done": ("done", ""),
        "object failed": ("partial", "object 2: no mask; object 3, frame 0: no point"),
        "drawing failed": ("partial", "[write] disk full"),
        "failed": ("failed", "[decode] a.mp4: broken; copy it again"),
        "deleted": ("pending", ""),
        "no event": ("done", ""),
        "damaged": ("pending", ""),
    }
    assert all(tuple(row) == tuple(COLUMNS) for row in rows)


def test_columns_of_a_finished_clip(run: Recorded) -> None:
    checks = {
        "1": {
            "visible": 1.0,
            "in_mask": 1.0,
            "mask_stability": 0.9,
            "return_error_px": 2.0,
            "coverage": 0.8,
            "ended": 0.25,
            "added": 0.0,
        },
        "2": {
            "visible": 1.0,
            "in_mask": 1.0,
            "mask_stability": 0.75,
            "return_error_px": 3.5,
            "coverage": 0.9,
            "ended": 0.1,
            "added": 0.5,
        },
    }
    run.finish(
        "a", scores={"J": 0.123456, "F": None, "PCK": 0.5}, num_objects=2, num_points=40, num_frames=12,
        num_source_frames=24, frame_interval=2, rung=3, num_attempts=4, visible_share=0.98765, in_mask_share=0.25,
        checks=checks, drawing={"overlay": 1.5, "report": 0.25},
        peak_device_bytes={"segment": 5 * 2**20, "track": 7 * 2**20},
    )  # fmt: skip
    (row,) = run.rows("a")
    assert row == {
        "clip_id": "a", "state": "done", "objects": 2, "points": 40, "frames": 12, "source_frames": 24,
        "frame_interval": 2, "rung": 3, "attempts": 4, "visible": 0.9877, "in_mask": 0.25, "mask_stability": 0.75,
        "return_error_px": 3.5, "seconds": 4.0, "frames_per_second": 3.0, "peak_memory_mb": 3.0, "J": 0.1235, "F": "",
        "AJ": "", "OA": "", "PCK": 0.5, "decoder": "pyav", "decoder_fallback": "", "error": "",
        "notes": "",
        **{f"{stage}_seconds": "" for stage in STAGES}, "wait_for_frames_seconds": 2.0, "track_seconds": 2.0,
        "overlay_seconds": 1.5, "report_seconds": 0.25, "peak_device_memory_mb": 7.0, "worker": "w",
        "worker_busy": 1.0, "coverage": 0.8, "ended": 0.25, "added": 0.5,
    }  # fmt: skip


def test_unknown_values_are_blank(run: Recorded) -> None:
    run.finish("a", scores={"error": "cannot be scored: no annotation"}, checks={"1": {"mask_stability": None}})
    (row,) = run.rows("a")
    assert (row["mask_stability"], row["return_error_px"], row["J"]) == ("", "", "")
    assert row["error"] == "cannot be scored: no annotation"
    assert row["state"] == "done", "the clip is complete, whatever its annotations are"


def test_latest_result_of_a_clip_counts(run: Recorded) -> None:
    run.finish("a", num_frames=8)
    run.finish("a", num_frames=9)
    assert run.rows("a")[0]["frames"] == 9


def test_csv_has_all_columns_and_quotes_texts(run: Recorded) -> None:
    run.finish("a")
    run.fail("b", message='a "bad", file\nsecond line')
    write_summary(run.paths, run.rows("a", "b"))
    a, b = csv.DictReader(io.StringIO(run.paths.summary.read_text()))
    assert list(a) == COLUMNS
    assert (a["clip_id"], a["frames"], a["frames_per_second"]) == ("a", "8", "2.0")
    assert b["error"] == '[decode] a "bad", file\nsecond line'


def test_table_has_the_columns_with_values(run: Recorded) -> None:
    run.finish("a")
    run.finish("b", scores={"J": 0.5, "PCK": None})
    heading, *lines = run.shown("a", "b").splitlines()
    assert heading.split() == "clip state objects points frames interval visible in mask seconds J decoder".split()
    assert lines[0].split() == ["a", "done", "1", "4", "8", "1", "1", "0.5", "4", "pyav"]
    assert lines[1].split()[-2:] == ["0.5", "pyav"]
    assert lines[2:4] == ["2 clips: 2 done", "against ground truth: mean J 0.500, mean PCK –"]


def test_notes_name_leaner_attempts_and_errors(run: Recorded) -> None:
    run.finish("a", rung=3, frame_interval=2)
    run.finish("b", object_errors={"2": "no mask"})
    run.fail("c", "oom", "out of memory")
    shown = run.shown("a", "b", "c", "d").splitlines()[5:]
    assert shown[:4] == [
        "a: ran out of memory; done on rung 3 of the ladder: lean, frame_interval 2",
        "b: object 2: no mask",
        "c: [oom] out of memory",
        "4 clips: 1 done, 1 partial, 1 failed, 1 pending",
    ]


def test_reason_for_another_decoder_is_noted(run: Recorded) -> None:
    run.finish("a", decoder="decord")
    run.finish("b", decoder_fallback="its colours have 10 bits")
    assert [row["decoder_fallback"] for row in run.rows("a", "b")] == ["", "its colours have 10 bits"]
    _, a, b, note, _ = run.shown("a", "b").splitlines()[:5]
    assert (a.split()[-1], b.split()[-1]) == ("decord", "pyav")
    assert note == "b: decoded by pyav: its colours have 10 bits"


def test_events_of_earlier_versions_have_no_decoder(run: Recorded) -> None:
    summary = summary_of(seconds={"track": 2.0, "decode": 3.0})
    del summary["decoder"], summary["decoder_fallback"]
    touch(run.paths.clip("a").result)
    Ledger(run.paths, "w").append("done", clip_id="a", content={}, summary=summary, scores={})
    (row,) = run.rows("a")
    assert (row["decoder"], row["wait_for_frames_seconds"], row["overlay_seconds"]) == ("", 3.0, "")
    assert "decoder" not in run.shown("a")


def test_means_are_over_the_clips_with_a_score(run: Recorded) -> None:
    run.finish("a", scores={"J": 0.5, "PCK": 0.25})
    run.finish("b", scores={"J": 1.0})
    run.finish("c")
    assert "against ground truth: mean J 0.750, mean PCK 0.250\n" in run.shown("a", "b", "c")
    assert "ground truth" not in run.shown("c")


def test_large_runs_show_only_what_is_not_done(run: Recorded) -> None:
    names = [f"clip{number:02}" for number in range(41)]
    for name in names[:39]:
        run.finish(name)
    run.fail(names[39])
    shown = run.shown(*names)
    lines = [line.split()[0] for line in shown.splitlines() if line.startswith("clip") and "[" not in line]
    assert lines == ["clip", "clip39", "clip40"]
    assert "41 clips: 39 done, 1 failed, 1 pending" in shown
    assert run.shown(*names[:40]).count(" done ") == 39, "forty rows fit"
    for name in names:
        run.fail(name)
    assert sum(line.startswith("clip") and "[" not in line for line in run.shown(*names).splitlines()) == 1 + 40


def test_no_clip(run: Recorded) -> None:
    assert "\n0 clips\n" in "\n" + run.shown()


@pytest.mark.parametrize(
    ("files", "outputs", "expected"),
    [
        ([], {}, "results in ROOT: clips/*.h5 (aot.load), summary.csv, report/index.html"),
        ([], {"report": False}, "results in ROOT: clips/*.h5 (aot.load), summary.csv"),
        (["overlays/a.mp4"], {}, "results in ROOT: clips/*.h5 (aot.load), overlays/*.mp4, summary.csv, "),
        (["overlays/a.mp4"], {"overlay": False}, "results in ROOT: clips/*.h5 (aot.load), summary.csv, report"),
        (["pictures/a/1.png"], {}, "results in ROOT: clips/*.h5 (aot.load), summary.csv, pictures/*/*.png, report"),
        (["pictures/a/1.png"], {"pictures": False}, "results in ROOT: clips/*.h5 (aot.load), summary.csv, report"),
        (["pictures/a/1.txt"], {}, "results in ROOT: clips/*.h5 (aot.load), summary.csv, report"),
    ],
)
def test_files_that_are_named(run: Recorded, files: list[str], outputs: dict[str, bool], expected: str) -> None:
    run.finish("a")
    for file in files:
        touch(run.paths.root / file)
    shown = run.shown("a", **outputs).splitlines()[-1].replace(str(run.paths.root), "ROOT")
    assert shown.startswith(expected)
    assert "failures" not in shown


def test_files_that_say_why_a_clip_failed_are_named(run: Recorded) -> None:
    run.fail("b")
    assert run.shown("b").splitlines()[-1] == (
        f"no results in {run.paths.root}, only summary.csv, failures/*.json, logs/*.log, report/index.html"
    )
    run.finish("a")
    assert run.shown("a", "b").splitlines()[-1].endswith(": clips/*.h5 (aot.load), summary.csv, failures/*.json, "
                                                         "report/index.html")  # fmt: skip
    run.finish("c", object_errors={"1": "no mask"})
    assert "failures" not in run.shown("c").splitlines()[-1], "the error is in the table"
