"""Run the tests that need a GPU, and print one table of what aot's models and a complete run do on it.

    make gpu                                        # all parts, in at most 8 minutes
    make gpu FULL=1                                 # also compile every size of SAM 2, without a time limit
    python -m benchmarks.gpu --parts parity run     # some parts
    python -m benchmarks.gpu --device cpu --small   # a rehearsal without a GPU; the figures mean nothing

All weights are random, because neither speed nor memory depends on them, so that nothing must be downloaded. Frames are
textured squares of 854x480 that move. `peak GB` is the peak of the device memory allocated by torch, model included.
Times exclude building the model and one short clip as a warm-up; they include copies to the device and back. Rows are
printed as they are measured. The exit code is 1 if a part failed, a difference is above its limit, or the time did not
suffice for all parts, and 2 without CUDA.

The comparison with the official CoTracker needs its package (CC-BY-NC 4.0, on no registry): installed, or in the folder
given by --upstream.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_MINUTES = 8.0
SIZES = ("tiny", "small", "base_plus", "large")
COLUMNS = (("measured", 30), ("size", 13), ("precision", 10), ("frames/s", 8), ("peak GB", 7), ("compared with", 20))


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    measured: str
    size: str = ""
    """Number of objects or points, or of clips."""
    precision: str = ""
    frames_per_second: float | None = None
    peak_gb: float | None = None
    """Peak of device memory; None: not measured, or there is no GPU."""
    reference: str = ""
    """With what the results were compared."""
    result: str = ""
    """The difference from the reference, or what else was found."""
    problem: str = ""
    """What is wrong with the result; empty: nothing."""

    def as_markdown(self) -> str:
        numbers = (_number(self.frames_per_second, 1), _number(self.peak_gb, 2))
        return _line((self.measured, self.size, self.precision, *numbers, self.reference, self.result))


@dataclass(frozen=True)
class Options:
    """What is measured, and how much of it."""

    device: str
    """cuda or cpu."""
    is_small: bool
    """Whether models and clips are as small as possible: a rehearsal."""
    is_full: bool
    """Whether every size of SAM 2 is compiled, not only the first one."""
    sizes: tuple[str, ...]
    """Of SAM 2."""
    upstream: Path | None
    """The folder that contains the package `cotracker`; None: it is installed, or its wheel is in the environment."""
    folder: Path
    """For temporary files."""

    @property
    def num_frames(self) -> int:
        return 4 if self.is_small else 48

    @property
    def image_size(self) -> int:
        """Side in px of the images of SAM 2."""
        return 128 if self.is_small else 1024

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width in px of the images of CoTracker3."""
        return (96, 128) if self.is_small else (384, 512)


Part = Callable[[Options], Iterator[Row]]


def main(arguments: Sequence[str] | None = None) -> int:
    os.environ["TQDM_DISABLE"] = "1"  # the official predictor's bars would be between the rows
    from benchmarks.gpu_parts import PARTS, has_cuda  # after that, and because they import this module

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small models and few frames")
    parser.add_argument("--full", action="store_true", help="compile every size of SAM 2, without a time limit")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="sizes of SAM 2; default: all")
    parser.add_argument("--minutes", type=float, default=MAX_MINUTES, help="no row is begun after this time")
    parser.add_argument("--upstream", type=Path, help="folder that contains the package `cotracker`")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not has_cuda():
        print(
            "torch finds no CUDA device on this machine; run this on a machine with a GPU, or rehearse it with "
            "--device cpu --small",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="aot-gpu-") as folder:
        options = Options(
            device=given.device,
            is_small=given.small,
            is_full=given.full,
            sizes=tuple(given.sizes or (SIZES[:1] if given.small else SIZES)),
            upstream=given.upstream,
            folder=Path(folder),
        )
        parts = {name: PARTS[name] for name in given.parts}
        problems = print_table(parts, options, float("inf") if given.full else 60 * given.minutes)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def print_table(parts: Mapping[str, Part], options: Options, max_seconds: float) -> list[str]:
    """Run the parts in their order and print their rows; returns what went wrong, in sentences.

    Args:
        parts: by name.
        options: of all parts.
        max_seconds: no row is begun after this time.
    """
    started = time.monotonic()
    problems: list[str] = []
    print(_line([*(name for name, _ in COLUMNS), "result"]))
    print("|" + "---|" * (len(COLUMNS) + 1), flush=True)
    for name, part in parts.items():
        rows = part(options)
        try:
            while time.monotonic() - started < max_seconds:
                row = next(rows, None)
                if row is None:
                    break
                print(row.as_markdown(), flush=True)
                problems += [f"{row.measured}: {row.problem}"] if row.problem else []
            else:
                problems.append(f"{name}: not measured completely within {max_seconds / 60:g} minutes (--minutes)")
        except Exception as error:  # noqa: BLE001 (a failed part must not stop the others)
            traceback.print_exc()
            problems.append(f"{name}: failed: {error}")
        rows.close()
    return problems


def _line(cells: Sequence[str]) -> str:
    widths = [width for _, width in COLUMNS] + [0]
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths))} |"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
