"""Change the code in small plausible ways, one at a time, and count the changes that a test notices.

    python -m tests.mutants [--generated 150] [--seed 20261126] [--modules MODULE …]

Each change is made in a copy of the repository, and the tests of its module run there until the first failure: first
those that are not slow; if they pass, the slow ones. The command exits with 1 if fewer than 90 % of the changes are
noticed; changes that cannot be noticed (`named.EQUIVALENT`) do not count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.named import EQUIVALENT
from tests.mutants.runner import Outcome, Result, Workplace, import_libraries, limit
from tests.mutants.selection import NUM_GENERATED, SEED, TESTS, Mutant, select

ROOT = Path(__file__).resolve().parents[2]
NUM_PROCESSES = 2
MIN_KILLED = 0.9
QUICK, SLOW = "not slow and not long and not gpu", "slow and not long and not gpu"


@dataclass(frozen=True)
class Verdict:
    """What happened to a mutant."""

    mutant: Mutant
    outcome: Outcome
    """PASSED: it survived."""
    seconds: float

    @property
    def is_equivalent(self) -> bool:
        return self.outcome is Outcome.PASSED and self.mutant.key in EQUIVALENT


def judge(mutants: Sequence[Mutant]) -> Iterator[Verdict]:
    """Run the tests of every mutant in two processes.

    Raises:
        RuntimeError: tests fail without a change.
    """
    context = multiprocessing.get_context("fork")
    with (
        TemporaryDirectory(prefix="aot-mutants-") as folder,
        ProcessPoolExecutor(NUM_PROCESSES, context, initializer=_prepare, initargs=(Path(folder),)) as processes,
    ):
        groups = sorted({TESTS[mutant.module] for mutant in mutants})
        baselines = dict(zip(groups, processes.map(_baseline, groups)))
        print(f"the tests pass without a change: {sum(baselines.values()):.0f} s", flush=True)
        yield from processes.map(_judge_one, mutants, [baselines[TESTS[mutant.module]] for mutant in mutants])


def table(verdicts: Iterable[Verdict]) -> str:
    """Counts by module, as Markdown."""
    rows = ["| module | changes | noticed | of these by a time limit | survived | equivalent | seconds |"]
    rows.append("|---|---|---|---|---|---|---|")
    by_module: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_module.setdefault(verdict.mutant.module, []).append(verdict)
    everything = [verdict for group in by_module.values() for verdict in group]
    for name, group in [*sorted(by_module.items()), ("all", everything)]:
        survived = [verdict for verdict in group if verdict.outcome is Outcome.PASSED]
        equivalent = sum(verdict.is_equivalent for verdict in survived)
        timed_out = sum(verdict.outcome is Outcome.TIMED_OUT for verdict in group)
        counts = [len(group), len(group) - len(survived), timed_out, len(survived) - equivalent, equivalent]
        rows.append(f"| {name} | {' | '.join(map(str, counts))} | {sum(verdict.seconds for verdict in group):.0f} |")
    return "\n".join(rows)


def share_killed(verdicts: Sequence[Verdict]) -> float:
    """Fraction of the changes noticed, without the equivalent ones."""
    counted = [verdict for verdict in verdicts if not verdict.is_equivalent]
    return sum(verdict.outcome is not Outcome.PASSED for verdict in counted) / len(counted)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generated", type=int, default=NUM_GENERATED, help="number of generated changes")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of their choice")
    parser.add_argument("--modules", nargs="+", choices=TESTS, default=list(TESTS), metavar="MODULE")
    options = parser.parse_args(arguments)
    mutants = [mutant for mutant in select(ROOT, options.generated, options.seed) if mutant.module in options.modules]
    print(f"{len(mutants)} changes of {len(options.modules)} modules", flush=True)
    start, verdicts = time.monotonic(), []
    for verdict in judge(mutants):
        verdicts.append(verdict)
        if verdict.outcome is Outcome.PASSED:
            reason = EQUIVALENT.get(verdict.mutant.key)
            word = f"equivalent ({reason})" if reason else "survived"
            kind = "named" if verdict.mutant.is_named else "generated"
            print(f"{word}: {verdict.mutant.module}:{verdict.mutant.line} {verdict.mutant.key[1]} ({kind})", flush=True)
    print(f"\n{table(verdicts)}\n")
    killed = share_killed(verdicts)
    print(f"{100 * killed:.1f} % noticed, in {(time.monotonic() - start) / 60:.0f} minutes")
    return 0 if killed >= MIN_KILLED else 1


_workplace: Workplace | None = None
"""The copy of this process."""


def _prepare(folder: Path) -> None:
    global _workplace
    os.environ["OMP_NUM_THREADS"] = "1"
    import_libraries()
    _workplace = Workplace(ROOT, folder / str(os.getpid()))


@cache
def _baseline(tests: tuple[str, ...], marks: str = QUICK) -> float:
    """Seconds of these tests without a change; 0 if none has these marks."""
    assert _workplace
    result = _workplace.run(tests, marks)
    if result.outcome is Outcome.NO_TESTS:
        return 0.0
    if result.outcome is not Outcome.PASSED:
        raise RuntimeError(f"{' '.join(tests)} fail without a change:\n{result.output[-3000:]}")
    return result.seconds


def _judge_one(mutant: Mutant, baseline_seconds: float) -> Verdict:
    result = _run_changed(mutant, QUICK, baseline_seconds)
    if result.outcome is Outcome.PASSED and (slow_seconds := _baseline(TESTS[mutant.module], SLOW)):
        slow = _run_changed(mutant, SLOW, slow_seconds)
        result = Result(slow.outcome, result.seconds + slow.seconds, slow.output)
    return Verdict(mutant, result.outcome, result.seconds)


def _run_changed(mutant: Mutant, marks: str, baseline_seconds: float) -> Result:
    """Run the tests of a module with its change."""
    assert _workplace
    path = _workplace.root / mutant.module
    original = path.read_text(encoding="utf-8")
    path.write_text(mutant.source, encoding="utf-8")
    try:
        return _workplace.run(TESTS[mutant.module], marks, limit(baseline_seconds))
    finally:
        path.write_text(original, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
