"""The next clip is read in a thread: what is taken over, what is read again, and what is released."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aot.decoding.base import FrameSource
from aot.decoding.pyav import PyAVDecoder
from aot.errors import ConfigError, DecodeError
from aot.launching import read_ahead
from aot.launching.read_ahead import ReadAhead
from aot.preparation import prepare_clip
from aot.retry import Rung
from aot.runs.ledger import Ledger
from aot.runs.task import ClipTask
from aot.stages import StageTimer
from aot.types import Prompt
from tests.launching.in_memory import ListedClips, MemoryRun
from tests.synthetic import moving_square, write_video

RUNG = Rung(1, 2, lean=False)
MEMORY = 2**30


class GatedDecoder(PyAVDecoder):
    """Opens files when the test lets it, and keeps what it has opened."""

    def __init__(self) -> None:
        self.may_open = threading.Event()
        self.may_open.set()
        self.opened: list[tuple[Path, FrameSource]] = []

    def open(self, path: Path, stream: int | None = None) -> FrameSource:
        self.may_open.wait()
        source = super().open(path, stream)
        self.opened.append((path, source))
        return source


class Run(MemoryRun):
    """Two videos of 12 frames, read by a worker with this decoder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {})
        self.sources.mkdir()
        for number, clip_id in enumerate("ab"):
            write_video(self.sources / f"{clip_id}.mp4", moving_square(12, seed=number))
        self.decoder = GatedDecoder()
        self.received: list[dict[str, Any]] = []
        self.context()  # writes run.json
        self.ahead = ReadAhead(Ledger(self.paths, "w", on_event=self.received.append), RUNG)

    def start(self, clip_id: str = "a", available_bytes: int = MEMORY) -> ClipTask:
        task = self.task(clip_id)
        self.ahead.start(task, self.decoder, available_bytes)
        return task

    def is_closed(self, clip_id: str = "a") -> list[bool]:
        """Of every source of the clip that was opened, whether it is closed."""
        found = []
        for path, source in self.decoder.opened:
            if path.stem != clip_id:
                continue
            try:
                source.read([0])
                found.append(False)
            except DecodeError as error:
                found.append("the clip is closed" in str(error))
        return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.decoder.may_open.set()
    run.ahead.close()
    assert all(thread.name != "read ahead" for thread in threading.enumerate()) or run.ahead._job is None


def test_clip_is_taken_over_as_if_it_were_read_in_its_turn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aot.preparation.BLOCK_BYTES", 4 * 96 * 64 * 3)
    monkeypatch.setattr(
        ListedClips, "clips", lambda self, clips=ListedClips.clips: [
            replace(clip, prompts=(Prompt(1, 5, box=(8, 20, 28, 40)),)) for clip in clips(self)
        ],
    )  # fmt: skip
    task = run.start()
    prepared = run.ahead.take(task)
    assert prepared is not None
    expected = prepare_clip(task.clip, PyAVDecoder(), RUNG.frame_interval, StageTimer())
    with prepared.frames as frames, expected.frames:
        assert prepared.source_sha256 == expected.source_sha256
        assert [prompt.frame for prompt in prepared.prompts] == [5]
        assert prepared.source_range == expected.source_range
        assert frames.index.tolist() == expected.frames.index.tolist() == [0, 2, 4, 5, 6, 8, 10]
        assert (frames.num_decoded, frames.wait_seconds) == (4, 0)
        frames.keep_decoded(2**20)
        assert np.array_equal(frames.read([5, 6, 8, 10]).rgb, expected.frames.read([5, 6, 8, 10]).rgb)
        assert frames.num_decoded == 4, "from the frame of the prompt on"
    assert run.ahead.take(task) is None, "it has an owner"
    begun, ended = run.received
    assert {key: begun[key] for key in "event clip_id content work rung frame_interval lean".split()} == {
        "event": "reading ahead", "clip_id": "a", "content": task.fingerprint.digest, "work": "all", "rung": 1,
        "frame_interval": 2, "lean": False,
    }  # fmt: skip
    assert (ended["event"], ended["clip_id"]) == ("read ahead", "a")


def test_frames_are_chosen_by_time_ahead_too(run: Run) -> None:
    run.ahead = ReadAhead(Ledger(run.paths, "w"), Rung(1, 1, lean=False), sample_fps=2.5)
    prepared = run.ahead.take(run.start())
    assert prepared is not None
    with prepared.frames as frames:
        assert (frames.index.tolist(), prepared.num_sampled) == ([0, 4, 8], 3)


def test_frames_larger_than_a_block_are_not_decoded_ahead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aot.preparation.BLOCK_BYTES", 96 * 64 * 3 - 1)
    prepared = run.ahead.take(run.start())
    assert prepared is not None
    assert prepared.frames.num_decoded == 0
    prepared.frames.close()


def test_taking_waits_until_the_clip_is_read(run: Run) -> None:
    run.decoder.may_open.clear()
    task = run.start()
    threading.Timer(0.05, run.decoder.may_open.set).start()
    prepared = run.ahead.take(task)
    assert prepared is not None
    prepared.frames.close()


def test_an_interrupt_while_it_waits_releases_the_clip(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.decoder.may_open.clear()
    task = run.start()
    job = run.ahead._job
    assert job is not None

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job.is_over, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.ahead.take(task)
    run.decoder.may_open.set()
    job.is_over.wait()
    assert run.is_closed() == [True]


def test_error_is_left_to_the_clip_s_turn(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    (run.sources / "a.mp4").write_text("no video")
    with caplog.at_level(logging.INFO, "aot.worker"):
        assert run.ahead.take(run.start()) is None
    assert "a: could not be read ahead, and is read again in its turn: " in caplog.text
    assert [event["event"] for event in run.received] == ["reading ahead", "read ahead"]


def test_frame_that_cannot_be_decoded_releases_the_clip(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise DecodeError("frame 0 cannot be decoded")

    monkeypatch.setattr(read_ahead, "decode_first_frames", fail)
    assert run.ahead.take(run.start()) is None
    assert run.is_closed() == [True]


@pytest.mark.parametrize("change", ["content", "time", "missing"])
def test_clip_that_has_changed_since_then_is_read_again(run: Run, change: str) -> None:
    task = run.start()
    job = run.ahead._job
    assert job is not None
    job.is_over.wait()
    source = task.clip.source
    if change == "content":
        source.write_bytes(b"x")
    elif change == "time":
        os.utime(source, ns=(0, 0))
    else:
        source.unlink()
    assert run.ahead.take(task) is None
    assert run.is_closed() == [True]


def test_another_clip_releases_it(run: Run) -> None:
    run.start("a")
    job = run.ahead._job
    assert job is not None
    job.is_over.wait()
    assert run.ahead.take(run.task("b")) is None
    assert run.is_closed() == [True]


@pytest.mark.parametrize("is_over", [True, False])
@pytest.mark.parametrize("end", ["drop", "close", "start"])
def test_clip_that_is_not_taken_is_released(run: Run, monkeypatch: pytest.MonkeyPatch, is_over: bool, end: str) -> None:
    monkeypatch.setattr(read_ahead, "_CLOSE_SECONDS", 0.01)
    if not is_over:
        run.decoder.may_open.clear()
    run.start()
    job = run.ahead._job
    assert job is not None
    if is_over:
        job.is_over.wait()
    if end == "start":
        run.start("b")
    else:
        getattr(run.ahead, end)()
    run.decoder.may_open.set()
    job.is_over.wait()
    assert run.is_closed("a") == [True]


def test_full_or_deleted_run_folder_ends_in_the_clip_s_turn(run: Run) -> None:
    run.decoder.may_open.clear()
    task = run.start()
    run.paths.run_json.unlink()
    run.decoder.may_open.set()
    prepared = run.ahead.take(task)
    assert prepared is not None
    prepared.frames.close()


class LibraryDecoder(GatedDecoder):
    """Decodes 8 frames ahead, with a library."""

    max_buffer_bytes = 8 * 96 * 64 * 3
    is_uncertain = False
    """Whether another file may be the reason why another decoder has taken a file."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.loaded_in: list[threading.Thread] = []

    def load_library(self) -> None:
        self.loaded_in.append(threading.current_thread())
        if self.error is not None:
            raise self.error

    def depends_on_others(self, source: FrameSource) -> bool:
        return self.is_uncertain


@pytest.mark.parametrize(("buffer_frames", "needed_frames"), [(8, 8), (100, 12)])
def test_clip_is_read_only_into_memory_that_is_left(
    run: Run, caplog: pytest.LogCaptureFixture, buffer_frames: int, needed_frames: int
) -> None:
    """A decoder decodes at most all frames of the clip ahead."""
    run.decoder = decoder = LibraryDecoder()
    decoder.max_buffer_bytes = buffer_frames * 96 * 64 * 3
    needed = 16 * 2**20 + needed_frames * 96 * 64 * 3
    prepared = run.ahead.take(run.start(available_bytes=needed))
    assert prepared is not None
    prepared.frames.close()
    with caplog.at_level(logging.INFO, "aot.worker"):
        assert run.ahead.take(run.start(available_bytes=needed - 1)) is None
    assert "a: is not read ahead, which takes 0.02 GB of memory" in caplog.text
    assert len(decoder.opened) == 1
    assert decoder.loaded_in == [threading.main_thread()] * 2


def test_clip_is_opened_again_if_the_choice_of_its_decoder_may_be_due_to_another_file(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of FFmpeg does not say whether the damage is that of the clip that is computed meanwhile."""
    run.decoder = decoder = LibraryDecoder()
    decoder.is_uncertain = True
    with caplog.at_level(logging.INFO, "aot.worker"):
        assert run.ahead.take(run.start()) is None
    assert "a: is opened again in its turn" in caplog.text
    assert run.is_closed() == [True]
    assert [event["event"] for event in run.received] == ["reading ahead", "read ahead"]


def test_library_that_cannot_be_loaded_is_reported_in_the_clip_s_turn(run: Run) -> None:
    run.decoder = LibraryDecoder(ConfigError("no decord"))
    assert run.ahead.take(run.start()) is None
    assert run.received == []
