"""Which modules are changed, which tests must notice it, and which of the possible changes are tried."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.mutants.mutations import find_mutations, is_valid
from tests.mutants.named import NAMED, Named

NUM_GENERATED = 150
SEED = 20261126

# The tests of each module, those most likely to fail first.
TESTS: dict[str, tuple[str, ...]] = {
    "aot/decoding/video_file.py": ("tests/decoding",),
    "aot/decoding/probe.py": ("tests/decoding",),
    "aot/decoding/completeness.py": ("tests/decoding",),
    "aot/decoding/displayed.py": ("tests/decoding",),
    "aot/decoding/packets.py": ("tests/decoding",),
    "aot/decoding/streams.py": ("tests/decoding",),
    "aot/tracking/cotracker3/correlation.py": ("tests/tracking/cotracker3",),
    "aot/segmentation/sam2/streaming.py": ("tests/segmentation",),
    "aot/writing/hdf5.py": ("tests/writing", "tests/test_verify.py"),
    "aot/writing/disk.py": ("tests/writing", "tests/test_verify.py"),
    "aot/writing/schema.py": ("tests/writing", "tests/test_verify.py"),
    "aot/writing/reader.py": ("tests/writing", "tests/runs/test_index.py", "tests/test_verify.py"),
    "aot/system/files.py": ("tests/system", "tests/writing", "tests/test_paths.py"),
    "aot/launching/plan.py": ("tests/launching", "tests/runs", "tests/test_retry.py", "tests/test_run.py"),
    "aot/launching/shards.py": ("tests/launching",),
    "aot/retry.py": ("tests/test_retry.py", "tests/launching"),
    "aot/evaluate/tracks.py": ("tests/evaluate",),
    "aot/evaluate/masks.py": ("tests/evaluate",),
    "aot/query_points/adaptive.py": ("tests/query_points",),
    "aot/query_points/spreading.py": ("tests/query_points",),
    "aot/datasets/mask_folders.py": ("tests/datasets",),
    "aot/datasets/annotations.py": ("tests/datasets",),
}


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    module: str
    source: str
    """The changed source."""
    line: int
    code: str
    """The line before the change, without indentation."""
    description: str
    is_named: bool

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the mutant as long as its line stays as it is, wherever it moves."""
        return self.module, f"{self.code} | {self.description}"


def select(root: Path, num_generated: int = NUM_GENERATED, seed: int = SEED) -> list[Mutant]:
    """The named mutants, and as many generated ones, chosen at random but the same for the same code.

    Args:
        root: of the repository.
        num_generated: number of generated mutants.
        seed: of the choice.
    Raises:
        ValueError: the code of a named mutant is not found, or is found twice.
    """
    named = [_named_mutant(root, item) for item in NAMED]
    taken = {(mutant.module, mutant.source) for mutant in named}
    possible = list(all_generated(root))
    random.Random(seed).shuffle(possible)
    usable = (one for one in possible if (one.module, one.source) not in taken and is_valid(one.source))
    chosen = list(islice(usable, num_generated))
    return sorted(named + chosen, key=lambda mutant: (mutant.module, mutant.line, mutant.description))


def all_generated(root: Path) -> Iterator[Mutant]:
    """Every change of every module; a few are not valid Python."""
    for module in TESTS:
        source = (root / module).read_text(encoding="utf-8")
        for mutation in find_mutations(source):
            code = source.splitlines()[mutation.line - 1].strip()
            yield Mutant(module, mutation.apply(source), mutation.line, code, mutation.description, is_named=False)


def _named_mutant(root: Path, item: Named) -> Mutant:
    source = (root / item.module).read_text(encoding="utf-8")
    count = source.count(item.old)
    if count != 1:
        raise ValueError(
            f"{item.module}: {item.old!r} occurs {count} times, expected once: update tests/mutants/named.py"
        )
    line = source[: source.index(item.old)].count("\n") + 1
    code = source.splitlines()[line - 1].strip()
    return Mutant(item.module, source.replace(item.old, item.new), line, code, item.description, is_named=True)
