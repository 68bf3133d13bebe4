"""Phrases that CONTRIBUTING advises against do not reappear in documents, messages, docstrings, comments or names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Regular expression without capturing groups → what to write. A space also matches a line break, a comment marker and
# the underscore of a name.
PHRASES = {
    "(?:files?|images?|items?|lines?|rows?|values?|points?|tasks?|workers?|ms|s|MB|GB|seconds|times) an? "
    "(?:clip|frame|gpu|node|worker|task|object|video|run|folder)": "per: one file per clip, MB per frame",
    "worked off": "processed",
    "in hand": "current, in flight",
    "at work": "running",
    "nobody": "no worker, no process, nothing",
    "came of (?:it|them|an?|the)": "outcome, result",
    "gets? on": "make progress",
    "(?:go|goes|went|going) on": "continue; run the same command again to resume",
    "(?:is|are|was|were|be|been|not) (?:told|said)": "report, print, document",
    "tells? (?:of|how|what|which|why|when|whether|where)": "report, show",
    "(?<!stand-)alone": "only; unchanged",
    "for good(?! reason)": "permanently",
    "so much as": "even",
    "anew": "again",
    "(?:process|file|folder|module|machine) of (?:its|their|one's) own": "its own process, a separate process",
    "an own": "its own",
    "strangers?": "untrusted input; a file that is not listed",
    "hostile": "malicious, malformed",
    "mend(?:s|ed|ing)?": "fix, repair",
    "(?:is|are|was|were|be|stays?|left|made|read|found) whole": "complete",
    "whole (?:files?|runs?|results?)": "complete",
    "pass(?:es)? for": "be accepted as",
    "puts? away": "finish or abandon",
    "(?<!<)(?<!</)picture": "image, frame",
    "kept apart": "separate",
    "that (?:is|are) none": "is not one; is empty",
    "that (?:is|are) no(?! longer)": "that is not a",
    "made(?:-| )up": "synthetic",
    "(?:a|the) share of": "a fraction of",
    "taken again": "processed again",
    "from above": "name what is above",
    "looked into": "examined, inspected",
    "(?:is|are|was|were) meant (?:by|for|instead)": "name what the user should write",
    "unless told": "by default",
    "(?:do|does|did) not tell": "is not sufficient to decide, does not show",
    "and (?:is|are) none": "but is not one",
    "of this name, but": "does not have the requested …, but has …",
}

# File → why it may contain the phrases.
EXCLUDED = {
    "LICENSE": "is quoted",
    "README.zh-CN.md": "is Chinese",
    "tests/test_language.py": "lists the phrases",
}
GLOSSARY = "| instead of |"
"""Start of the table in CONTRIBUTING.md that quotes phrases; it is not checked."""

FOLDERS = (".ci", "aot", "benchmarks", "conf", "docs", "launch", "tests")
SUFFIXES = {"", ".c", ".css", ".html", ".js", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}


# One pattern with a group per phrase: three times as fast as one pattern per phrase.
SPACE = r"[\s_#]+"
PATTERN = re.compile(
    r"(?<![^\W_])(?:" + "|".join(f"({phrase.replace(' ', SPACE)})" for phrase in PHRASES) + r")(?![^\W_])",
    re.IGNORECASE,
)
REPLACEMENTS = list(PHRASES.values())


def checked_files() -> list[Path]:
    paths = [*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    return sorted(
        path
        for path in paths
        if path.suffix in SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
        and path.relative_to(ROOT).as_posix() not in EXCLUDED
        and not {"data", "findings"} & set(path.parent.relative_to(ROOT).parts)  # recorded results and binary input
    )


def findings(name: str, text: str) -> list[str]:
    """One line per phrase: file:line, the phrase, and what to write instead."""
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[0].split())!r}; "
        f"write: {REPLACEMENTS[(match.lastindex or 1) - 1]}"
        for match in PATTERN.finditer(text.partition(GLOSSARY)[0])
    ]


def test_documents_and_code_avoid_the_phrases() -> None:
    found = [
        line
        for path in checked_files()
        for line in findings(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join([f"{len(found)} phrases to replace:", *found])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One file a clip.\n", ["a.py:1: 'file a clip'; write: per: one file per clip, MB per frame"]),
        ("x = 1\n# Clips are worked\n# off here.\n", ["a.py:2: 'worked # off'; write: processed"]),
        ("def test_what_came_of_it() -> None:\n", ["a.py:1: 'came_of_it'; write: outcome, result"]),
        ("_picture = read()\n", ["a.py:1: 'picture'; write: image, frame"]),
        ("output.pictures, standalone, <picture>, x is None, for good reason\n", []),
        ("| instead of | write |\n| worked off | processed |\n", []),
    ],
)
def test_planted_phrases_are_found(text: str, expected: list[str]) -> None:
    assert findings("a.py", text) == expected


def test_every_kind_of_file_is_checked() -> None:
    checked = {path.relative_to(ROOT).as_posix() for path in checked_files()}
    assert checked > {
        "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", ".ci/run", "docs/trust.md",
        "aot/run.py", "aot/report/page/run-page.js", "conf/config.yaml", "launch/devcluster/up.sh", "tests/test_run.py",
    }  # fmt: skip
    assert all((ROOT / name).exists() for name in EXCLUDED)
