"""The report's first page: all clips, what failed and how to retry it, and where everything comes from.

    report/index.html, clip.html, assets/     the pages, the same in every report
    report/data/run.js, pages.js              what index.html shows; the clips that have a page
    report/data/clips/<clip_id>.js            what clip.html?clip=<clip_id> shows, made by the clip's worker
    report/pictures/, report/videos/          of the clips

Data lie in scripts, because a page that was opened from the disk may read no other file.
"""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from aot.errors import ResultError
from aot.launching.plan import read_run_json
from aot.paths import RunPaths
from aot.report.assets import write_assets
from aot.report.clip import write_report_data
from aot.runs.failure import read_failure
from aot.runs.summary import summary_rows
from aot.system.files import write_text
from aot.writing.reader import read_attributes

_MAX_LOG_BYTES, _MAX_LOG_LINES = 2**21, 40
_RUN_FACTS = "created updated config_hash versions choices".split()


def write_report(paths: RunPaths, rows: Sequence[dict[str, Any]] | None = None) -> Path:
    """Write the report's first page, and the pages of clips that failed; those of the others are there already.

    Args:
        paths: of the run.
        rows: of the summary, one a clip of run.json; None: made now.
    Returns:
        The page.
    Raises:
        ConfigError: the folder is not a run.
        WriteError: the report cannot be written.
    """
    run = read_run_json(paths)
    if rows is None:
        rows = summary_rows(paths, sorted(run["clips"]))
    pages = [row["clip_id"] for row in rows if paths.clip(row["clip_id"]).report.data.exists()]
    failures = _failures(paths, rows)
    data = {
        "name": paths.root.name,
        "folder": str(paths.root.absolute()),
        **{name: run.get(name) for name in _RUN_FACTS},
        "aot": _version(),
        "frame_interval": run["config"].get("frame_interval"),
        "config": run["config"],
        "command": _command(run),
        "weights": _weights(paths, rows),
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
    """What failed, a clip each; clips without a result get a page that says why."""
    logs: dict[Path, list[str]] = {}
    found = []
    for row in rows:
        if row["state"] not in ("failed", "partial"):
            continue
        clip = paths.clip(row["clip_id"])
        failure = read_failure(clip)
        if failure is None:
            found.append(
                {"clip_id": clip.clip_id, "class": "objects", "message": row["error"], "stage": None, "log": None}
            )
            continue
        log = Path(failure["log"]) if failure.get("log") else None
        found.append(
            {
                "clip_id": clip.clip_id,
                "class": failure["class"],
                "message": failure["message"],
                "stage": failure.get("stage"),
                "log": _seen_from_report(log, paths),
            }
        )
        if not clip.result.exists() and not _is_newer(clip.report.data, clip.failure):
            excerpt = _log_lines(log, clip.clip_id, logs) if log else []
            write_report_data(clip.report, {"failure": {**failure, "log": found[-1]["log"], "log_lines": excerpt}})
    return found


def _grouped(failures: Sequence[dict[str, Any]], run: dict[str, Any]) -> list[dict[str, Any]]:
    """Failures by their class, the most frequent first, each with what takes them again."""
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
    """The command that made the run, with some more to it."""
    given = [word for word in run.get("command", [])[1:] if not (more and word.startswith("retry="))]
    return shlex.join(["python", "-m", "aot.run", *given, *more])


def _seen_from_report(log: Path | None, paths: RunPaths) -> dict[str, str] | None:
    """A log's name, and the address that leads to it from the report, where it lies in the run folder."""
    if log is None:
        return None
    with suppress(ValueError):
        return {"name": log.name, "href": f"../{log.absolute().relative_to(paths.root.absolute()).as_posix()}"}
    return {"name": str(log), "href": ""}


def _log_lines(log: Path, clip_id: str, known: dict[Path, list[str]]) -> list[str]:
    """The last lines of a log that speak of a clip."""
    if log not in known:
        known[log] = []
        with suppress(OSError), log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _MAX_LOG_BYTES))
            known[log] = file.read().decode(errors="replace").splitlines()
    return list(deque((line for line in known[log] if f" {clip_id}: " in line), maxlen=_MAX_LOG_LINES))


def _weights(paths: RunPaths, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The checkpoints with their digests and licences, as the first finished clip records them."""
    for row in rows:
        result = paths.clip(row["clip_id"]).result
        if row["state"] in ("done", "partial") and result.exists():
            with suppress(ResultError, KeyError, ValueError):
                weights: list[dict[str, Any]] = json.loads(read_attributes(result)["weights"])
                return weights
    return []


def _is_newer(path: Path, other: Path) -> bool:
    try:
        return path.stat().st_mtime_ns >= other.stat().st_mtime_ns
    except OSError:
        return False


def _plain(value: Any) -> Any:
    """A cell as JSON has it; nothing for what is not known."""
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value


def _version() -> str:
    try:
        return metadata.version("auto-objects-tracker")
    except metadata.PackageNotFoundError:
        return "not installed"
