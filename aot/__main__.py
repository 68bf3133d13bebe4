"""`aot VERB …` is `python -m aot.VERB …`; without a verb, the commands are listed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from aot.system.cli import EXIT_DONE, EXIT_WRONG, run_command, version
from aot.system.interrupts import interrupts_exit
from aot.system.nearest import suggestion

VERBS = {
    "run": "segment and track the clips of a dataset",
    "status": "progress of a run, or of the runs of a sweep",
    "cancel": "stop the workers of a run",
    "prompt": "click prompts in the browser",
    "prompts": "check a prompt manifest, print its schema, import boxes of other tools",
    "checkpoints": "list, download and verify model weights",
    "evaluate": "score a run against ground truth",
    "sweep": "compare the runs of a sweep over frame_interval or sample_fps",
    "report": "write the report of a run again",
    "export": "write results in formats of other tools",
    "verify": "check the result files of a run",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return EXIT_DONE
    if given[0] == "--version":
        print(f"aot {version()}")
        return EXIT_DONE
    verb, *rest = given
    if verb not in VERBS:
        print(f"aot {verb}: no such command; {suggestion(verb, VERBS)}", file=sys.stderr)
        return EXIT_WRONG
    with interrupts_exit():
        module = _module(verb)
    return int(module.main(rest))


def console_script() -> int:
    """The entry point of the console script `aot`."""
    return run_command(main)


def _module(verb: str) -> Any:
    """The module of a command: aot/<verb>.py, or __main__ of the package aot/<verb>/."""
    spec = importlib.util.find_spec(f"aot.{verb}")
    is_package = spec is not None and spec.submodule_search_locations is not None
    return importlib.import_module(f"aot.{verb}.__main__" if is_package else f"aot.{verb}")


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb.ljust(width)}  {purpose}" for verb, purpose in VERBS.items()]
    return "\n".join(
        [
            f"aot {version()}: masks and point tracks of chosen objects, for whole datasets of videos",
            "",
            "Usage: aot VERB [arguments]    (the same as python -m aot.VERB [arguments])",
            "",
            *lines,
            "",
            "aot VERB --help describes a command. First steps: aot run dataset=demo segmenter=grabcut "
            "tracker=lucas_kanade",
        ]
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
