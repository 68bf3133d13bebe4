"""Which frame_interval can be afforded? `python -m aot.sweep outputs/<dataset>/sweep-<hash>` answers with a picture.

The runs of a sweep are scored on the full-rate frames of their clips: against ground truth where there is some, else
by how far they agree with the finest run. docs/evaluation.md says how.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from aot.config import RunConfig, load_run_config
from aot.errors import AotError, ConfigError
from aot.launching.plan import read_run_json
from aot.paths import RunPaths, SweepPaths
from aot.sweep.picture import draw_sweep
from aot.sweep.scores import MEASURES, Interval, SweptClip, SweptRun, intervals_of, largest_within, score_sweep
from aot.system.cli import run_command
from aot.system.files import write_text

DEFAULT_TOLERANCE = 0.02


@dataclass(frozen=True)
class SweepReport:
    """What a sweep came to, and where it was written."""

    paths: SweepPaths
    clips: Sequence[SweptClip]
    intervals: Sequence[Interval]
    answers: Sequence[str]
    """Sentences: the largest interval within the tolerance, for each measure of each group and for all of them."""


def write_sweep_report(
    root: Path, *, tolerance: float = DEFAULT_TOLERANCE, title: str | None = None, workers: int | None = None
) -> SweepReport:
    """Score a sweep's runs and write its page, picture and table.

    Args:
        root: the sweep's folder.
        tolerance: how much of a score may be lost.
        title: of the page; None: the dataset and the folder's name.
        workers: processes; None: one a core.
    Raises:
        ConfigError: it is no sweep, or only one interval is finished.
        ResultError: a result cannot be read.
        WriteError: the folder cannot be written.
    """
    runs = _read_runs(root)
    clips = score_sweep(runs, workers)
    intervals = intervals_of(clips)
    if not any(interval.num_clips for interval in intervals):
        raise ConfigError(f"{root}: no clip is finished in every one of its {len(runs)} runs; let them finish first")
    paths = SweepPaths(root)
    groups = sorted({interval.group for interval in intervals})
    answers = [answer for group in groups for answer in _answers(group, intervals, tolerance)]
    title = title or f"{root.resolve().parent.name}: {root.resolve().name}"
    picture = draw_sweep(clips, intervals, title=title, tolerance=tolerance, sources=_sources(clips))
    write_text(paths.picture, picture)
    write_text(paths.table, _as_csv(clips))
    write_text(paths.page, _page(title, picture, answers, clips, intervals, tolerance))
    return SweepReport(paths, clips, intervals, answers)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m aot.sweep",
        description="Score a sweep over frame_interval: quality against time and memory, as a page, a picture (SVG) "
        "and a table, in report/ of the sweep's folder.",
    )
    parser.add_argument("sweep", type=Path, help="a sweep's folder, such as outputs/videos/sweep-0123abcd")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        help="how much of J&F and of δ_avg may be lost (%(default)s)",
    )
    parser.add_argument("--title", help="of the page and the picture")
    parser.add_argument("--workers", type=int, help="processes; one a core if not given")
    options = parser.parse_args(arguments)
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers {options.workers}: expected 1 or more")
    if not options.tolerance >= 0:
        parser.error(f"--tolerance {options.tolerance}: expected 0 or more")
    try:
        report = write_sweep_report(
            options.sweep, tolerance=options.tolerance, title=options.title, workers=options.workers
        )
    except AotError as error:
        print(error, file=sys.stderr)
        return 2
    print(_as_text(report.intervals))
    print("\n".join(report.answers))
    print(f"look at {report.paths.page}; {report.paths.picture.name}, {report.paths.table.name}")
    return 0


def _read_runs(root: Path) -> list[SweptRun]:
    folders = sorted(path.parent for path in root.glob("*/run.json"))
    if len(folders) < 2:
        raise ConfigError(
            f"{root}: {len(folders)} runs in it; expected the folder of a sweep, such as outputs/videos/sweep-0123abcd "
            f"(python -m aot.run -m dataset=… frame_interval=1,2,4)"
        )
    found: list[tuple[Path, RunConfig, dict[str, Any]]] = []
    for folder in folders:
        run = read_run_json(RunPaths(folder))
        found.append((folder, load_run_config(run), run))
    names = {folder: _settings(config) for folder, config, _ in found}
    varied = {
        key for own in names.values() for key, value in own.items() if any(o.get(key) != value for o in names.values())
    }
    runs = []
    for folder, config, run in found:
        paths = RunPaths(folder)
        runs.append(
            SweptRun(
                root=folder,
                group=", ".join(f"{key}={names[folder].get(key)}" for key in sorted(varied)),
                frame_interval=config.frame_interval,
                results={i: paths.clip(i).result for i in run["clips"] if paths.clip(i).result.exists()},
                build_dataset=config.dataset.build,
            )
        )
    if all(run.frame_interval == runs[0].frame_interval for run in runs):
        raise ConfigError(f"{root}: all its runs have frame_interval={runs[0].frame_interval}; expected several")
    told = Counter((run.group, run.frame_interval) for run in runs)
    (group, interval), most = told.most_common(1)[0]
    if most > 1:
        named = f"frame_interval={interval}" + (f", {group}" if group else "")
        raise ConfigError(f"{root}: {most} runs have {named} and cannot be told apart; move all but one elsewhere")
    return runs


def _settings(config: RunConfig) -> dict[str, Any]:
    """What may tell runs of a sweep apart, besides the interval: options chosen, and values of their arguments."""
    found: dict[str, Any] = dict(config.choices())
    composed = config.as_composed()
    for group in ("dataset", "segmenter", "query_points", "tracker", "ladder"):
        found |= {f"{group}.{key}": value for key, value in composed[group].items() if key != "_target_"}
    return found | {"output.return_check": config.output.return_check}


def _sources(clips: Sequence[SweptClip]) -> dict[str, str]:
    """How each measure was scored, for people."""
    said = {}
    for measure in MEASURES:
        ways = {clip.by_truth[measure] for clip in clips if not math.isnan(clip.quality[measure])}
        names = [name for way, name in ((True, "against ground truth"), (False, "agreement with the finest run"))
                 if way in ways]  # fmt: skip
        said[measure] = ", or ".join(names)
    return said


def _answers(group: str, intervals: Sequence[Interval], tolerance: float) -> list[str]:
    """A sentence a measure, and one for all of them together."""
    own = {interval.frame_interval: interval for interval in intervals if interval.group == group}
    quality = {k: interval.quality for k, interval in own.items()}
    finest = own[min(own)]
    measures = [measure for measure in MEASURES if not math.isnan(finest.quality[measure])]
    said = []
    for measure in measures:
        best = own[largest_within(quality, tolerance, [measure])]
        if best is finest:
            other = own[sorted(own)[1]] if len(own) > 1 else finest
            found = f"no frame_interval above {finest.frame_interval} is within {tolerance:g}; "
        else:
            other = best
            found = (
                f"frame_interval={best.frame_interval} is the largest within {tolerance:g} of {finest.frame_interval}; "
            )
        said.append(f"{measure}: {found}{_change(measure, finest, other)}")
    if len(measures) > 1:
        said.append(f"both: frame_interval={largest_within(quality, tolerance)}")
    return [f"{group}, {one}" if group else one for one in said]


def _change(measure: str, finest: Interval, other: Interval) -> str:
    return (
        f"{other.frame_interval} has {MEASURES[measure]} {other.quality[measure]:.3f} (from "
        f"{finest.quality[measure]:.3f}) in {other.seconds:.0f} s (from {finest.seconds:.0f} s) and "
        f"{other.peak_memory_bytes / 1e6:.0f} MB (from {finest.peak_memory_bytes / 1e6:.0f} MB)"
    )


def _as_text(intervals: Sequence[Interval]) -> str:
    lines = [f"{'interval':>8}  {'masks':>6}  {'tracks':>6}  {'seconds':>8}  {'MB':>6}  {'clips':>5}"]
    for i in intervals:
        quality = "  ".join(_number(i.quality[measure]).rjust(6) for measure in MEASURES)
        lines.append(
            f"{i.frame_interval:>8}  {quality}  {i.seconds:>8.1f}  {i.peak_memory_bytes / 1e6:>6.0f}  {i.num_clips:>5}"
            + (f"  {i.group}" if i.group else "")
        )
    return "\n".join(lines)


def _as_csv(clips: Sequence[SweptClip]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{measure} ({score})" for measure, score in MEASURES.items()]
    ways = [f"{measure} by truth" for measure in MEASURES]
    costs = ["seconds", "peak_memory_mb", "source_frames"]
    writer.writerow(["group", "frame_interval", "frame_interval_used", "clip_id", *names, *ways, *costs])
    for clip in clips:
        quality = ["" if math.isnan(clip.quality[m]) else round(clip.quality[m], 4) for m in MEASURES]
        writer.writerow([clip.group, clip.frame_interval, clip.frame_interval_used, clip.clip_id, *quality,
                         *(clip.by_truth[m] for m in MEASURES), round(clip.seconds, 3),
                         round(clip.peak_memory_bytes / 1e6, 1), clip.num_source_frames])  # fmt: skip
    return text.getvalue()


_PAGE_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222a31; max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
p.answer { background: #eef5fa; border-left: 4px solid #0072b2; padding: .6rem 1rem }
svg { width: 100%; height: auto }
table { border-collapse: collapse }
td, th { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ec }
td:first-child, th:first-child { text-align: left } td.out { color: #b3261e }
"""


def _page(
    title: str,
    picture: str,
    answers: Sequence[str],
    clips: Sequence[SweptClip],
    intervals: Sequence[Interval],
    tolerance: float,
) -> str:
    said = "".join(f'<p class="answer">{escape(answer)}</p>' for answer in answers)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_PAGE_STYLE}</style><h1>Which frame_interval?</h1>{said}{picture}"
        f"<h2>All clips</h2>{_interval_table(intervals)}<h2>Clip by clip</h2>{_clip_table(clips, tolerance)}"
        f"<p>Scores are on every frame of the source: masks are held, tracks interpolated in time. Red: more than "
        f"{tolerance:g} below the smallest interval.</p></html>\n"
    )


def _interval_table(intervals: Sequence[Interval]) -> str:
    head = ["frame_interval", *(f"{m}: {score}" for m, score in MEASURES.items()), "seconds", "peak MB", "clips"]
    has_groups = len({interval.group for interval in intervals}) > 1
    rows = []
    for i in intervals:
        name = f"{i.frame_interval} · {i.group}" if has_groups else str(i.frame_interval)
        cells = [_number(i.quality[m]) for m in MEASURES]
        rows.append([name, *cells, f"{i.seconds:.1f}", f"{i.peak_memory_bytes / 1e6:.0f}", str(i.num_clips)])
    return _table(head, [[(cell, "") for cell in row] for row in rows])


def _clip_table(clips: Sequence[SweptClip], tolerance: float) -> str:
    steps = sorted({clip.frame_interval for clip in clips})
    head = [
        "clip",
        *(f"{MEASURES[m]}, {k}" for m in MEASURES for k in steps),
        *(f"s, {k}" for k in steps),
        "largest within",
    ]
    rows = []
    for group, clip_id in sorted({(clip.group, clip.clip_id) for clip in clips}):
        own = {c.frame_interval: c for c in clips if (c.group, c.clip_id) == (group, clip_id)}
        finest = own[min(own)]
        row = [(f"{clip_id} · {group}" if group else clip_id, "")]
        for measure in MEASURES:
            for k in steps:
                value = own[k].quality[measure] if k in own else math.nan
                row.append((_number(value), "out" if finest.quality[measure] - value > tolerance else ""))
        row += [(f"{own[k].seconds:.1f}" if k in own else "–", "") for k in steps]
        row.append((str(largest_within({k: clip.quality for k, clip in own.items()}, tolerance)), ""))
        rows.append(row)
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Rows of (text, class of the cell)."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f'<td class="{style}">{escape(text)}</td>' for text, style in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(run_command(main))
