"""The tools of the mutation check, and that its list of changes fits the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aot.system.processes import is_alive
from tests.mutants.__main__ import ROOT, Verdict, share_killed, table
from tests.mutants.mutations import find_mutations
from tests.mutants.named import EQUIVALENT, NAMED
from tests.mutants.runner import Outcome, Workplace, limit
from tests.mutants.selection import TESTS, Mutant, all_generated, select
from tests.waiting import wait_until

SOURCE = '''"""Docstring, 1."""

LIMIT = 3


@decorated(1)
def area(size, *, margin=2):
    """Area + 1."""
    if size[0] < LIMIT and margin:
        raise ValueError(f"size {size[0] + 1}")
    checked(size, strict=True)
    return (size[0] - margin) * max(size)
'''


def changed_lines(source: str) -> set[str]:
    """The changed line of every mutation, without indentation."""
    return {
        new.strip()
        for mutation in find_mutations(source)
        for old, new in zip(source.splitlines(), mutation.apply(source).splitlines())
        if old != new
    }


def test_all_changes_of_a_function() -> None:
    assert changed_lines(SOURCE) == {
        "if size[0] <= LIMIT and margin:",
        "if size[1] < LIMIT and margin:",
        "if ((size[0] < LIMIT)):",
        "if ((margin)):",
        "if False:",
        "if not (size[0] < LIMIT and margin):",
        "pass",
        "checked(size, strict=False)",
        "checked(size, )",
        "return (size[0] + margin) * max(size)",
        "return ((size[0])) * max(size)",
        "return (size[1] - margin) * max(size)",
        "return (size[0] - margin) / max(size)",
        "return ((size[0] - margin))",
        "return (size[0] - margin) * min(size)",
    }


def test_positions_are_characters_although_ast_counts_bytes() -> None:
    assert changed_lines("é = 'é' if ä > b else 'ü'\n") >= {"é = 'é' if ä >= b else 'ü'"}


@pytest.mark.parametrize("module", TESTS)
def test_modules_and_their_tests_exist(module: str) -> None:
    assert (ROOT / module).is_file()
    for path in TESTS[module]:
        assert (ROOT / path).exists(), path


def test_the_selection_depends_only_on_the_seed() -> None:
    first, again, other = select(ROOT, 20, seed=1), select(ROOT, 20, seed=1), select(ROOT, 20, seed=2)
    assert first == again
    assert first != other
    assert sum(not mutant.is_named for mutant in first) == 20
    assert len({(mutant.module, mutant.source) for mutant in first}) == len(first), "no change twice"


def test_every_named_change_is_tried() -> None:
    assert {item.module for item in NAMED} <= TESTS.keys()


def test_equivalent_changes_are_changes_of_the_code() -> None:
    possible = {mutant.key for mutant in all_generated(ROOT)}
    assert EQUIVALENT.keys() <= possible


def verdict(module: str, outcome: Outcome, line: int = 1) -> Verdict:
    return Verdict(Mutant(module, "", line, "code", "change", is_named=False), outcome, 2.0)


def test_equivalent_changes_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EQUIVALENT, ("b.py", "code | change"), "no effect")
    verdicts = [
        verdict("a.py", Outcome.FAILED), verdict("a.py", Outcome.TIMED_OUT), verdict("a.py", Outcome.PASSED),
        verdict("b.py", Outcome.PASSED),
    ]  # fmt: skip
    assert share_killed(verdicts) == pytest.approx(2 / 3)
    *_, first, second, everything = table(verdicts).splitlines()
    assert first == "| a.py | 3 | 2 | 1 | 1 | 0 | 6 |"
    assert second == "| b.py | 1 | 0 | 0 | 0 | 1 | 2 |"
    assert everything == "| all | 4 | 2 | 1 | 1 | 1 | 8 |"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A copy of a repository with one module, one test and no library to import."""
    root = tmp_path_factory.mktemp("origin")
    (root / "aot").mkdir()
    (root / "aot" / "__init__.py").write_text("")
    (root / "aot" / "one.py").write_text("ONE = 1\n")
    (root / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (root / "ignored.txt").write_text("")
    (root / ".gitignore").write_text("ignored.txt\n")
    (root / "test_one.py").write_text("from aot.one import ONE\n\n\ndef test_one():\n    assert ONE == 1\n")
    subprocess.run(["git", "init", "-q", root], check=True)
    return Workplace(root, tmp_path_factory.mktemp("copies") / "0")


@pytest.mark.slow
def test_tests_run_with_the_change_in_the_copy(workplace: Workplace) -> None:
    module = workplace.root / "aot" / "one.py"
    assert not (workplace.root / "ignored.txt").exists()
    for text, outcome in {
        "ONE = 1\n": Outcome.PASSED, "ONE = 2\n": Outcome.FAILED, "ONE =\n": Outcome.FAILED,
        "ONE = 1#": Outcome.PASSED, "import time; time.sleep(300)\n": Outcome.TIMED_OUT,
    }.items():  # fmt: skip
        module.write_text(text)
        seconds = 5 if outcome is Outcome.TIMED_OUT else 120
        assert workplace.run(("test_one.py",), "not slow", limit_seconds=seconds).outcome is outcome, text
    module.write_text("ONE = 1\n")
    assert workplace.run(("test_one.py",), "slow").outcome is Outcome.NO_TESTS


@pytest.mark.slow
def test_processes_of_a_test_end_with_it(workplace: Workplace) -> None:
    (workplace.root / "aot" / "one.py").write_text("ONE = 1\n")
    (workplace.root / "test_child.py").write_text(
        "import subprocess\nfrom pathlib import Path\n\nchildren = []\n\n\ndef test_child():\n"
        "    children.append(subprocess.Popen(['sleep', '300']))\n"
        "    Path('child').write_text(str(children[0].pid))\n"
    )
    assert workplace.run(("test_child.py",), "not slow").outcome is Outcome.PASSED
    pid = int(Path(workplace.root, "child").read_text())
    wait_until(lambda: not is_alive(pid))


def test_limits_leave_time_for_a_busy_machine() -> None:
    assert limit(1.0) == 30.0
    assert limit(20.0) == 80.0
