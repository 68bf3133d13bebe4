"""The first page of a run's report: all clips, the failures and how to retry them, and the provenance.

    report/index.html, clip.html, assets/     the pages, the same in every report
    report/data/run.js, pages.js              the data of index.html; the clips that have a page
    report/data/clips/<clip_id>.js            the data of clip.html?clip=<clip_id>, written by the clip's worker
    report/pictures/, report/videos/          images and videos of the clips

The data is stored in scripts, because a page opened from disk cannot read other files.
"""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aot.errors import ResultError
from aot.paths import RunPaths
from aot.report.assets import write_assets
from aot.report.clip import is_made_from, write_report_data
from aot.runs.failure import read_failure
from aot.runs.run_json import read_run_json
from aot.runs.summary import summary_rows
from aot.runs.timing import WorkerTimes, worker_times
from aot.system.cli import version
from aot.system.files import names_below, write_text
from aot.writing.reader import read_attributes

_MAX_LOG_BYTES, _MAX_LOG_LINES = 2**21, 40
_RUN_FACTS = "created updated config_hash versions choices".split()


def write_report(
    paths: RunPaths, rows: Sequence[dict[str, Any]] | None = None, times: WorkerTimes | None = None
) -> Path:
    """Write the first page and the data of failed clips; workers write the data of the clips that they finish.

    Args:
        paths: paths of the run.
        rows: rows of the summary, one per clip of run.json; None: read them from the run folder.
        times: of the workers of the run; None: likewise.
    Returns:
        `report/index.html`.
    Raises:
        ConfigError: not a run folder.
        WriteError: the report cannot be written.
    """
    run = read_run_json(paths)
    if rows is None:
        rows = summary_rows(paths, sorted(run["clips"]), run.get("no_prompt", ()))
    written = names_below(paths.clip_reports, ".js")
    pages = [row["clip_id"] for row in rows if row["clip_id"] in written]
    failures = _failures(paths, rows)
    data = {
        "name": paths.root.name,
        "folder": str(paths.root.absolute()),
        **{name: run.get(name) for name in _RUN_FACTS},
        "aot": version(),
        "frame_interval": run["config"].get("frame_interval"),
        "sample_fps": run["config"].get("sample_fps"),
        "config": run["config"],
        "command": _command(run),
        "weights": _weights(paths, rows),
        **_worker_times(worker_times(paths) if times is None else times),
        "columns": list(rows[0]) if rows else ["clip_id"],
        "rows": [[_plain(value) for value in row.values()] for row in rows],
        "pages": sorted({*pages, *(failure["clip_id"] for failure in failures)}),
        "failures": _grouped(failures, run),
    }
    write_assets(paths.report, {"report.html": "index.html", "clip.html": "clip.html"})
    write_text(paths.report / "data" / "run.js", f"aot.showRun({json.dumps(data, allow_nan=False)});\n")
    write_text(paths.report / "data" / "pages.js", f"aot.showPages({json.dumps(data['pages'])});\n")
    return paths.report / "index.html"


def _failures(paths: RunPaths, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per failed clip; for clips without a result, the data of their page is written too."""
    logs: dict[Path, list[str]] = {}
    failures = []
    for row in rows:
        if row["state"] not in ("failed", "partial"):
            continue
        clip = paths.clip(row["clip_id"])
        failure = read_failure(clip)
        if failure is None:
            failures.append(
                {"clip_id": clip.clip_id, "class": "objects", "message": row["error"], "stage": None, "log": None}
            )
            continue
        log = Path(failure["log"]) if failure.get("log") else None
        failures.append(
            {
                "clip_id": clip.clip_id,
                "class": failure["class"],
                "message": failure["message"],
                "stage": failure.get("stage"),
                "log": _link_to_log(log, paths),
            }
        )
        if not clip.result.exists() and not is_made_from(clip.report.data, clip.failure):
            excerpt = _log_lines(log, clip.clip_id, logs) if log else []
            write_report_data(
                clip.report,
                {"failure": {**failure, "log": failures[-1]["log"], "log_lines": excerpt}},
                source_ns=clip.failure.stat().st_mtime_ns,
            )
    return failures


def _grouped(failures: Sequence[dict[str, Any]], run: dict[str, Any]) -> list[dict[str, Any]]:
    """Failures by class, the most frequent first, each with the command that retries them."""
    counts = Counter(failure["class"] for failure in failures)
    return [
        {
            "class": kind,
            "clips": [failure for failure in failures if failure["class"] == kind],
            "retry": None if kind == "objects" else _command(run, f"retry=[{kind}]"),
        }
        for kind, _ in counts.most_common()
    ]


def _command(run: dict[str, Any], *more: str) -> str:
    """The command line of the run, with additional arguments."""
    given = [word for word in run.get("command", [])[1:] if not (more and word.startswith("retry="))]
    return shlex.join(["python", "-m", "aot.run", *given, *more])


def _link_to_log(log: Path | None, paths: RunPaths) -> dict[str, str] | None:
    """Name of a log, and its address relative to the report; empty for a log outside the run folder."""
    if log is None:
        return None
    with suppress(ValueError):
        return {"name": log.name, "href": f"../{log.absolute().relative_to(paths.root.absolute()).as_posix()}"}
    return {"name": str(log), "href": ""}


def _log_lines(log: Path, clip_id: str, known: dict[Path, list[str]]) -> list[str]:
    """The last lines of a log that mention a clip."""
    if log not in known:
        known[log] = []
        with suppress(OSError), log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _MAX_LOG_BYTES))
            known[log] = file.read().decode(errors="replace").splitlines()
    return list(deque((line for line in known[log] if f" {clip_id}: " in line), maxlen=_MAX_LOG_LINES))


def _weights(paths: RunPaths, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The checkpoints with checksums and licences, as recorded for the first finished clip."""
    for row in rows:
        result = paths.clip(row["clip_id"]).result
        if row["state"] in ("done", "partial") and result.exists():
            with suppress(ResultError, KeyError, ValueError):
                weights: list[dict[str, Any]] = json.loads(read_attributes(result)["weights"])
                return weights
    return []


def _worker_times(times: WorkerTimes) -> dict[str, Any]:
    return {
        "busy": times.busy_fraction,
        "workers": [
            {
                "worker": name,
                "clips": time.num_clips,
                "seconds": time.seconds,
                "seconds computed": time.computing_seconds,
                "busy": time.busy_fraction,
            }
            for name, time in times.by_worker.items()
        ],
    }


def _plain(value: Any) -> Any:
    """A cell for JSON; None for unknown values."""
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value
