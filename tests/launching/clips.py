"""Small datasets for tests of the launchers, and checks of what a run has made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aot.paths import RunPaths
from aot.run import main
from aot.runs.ledger import read_events
from tests.synthetic import moving_square, write_video

PROMPTS = "clips:\n  '*': {objects: [{id: 1, name: square, box: [8, 20, 28, 40]}]}\n"
FAST = ["segmenter=grabcut", "query_points=adaptive", "query_points.num_points=20", "output.overlay=false"]


class Clips:
    """A folder of small videos of different lengths, and the faults to inject into them (tests/faults/parts.py).

    Args:
        folder: an empty folder.
        lengths: number of frames by clip id; all different, because the tracker recognises a clip by its length.
        width, height: of the frames, in px.
    """

    def __init__(self, folder: Path, lengths: Mapping[str, int], *, width: int = 96, height: int = 64) -> None:
        self.folder = folder
        self.lengths = dict(lengths)
        for number, (clip_id, length) in enumerate(lengths.items()):
            write_video(folder / "clips" / f"{clip_id}.mp4", moving_square(length, width, height, seed=number))
        (folder / "clips" / "prompts.yaml").write_text(PROMPTS)
        self.script = folder / "script"
        self.script.mkdir()
        options = folder / "options" / "tracker"
        options.mkdir(parents=True)
        (options / "scripted.yaml").write_text(f"_target_: tests.faults.parts.ScriptedTracker\nscript: {self.script}\n")
        dataset = folder / "options" / "dataset" / "recording.yaml"
        dataset.parent.mkdir()
        dataset.write_text("_target_: tests.faults.parts.RecordingVideos\nroot: ???\nprompts: ${.root}/prompts.yaml\n")
        decoder = folder / "options" / "decoder" / "scripted.yaml"
        decoder.parent.mkdir()
        arguments = "".join(f"{name}: ???\n" for name in ("clip", "action", "only_ahead", "after"))
        decoder.write_text(f"_target_: tests.faults.parts.ScriptedDecoder\n{arguments}")
        (options / "whole_clip.yaml").write_text("_target_: tests.faults.parts.WholeClipTracker\n")

    def inject(self, clip_id: str, *actions: str) -> None:
        """Script the faults of the first, second, … attempt at a clip."""
        (self.script / f"{self.lengths[clip_id]}.json").write_text(json.dumps(actions))

    def was_injected(self, clip_id: str, number: int, action: str) -> bool:
        return (self.script / f"{self.lengths[clip_id]}.{number}.{action}").exists()

    def release(self) -> None:
        """Let the attempts continue that the action "wait" holds back."""
        (self.script / "released").touch()

    def arguments(self, *arguments: str) -> list[str]:
        """Arguments of `python -m aot.run` for this dataset."""
        return [
            "dataset=videos", f"dataset.root={self.folder / 'clips'}", f"output.root={self.folder / 'outputs'}", *FAST,
            "--config-dir", str(self.folder / "options"), "tracker=scripted", *arguments,
        ]  # fmt: skip

    def run(self, *arguments: str) -> int:
        return main(self.arguments(*arguments))

    @property
    def root(self) -> Path:
        """The only run folder."""
        (path,) = (self.folder / "outputs" / "videos").iterdir()
        return path

    @property
    def paths(self) -> RunPaths:
        return RunPaths(self.root)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return list(read_events(self.paths, kinds))

    def starts(self) -> list[dict[str, Any]]:
        """The "started" events of all attempts that compute a result; drawings are not among them."""
        return [event for event in self.events("started") if event["work"] == "all"]

    def started(self) -> list[str]:
        """The clip of every attempt that computes a result."""
        return [event["clip_id"] for event in self.starts()]

    def worker(self) -> int:
        """The process id of the only worker that has computed a result, or tried to."""
        (pid,) = {event["pid"] for event in self.starts()}
        return int(pid)

    def done(self) -> list[str]:
        """Ids of all finished clips, sorted; an id occurs once per time the clip was finished."""
        return sorted(event["clip_id"] for event in self.events("done"))

    def attempts(self, clip_id: str) -> list[tuple[int, str | None]]:
        """Rung and error class of every attempt, from the clip's result or its failure."""
        clip = self.paths.clip(clip_id)
        if clip.result.exists():
            with h5py.File(clip.result) as file:
                found = json.loads(file.attrs["attempts"])
        else:
            found = self.failure(clip_id)["attempts"]
        return [(attempt["rung"], attempt["class"]) for attempt in found]

    def failure(self, clip_id: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.paths.clip(clip_id).failure.read_text())
        return read

    def outcome(self) -> tuple[set[str], set[str]]:
        """The clips with a result, and those in failures/; fails if a partial file is left in the run folder."""
        assert not list(self.root.rglob("*.part")), "partial files are left"
        complete = {path.relative_to(self.root / "clips").with_suffix("").as_posix() for path in self._files("clips")}
        failed = {
            path.relative_to(self.root / "failures").with_suffix("").as_posix() for path in self._files("failures")
        }
        return complete, failed

    def assert_none_lost(self, *, failed: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """Every clip has either a result or a failure, and exactly `failed` have failures."""
        complete, in_failures = self.outcome()
        assert in_failures == set(failed)
        assert complete == set(self.lengths) - in_failures

    def _files(self, name: str) -> list[Path]:
        return [path for path in (self.root / name).rglob("*") if path.is_file()]


def datasets_of(path: Path) -> dict[str, Any]:
    """All datasets of a clip's result, which must not depend on the launcher."""
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def assert_same_results(left: Path, right: Path) -> None:
    """Assert that two run folders hold the same files with the same datasets."""
    names = sorted(path.relative_to(left / "clips") for path in (left / "clips").rglob("*.h5"))
    assert names
    assert names == sorted(path.relative_to(right / "clips") for path in (right / "clips").rglob("*.h5"))
    for name in names:
        ours, theirs = datasets_of(left / "clips" / name), datasets_of(right / "clips" / name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=f"{name} {key}")
