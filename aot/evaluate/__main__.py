"""The command `python -m aot.evaluate RUN`: score every finished clip of a run that has ground truth.

J, F and J&F of masks, AJ, δ, OA and PCK of tracks, on the full-rate frames of the source for any frame_interval:
masks are held, tracks are interpolated in time. docs/evaluation.md defines the scores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from aot.errors import ConfigError, printable
from aot.evaluate.run import evaluate_run
from aot.evaluate.tables import score_rows, score_table, scores_as_csv, scores_as_json
from aot.paths import RunPaths
from aot.runs.run_json import read_run_json
from aot.system.cli import (
    EXIT_DONE,
    EXIT_SOME_FAILED,
    add_run_argument,
    add_workers_argument,
    check_output,
    output_console,
    prints_errors,
    run_command,
)
from aot.system.command_parser import CommandParser
from aot.system.files import write_text
from aot.system.text import counted


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate a run; returns the exit code: 0 done, 1 some clips could not be scored, 2 nothing was scored."""
    parser = CommandParser(
        prog="python -m aot.evaluate",
        description="Score a run against its dataset's ground truth: J, F and J&F of masks (DAVIS), AJ, δ and OA of "
        "tracks (TAP-Vid), PCK at 0.2 (BADJA). Writes scores.csv and scores.json into the run folder.",
    )
    add_run_argument(parser)
    parser.add_argument("--out", type=Path, help="write scores.csv and scores.json into this folder instead")
    parser.add_argument(
        "--queries", choices=("first", "strided"), help="first: score tracks only after their query frame; strided: on "
        "all frames except it; default: the mode of the dataset",
    )  # fmt: skip
    add_workers_argument(parser)
    options = parser.parse_args(arguments)
    out = RunPaths(options.out or options.run)
    read_run_json(RunPaths(options.run))  # reports a path that is not a run folder
    check_output("--out", out.root)
    found = evaluate_run(options.run, query_mode=options.queries, workers=options.workers)
    for clip_id, error in found.errors.items():
        print(f"{printable(clip_id)}: cannot be scored: {error}", file=sys.stderr)
    if not found.scores:
        num_clips = len(found.unscored) + len(found.errors)
        raise ConfigError(
            f"{options.run}: no clip could be scored ({counted(num_clips, 'clip')} in the run); a clip must be "
            f"finished and have ground truth: conf/dataset/README.md describes where each dataset expects it"
        )
    rows = score_rows(found.scores)
    write_text(out.scores_csv, scores_as_csv(rows))
    write_text(out.scores_json, scores_as_json(found.scores, rows))
    output_console().print(score_table(rows))
    if found.unscored:
        print(f"not scored (unfinished, or no ground truth): {', '.join(found.unscored)}")
    print(f"scores per object and threshold: {out.scores_csv}, {out.scores_json.name}")
    return EXIT_SOME_FAILED if found.errors else EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
