"""The command `python -m aot.verify RUN`: check that a run folder is complete and undamaged.

python -m aot.verify RUN              check all data of every file, and its SHA-256
python -m aot.verify RUN --quick      check only the structure; bulk data is not read
python -m aot.verify RUN --repair     move broken files to quarantine/; running the same command again recomputes them
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from aot.errors import printable
from aot.paths import RunPaths
from aot.runs.quarantine import quarantine
from aot.runs.verify import State, verify_run
from aot.system.cli import EXIT_DONE, EXIT_SOME_FAILED, add_run_argument, prints_errors, run_command
from aot.system.command_parser import CommandParser
from aot.system.text import counted


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = CommandParser(
        prog="python -m aot.verify",
        description="Open every file of a run and check it against the schema, its recorded SHA-256, its frames and "
        "the clip list. Exit codes: 0 every listed clip is complete and there are no other files; 1 some clips are "
        "broken, not checked, failed or pending, or there are other files; 2 not a run folder, or wrong arguments.",
    )
    add_run_argument(parser)
    parser.add_argument("--quick", action="store_true", help="check only the structure, do not read bulk data")
    parser.add_argument(
        "--repair", action="store_true", help="move broken files to quarantine/, which makes their clips pending"
    )
    options = parser.parse_args(arguments)
    paths = RunPaths(options.run)
    counts: Counter[State] = Counter()
    num_not_compared = 0
    for finding in verify_run(paths, quick=options.quick):
        counts[finding.state] += 1
        num_not_compared += not finding.is_compared
        if finding.state is not State.COMPLETE:
            reason = f": {finding.reason}" if finding.reason else ""
            is_moved = finding.state is State.BROKEN and options.repair
            moved = f"; moved to {quarantine(paths, finding.clip_id)}, now pending" if is_moved else ""
            print(f"{printable(finding.clip_id)}: {finding.state.value}{reason}{moved}")
    summary = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    print(f"{options.run}: {summary or 'no clips'}")
    if num_not_compared:
        print(f"{counted(num_not_compared, 'clip')} without a recorded SHA-256; only the contents were checked")
    if counts[State.BROKEN]:
        print(
            "run the command that created the run again: it computes the pending clips"
            if options.repair
            else "`--repair` moves broken files to quarantine/ and makes their clips pending"
        )
    return EXIT_DONE if set(counts) <= {State.COMPLETE} else EXIT_SOME_FAILED


if __name__ == "__main__":
    sys.exit(run_command(main))
