"""The same inputs and settings give bit-identical datasets on one machine, whichever launcher processes the clips."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from aot.paths import RunPaths
from aot.runs.ledger import read_events
from tests.faults.commands import Command
from tests.launching.clips import Clips, assert_same_results
from tests.segmentation.sam2_models import save_random_weights
from tests.tracking.cotracker3.weights import golden_weights
from tests.tracking.tapnext.small import SMALL, small_weights
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LENGTHS = {"a": 5, "b": 11, "c": 8, "d": 4}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Small SAM 2 and CoTracker3 models with random weights, on the CPU."""
    import torch

    folder = tmp_path_factory.mktemp("weights")
    torch.save(dict(golden_weights(mode="offline")), folder / "cotracker3.pth")
    sam2 = save_random_weights(folder / "sam2.pt")
    return [
        "segmenter=sam2", "segmenter.size=tiny", "segmenter.image_size=128", f"segmenter.checkpoint={sam2}",
        "segmenter.device=cpu", "tracker=cotracker3", f"tracker.checkpoint={folder / 'cotracker3.pth'}",
        "tracker.device=cpu", "tracker.resolution=[96,128]",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tapnext(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A small TAPNext with random weights, on the CPU."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "tapnext.pt"
    torch.save(small_weights(), path)
    sizes = [f"tracker.{name}={value}" for name, value in SMALL.items()]
    return ["tracker=tapnext", f"tracker.checkpoint={path}", "tracker.device=cpu", "tracker.backward=true", *sizes]


@pytest.fixture(params=["embedded", "tapnext", pytest.param("networks", marks=pytest.mark.long)])
def models(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    if request.param == "embedded":
        return ["tracker=lucas_kanade"]
    # oneDNN and MKL sum in an order that depends on the number of threads (observed in SAM 2's convolutions).
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    request.getfixturevalue("one_thread")
    networks: list[str] = request.getfixturevalue(request.param)
    return networks


def test_results_do_not_depend_on_the_launcher(models: list[str], tmp_path: Path) -> None:
    """Quick counterpart of the networks: embedded models."""
    clips = Clips(tmp_path, LENGTHS)

    def root(name: str) -> str:
        return f"output.root={tmp_path / name}"

    def folder(name: str) -> Path:
        (path,) = (tmp_path / name / "videos").iterdir()
        return path

    assert clips.run(*models, root("inline"), "launcher=inline") == 0
    assert clips.run(*models, root("many"), "launcher.workers=2") == 0
    events = [event for event in read_events(RunPaths(folder("many")), ["started"]) if event["work"] == "all"]
    workers = {event["worker"] for event in events}
    assert len({event["pid"] for event in events}) == len(workers) == 2, "models are loaded once per worker"
    for shard in ("3/3", "1/3", "2/3"):  # another order, other clips in the same process
        assert clips.run(*models, root("shards"), f"shard={shard}", "launcher=inline") == 0
    with Command(clips, *models, root("resumed"), "launcher.workers=2") as command:
        wait_until(lambda: any((tmp_path / "resumed").rglob("clips/*.h5")))
        command.send_signal(signal.SIGKILL)
        assert command.wait() in (0, -9), "killed, unless the run finished first"
    assert clips.run(*models, root("resumed"), "launcher.workers=1") == 0
    for name in ("many", "shards", "resumed"):
        assert_same_results(folder("inline"), folder(name))
