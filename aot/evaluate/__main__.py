"""Scores against ground truth: `python -m aot.evaluate RUN` scores every finished clip whose truth is known.

J, F and J&F of masks, AJ, δ, OA and PCK of tracks, on the full-rate frames of the source whatever the run's
frame_interval: masks are held, tracks interpolated in time. docs/evaluation.md says what counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aot.config import load_run_config
from aot.datasets.ground_truth import QueryMode
from aot.errors import AotError, ConfigError
from aot.evaluate.clip import ClipScore
from aot.evaluate.run import Task, evaluate_clips, format_scores, score_rows, scores_as_csv, scores_as_json
from aot.launching.plan import read_run_json
from aot.paths import RunPaths
from aot.system.cli import run_command
from aot.system.files import write_text


def evaluate_run(
    root: Path, *, query_mode: QueryMode | None = None, workers: int | None = None
) -> tuple[dict[str, ClipScore], dict[str, AotError], list[str]]:
    """Score the finished clips of a run folder.

    Returns:
        The score of every clip whose truth is known; the error of those whose file or truth is damaged; and the clips
        that have no truth, or are not finished.
    Raises:
        ConfigError: not a run folder, or its dataset cannot be made any more.
    """
    paths = RunPaths(root)
    run = read_run_json(paths)
    build = load_run_config(run).dataset.build
    finished = [clip_id for clip_id in run["clips"] if paths.clip(clip_id).result.exists()]
    tasks = [Task(clip_id, paths.clip(clip_id).result, build, query_mode) for clip_id in finished]
    found = dict(evaluate_clips(tasks, workers))
    scores = {clip_id: score for clip_id, score in found.items() if isinstance(score, ClipScore)}
    errors = {clip_id: error for clip_id, error in found.items() if isinstance(error, AotError)}
    return scores, errors, [clip_id for clip_id in run["clips"] if clip_id not in scores and clip_id not in errors]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m aot.evaluate",
        description="Score a run against its dataset's ground truth: J, F and J&F of masks (DAVIS), AJ, δ and OA of "
        "tracks (TAP-Vid), PCK at 0.2 (BADJA). Writes scores.csv and scores.json into the run folder.",
    )
    parser.add_argument("run", type=Path, help="a run folder, such as outputs/davis/grabcut-lucas_kanade-k1-0123abcd")
    parser.add_argument("--out", type=Path, help="write scores.csv and scores.json into this folder instead")
    parser.add_argument(
        "--queries", choices=("first", "strided"), help="count tracks after their query only, or before it too; "
        "the dataset's own way if not given",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, help="processes; one a core if not given")
    options = parser.parse_args(arguments)
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers {options.workers}: expected 1 or more")
    try:
        scores, errors, unscored = evaluate_run(options.run, query_mode=options.queries, workers=options.workers)
        for clip_id, error in errors.items():
            print(f"{clip_id}: cannot be scored: {error}", file=sys.stderr)
        if not scores:
            raise ConfigError(
                f"{options.run}: none of its {len(unscored) + len(errors)} clips is finished and has ground truth; "
                f"its dataset knows none, or nothing is finished yet"
            )
        rows = score_rows(scores)
        out = RunPaths(options.out or options.run)
        write_text(out.scores_csv, scores_as_csv(rows))
        write_text(out.scores_json, scores_as_json(scores, rows))
    except AotError as error:
        print(error, file=sys.stderr)
        return 2
    print(format_scores(rows))
    if unscored:
        print(f"not scored (unfinished, or no ground truth): {', '.join(unscored)}")
    print(f"per object, and every threshold: {out.scores_csv}, {out.scores_json.name}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
