"""The clips of the prompt page: new files, and links that lead out of the folder of the dataset."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aot.errors import DatasetError, DecodeError
from aot.manifest.edit_file import ManifestFile
from aot.manifest.serialize import prompts_digest
from aot.paths import RunPaths
from aot.prompt.clips import ClipList, linked_outside
from aot.prompt.frames import ClipFrames, ShownFrame
from aot.prompt.server import PromptServer, Session
from aot.runs.ledger import Ledger
from aot.types import Clip, Prompt
from tests.decoding.coded_video import numbers_in, write_coded_video
from tests.synthetic import moving_square, write_video


class Folder:
    """Lists clips, of which a test adds more; counts how often, and takes a time for it."""

    def __init__(self) -> None:
        self.names, self.num_lists, self.seconds, self.now = ["a"], 0, 0.0, 0.0
        self.error: Exception | None = None

    def clips(self) -> list[Clip]:
        self.num_lists += 1
        self.now += self.seconds
        if self.error:
            raise self.error
        return [Clip(name, Path(f"{name}.mp4")) for name in self.names]


@pytest.fixture
def folder() -> Folder:
    return Folder()


@pytest.fixture
def listed(folder: Folder, tmp_path: Path) -> ClipList:
    first = folder.clips()
    manifest = ManifestFile(tmp_path / "prompts.yaml")
    return ClipList(first, manifest, RunPaths(tmp_path / "run"), folder.clips, now=lambda: folder.now)


def names(listed: ClipList) -> list[str]:
    return [state.clip_id for state in listed.states()[1]]


def test_new_files_appear_and_those_of_deleted_ones_stay(folder: Folder, listed: ClipList) -> None:
    revision = listed.states()[0]
    folder.names = ["b"]
    assert names(listed) == ["a"], "not looked for all the time"
    folder.now = 5.0
    assert names(listed) == ["a", "b"]
    assert listed.states()[0] != revision


def test_files_are_looked_for_less_often_where_it_takes_long(folder: Folder, listed: ClipList) -> None:
    folder.seconds, folder.now = 2.0, 5.0
    listed.states()
    for _ in range(3):
        folder.now += 10.0
        listed.states()
    assert folder.num_lists == 2, "20 times as long as looking has taken"
    folder.now += 10.0
    listed.states()
    assert folder.num_lists == 3


def test_a_folder_that_is_away_for_a_moment_keeps_its_clips(folder: Folder, listed: ClipList) -> None:
    folder.error, folder.now = DatasetError("no such folder"), 5.0
    assert names(listed) == ["a"]
    folder.error, folder.names, folder.now = None, ["a", "c"], 10.0
    assert names(listed) == ["a", "c"]


def test_links_that_lead_out_of_the_folder_are_found(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root / "frames", root / "inside", elsewhere):
        folder.mkdir(parents=True)
    for path in (elsewhere / "x.mp4", root / "own.mp4", root / "inside" / "0.png", elsewhere / "0.png"):
        path.touch()
    (root / "link.mp4").symlink_to(elsewhere / "x.mp4")
    (root / "within.mp4").symlink_to("own.mp4")
    (root / "day").symlink_to(elsewhere)
    (root / "frames" / "0.png").symlink_to(elsewhere / "0.png")
    (tmp_path / "root link").symlink_to(root)
    for start in (root, tmp_path / "root link"):
        sources = ["own.mp4", "within.mp4", "link.mp4", "day/x.mp4", "frames", "inside"]
        clips = [Clip(name, start / name) for name in sources]
        assert [clip.clip_id for clip in linked_outside(clips, start)] == ["link.mp4", "day/x.mp4", "frames"]


def test_nothing_is_decoded_for_an_obsolete_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = ClipFrames({"a": Clip("a", write_video(tmp_path / "a.mp4", moving_square(6)))})
    try:
        assert frames.shown("a", 2, is_obsolete=lambda: True) is None
        assert isinstance(frames.shown("a", 2, is_obsolete=lambda: False), ShownFrame)
        (opened,) = frames._open.values()
        assert list(opened.jpegs) == [2]
        assert opened.last_requested == 2
    finally:
        frames.close()


EPISODE = {"start_seconds": 0.8, "end_seconds": 1.6, "expected_frames": (20, 20)}
"""Of a video with 25 frames per second: its frames 20 to 39."""


@pytest.fixture
def episode(tmp_path: Path) -> Clip:
    return Clip("e", write_coded_video(tmp_path / "all.mp4", range(60)), **EPISODE)


def test_frames_of_an_episode_in_a_longer_video_are_numbered_as_in_the_manifest(episode: Clip) -> None:
    frames = ClipFrames({"e": episode})
    try:
        info = frames.info("e")
        assert (info.first, info.last) == (0, 19)
        assert [int(numbers_in(frames.rgb("e", frame)[None])[0]) for frame in (0, 7, 19)] == [20, 27, 39]
        shown = frames.shown("e", 7)
        assert shown is not None
        assert shown.time == pytest.approx(27 / 25)
        with pytest.raises(DecodeError, match="e: no frame 20; expected a frame from 0 to 19"):
            frames.rgb("e", 20)
    finally:
        frames.close()


def test_prompts_of_an_episode_are_compared_with_those_of_the_run(episode: Clip, tmp_path: Path) -> None:
    """A run records prompts with the frames of the video."""
    manifest = tmp_path / "prompts.yaml"
    manifest.write_text("clips: {e: {objects: [{id: 1, frame: 3, box: [1, 2, 30, 40]}]}}")
    run = RunPaths(tmp_path / "run")
    run.clip("e").result.parent.mkdir(parents=True)
    run.clip("e").result.touch()
    (run.root / "run.json").touch()
    for frame, state in ((3, "prompted"), (23, "done")):
        digest = prompts_digest((Prompt(1, frame, box=(1.0, 2.0, 30.0, 40.0)),))
        Ledger(run, f"w{frame}").append("done", clip_id="e", content={"prompts_sha256": digest})
        assert [each.state for each in ClipList([episode], ManifestFile(manifest), run).states()[1]] == [state]


class WaitingFrames:
    """Waits until a request is obsolete, as one does behind others."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def shown(self, clip_id: str, frame: int, *, is_obsolete: Any) -> None:
        self.begun.set()
        while not is_obsolete():
            threading.Event().wait(0.001)


def test_request_ends_on_the_server_when_the_browser_has_aborted_it() -> None:
    frames = WaitingFrames()
    clips: Any = SimpleNamespace(clips={"a": None})
    server = PromptServer(clips, frames, None, None, Session("", "", "", "", "", ""), token="secret")  # type: ignore[arg-type]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.to_thread(frames.begun.wait)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/secret/api/frame", "query_string": b"clip=a&frame=3",
        "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http", "root_path": "",
        "server": ("localhost", 80), "client": ("localhost", 1),
    }  # fmt: skip

    def serve() -> None:
        asyncio.run(asyncio.wait_for(server.app(scope, receive, send), timeout=60))  # type: ignore[arg-type]

    # Not in this thread, in which another test may keep an event loop: that of a browser.
    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert sent[0]["status"] == 204
