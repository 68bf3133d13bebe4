"""Search for inputs that aot does not handle.

    pip install atheris
    python -m tests.fuzz TARGET --minutes 30 [--unguided] [--seeds FOLDER ...]

Every batch of inputs runs in its own process, so that a crash or a hang inside a library ends only that batch. Inputs
that fail a check, crash the process or hang it are saved to findings/TARGET/. For Python code the search is guided by
coverage (atheris); videos and HDF5 files, whose readers are written in C, are mutated at random.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import NAMES

FINDINGS = Path(__file__).parent / "findings"
UNGUIDED = ("results", "video")
HANG_SECONDS = 30
MEMORY_MB = 4096
BATCH = 400
MAX_FINDINGS = 20


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """A seed with some bytes changed, and sometimes a piece removed, duplicated or cut off."""
    data = bytearray(seed)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if not data:
            break
        where = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind < 3:
            data[where] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind == 3:
            data[where : where + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"])
        elif kind == 4:
            length = rng.randrange(1, 2 + len(data) // 4)
            piece = data[where : where + length]
            data[where : where + length] = rng.choice([b"", piece + piece])
        else:
            del data[where + 1 :]
    return bytes(data)


def run_unguided(name: str, minutes: float, seeds: Sequence[bytes], seed: int) -> Counter[str]:
    """Try random mutations, many per process; the input of a process that crashes or hangs is saved."""
    counts: Counter[str] = Counter()
    end, number = time.monotonic() + 60 * minutes, seed
    while time.monotonic() < end:
        number += 1
        with tempfile.TemporaryDirectory() as folder:
            current = Path(folder) / "input"
            Path(folder, "seeds").mkdir()
            for item, content in enumerate(seeds):
                Path(folder, "seeds", str(item)).write_bytes(content)
            command = [sys.executable, "-m", "tests.fuzz", name, "--batch", str(number), "--scratch", folder]
            # To a file: a pipe is not read before the child exits, and a full pipe would block it.
            with Path(folder, "output").open("w") as output:
                child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            while child.poll() is None:
                try:
                    child.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    if current.exists() and time.time() - current.stat().st_mtime > HANG_SECONDS:
                        child.kill()
                        counts["hangs"] += 1
                        save_finding(name, "hang", current.read_bytes(), "")
            if child.returncode == 0:
                counts["inputs"] += BATCH
                continue
            if not current.exists():
                raise SystemExit(f"the process exited before its first input:\n{Path(folder, 'output').read_text()}")
            counts["inputs"] += int(Path(folder, "count").read_text())
            if child.returncode != -signal.SIGKILL:
                kind = "failed-check" if child.returncode == 1 else f"signal{-child.returncode}"
                counts[kind] += 1
                save_finding(name, kind, current.read_bytes(), Path(folder, "output").read_text(errors="replace"))
    return counts


def run_batch(name: str, number: int, scratch: Path) -> None:
    """One process of `run_unguided`: try one batch of mutations."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB * 2**20,) * 2)
    from tests.fuzz.targets import TARGETS

    rng, current = random.Random(number), scratch / "input"
    seeds = [path.read_bytes() for path in sorted((scratch / "seeds").iterdir())]
    for count in range(BATCH):
        data = mutate(rng.choice(seeds), rng)
        (scratch / "count").write_text(str(count))
        current.write_bytes(data)
        TARGETS[name](data)


def save_finding(name: str, kind: str, data: bytes, report: str) -> None:
    folder = FINDINGS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"{path}\n{report[-3000:]}", flush=True)


def run_guided(name: str, minutes: float, folders: Sequence[Path], seed: int) -> int:
    """Search guided by coverage; a process exits at its first finding and is replaced. Returns the number found."""
    end, findings = time.monotonic() + 60 * minutes, 0
    with tempfile.TemporaryDirectory() as corpus:  # shared, so that each process starts from the coverage of the last
        for item, content in enumerate(read_seeds(name, folders)):
            Path(corpus, str(item)).write_bytes(content)
        while (left := end - time.monotonic()) > 1 and findings < MAX_FINDINGS:
            command = [
                sys.executable,
                "-m",
                "tests.fuzz",
                name,
                "--minutes",
                str(left / 60),
                "--seed",
                str(seed + findings),
            ]
            if not subprocess.run([*command, "--scratch", corpus], check=False).returncode:
                break
            findings += 1
    return findings


def search(name: str, minutes: float, corpus: Path, seed: int) -> None:
    """One process of `run_guided`: libFuzzer ends it at the first finding and prints its path."""
    import atheris

    with atheris.instrument_imports(include=["aot", "yaml", "omegaconf"]):
        from tests.fuzz.targets import TARGETS
    (FINDINGS / name).mkdir(parents=True, exist_ok=True)
    flags = [
        f"-max_total_time={round(60 * minutes)}", f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY_MB}",
        f"-seed={seed + 1}", "-max_len=4096", f"-artifact_prefix={FINDINGS / name}{os.sep}", "-print_final_stats=1",
    ]  # fmt: skip

    def run_one(data: bytes) -> None:
        TARGETS[name](data)

    atheris.Setup([sys.argv[0], *flags, str(corpus)], run_one)
    atheris.Fuzz()


def read_seeds(name: str, folders: Sequence[Path]) -> list[bytes]:
    """Valid inputs to start from: built-in ones, and the files below the folders."""
    from tests.fuzz.seeds import seeds

    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [*seeds(name), *(path.read_bytes() for path in files)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seeds", type=Path, nargs="*", default=[], help="folders of further valid inputs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random mutations")
    parser.add_argument("--unguided", action="store_true", help="mutate at random; does not need atheris")
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scratch and options.batch is not None:
        run_batch(options.target, options.batch, options.scratch)
        return 0
    if options.scratch:
        search(options.target, options.minutes, options.scratch, options.seed)
        return 0
    if options.target in UNGUIDED or options.unguided:
        seeds = read_seeds(options.target, options.seeds)
        counts = run_unguided(options.target, options.minutes, seeds, 1_000_000 * options.seed)
        print(f"{options.target}: {options.minutes:g} minutes, {dict(counts)}")
        return 1 if set(counts) - {"inputs"} else 0
    findings = run_guided(options.target, options.minutes, options.seeds, options.seed)
    print(f"{options.target}: {options.minutes:g} minutes, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
