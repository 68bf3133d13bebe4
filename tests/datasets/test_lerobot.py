"""Small datasets in both layouts of LeRobot: one video per episode and camera, and several episodes per video."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from aot import prompts
from aot.datasets.base import Dataset, select_clips
from aot.datasets.lerobot import LeRobot
from aot.decoding import open_source
from aot.decoding.size import num_shown_frames, read_size
from aot.errors import ConfigError, DatasetError, DecodeError
from aot.types import Clip, Words
from tests.datasets.contract import DatasetContract
from tests.synthetic import moving_square, write_video

FPS = 30
TOP, WRIST = "observation.images.top", "observation.images.wrist"
LENGTHS = (7, 5, 9)
MANIFEST = """
clips:
  '*/observation.images.top':
    objects: [{id: 1, frame: 2, box: [12, 20, 32, 40], query_points: [[3, 24, 30]]}]
"""


def write_info(root: Path, version: str, video_path: str | None, **features: str) -> None:
    features = features or {TOP: "video", WRIST: "video", "action": "float32"}
    info = {
        "codebase_version": version, "fps": FPS, "chunks_size": 1000, "total_episodes": len(LENGTHS),
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": video_path,
        "features": {key: {"dtype": dtype, "shape": [64, 96, 3]} for key, dtype in features.items()},
    }  # fmt: skip
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    (root / "prompts.yaml").write_text(MANIFEST)


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    write_info(tmp_path, "v2.1", "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4")
    lines = [json.dumps({"episode_index": n, "tasks": ["pick"], "length": length}) for n, length in enumerate(LENGTHS)]
    (tmp_path / "meta" / "episodes.jsonl").write_text("\n".join(lines))
    for number, length in enumerate(LENGTHS):
        for camera in (TOP, WRIST):
            path = tmp_path / "videos" / "chunk-000" / camera / f"episode_{number:06d}.mp4"
            write_video(path, moving_square(length, seed=number), fps=FPS)
    return tmp_path


@pytest.fixture
def v3(tmp_path: Path) -> Path:
    """For both cameras, episodes 0 and 1 share a video file, and episode 2 has another."""
    write_info(tmp_path, "v3.0", "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4")
    rows: dict[str, list[Any]] = {"episode_index": [0, 1, 2], "length": list(LENGTHS)}
    starts, ends = [0, 7 / FPS, 0], [7 / FPS, 12 / FPS, 9 / FPS]
    for camera in (TOP, WRIST):
        for file, rgb in enumerate(
            [np.concatenate([moving_square(7, seed=0), moving_square(5, seed=1)]), moving_square(9, seed=2)]
        ):
            write_video(tmp_path / "videos" / camera / "chunk-000" / f"file-{file:03d}.mp4", rgb, fps=FPS)
        columns = {"chunk_index": [0, 0, 0], "file_index": [0, 0, 1], "from_timestamp": starts, "to_timestamp": ends}
        rows |= {f"videos/{camera}/{name}": values for name, values in columns.items()}
    path = tmp_path / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    return tmp_path


def dataset(root: Path, *cameras: str) -> LeRobot:
    return LeRobot(root, root / "prompts.yaml", cameras)


class TestContract(DatasetContract):
    @pytest.fixture(params=["v2", "v3"])
    def dataset(self, request: pytest.FixtureRequest) -> Dataset:
        root = request.getfixturevalue(request.param)
        return LeRobot(root, root / "prompts.yaml")


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_clip_contains_the_frames_of_its_episode_in_both_layouts(version: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(version)
    clips = dataset(root).clips()
    assert [clip.clip_id for clip in clips] == [
        f"episode_{n:06d}/{camera}" for n in range(3) for camera in (TOP, WRIST)
    ]
    for number, clip in enumerate(clips[::2]):
        with open_source(clip) as frames:
            assert len(frames.index) == LENGTHS[number]
            shown = next(iter(frames.blocks())).rgb
        grey = [moving_square(LENGTHS[number], seed=seed).mean(axis=-1) for seed in range(3)]
        errors = [np.abs(shown.mean(axis=-1) - expected).mean() for expected in grey]
        assert int(np.argmin(errors)) == number, "the frames of this episode"
        assert errors[number] < 0.5 * min(errors[:number] + errors[number + 1 :])
        (prompt,) = clip.prompts
        assert prompt.frame == frames.index[2], "frames in the manifest count from the first of the episode"
        assert prompt.query_points == ((int(frames.index[3]), 24, 30),)
    assert clips[1].prompts == ()


def test_cameras_are_selected_by_key(v3: Path) -> None:
    assert len(dataset(v3, TOP).clips()) == 3
    with pytest.raises(ConfigError, match=r"dataset\.cameras: 'observation\.image\.top' .*; did you mean obs"):
        dataset(v3, "observation.image.top").clips()


def test_missing_and_broken_files_are_reported(v3: Path) -> None:
    (v3 / "videos" / WRIST / "chunk-000" / "file-001.mp4").unlink()
    with pytest.raises(
        DatasetError, match=r"meta lists 1 missing video, starting with .*wrist/chunk-000/file-001\.mp4"
    ):
        dataset(v3).clips()
    assert len(dataset(v3, TOP).clips()) == 3
    path = v3 / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"episode_index": [0]}), path)
    with pytest.raises(DatasetError, match=r"file-000\.parquet: no column videos/observation\.images\.top/chunk_index"):
        dataset(v3, TOP).clips()
    path.write_text("not a parquet file")
    with pytest.raises(
        DatasetError, match=r"file-000\.parquet cannot be read: it is damaged, cut off, or not a parquet file; copy"
    ):
        dataset(v3, TOP).clips()
    path.unlink()
    with pytest.raises(DatasetError, match="no parquet file; expected chunk-000/file-000"):
        dataset(v3, TOP).clips()


@pytest.mark.parametrize(
    ("version", "features", "message"),
    [
        ("v1.6", {}, "codebase_version 'v1.6'; expected v2.1 or v3.0"),
        ("v3.0", {TOP: "image"}, "the cameras observation.images.top are stored as images"),
        ("v3.0", {"action": "float32"}, "no feature of dtype video; expected"),
    ],
)
def test_unsupported_datasets_are_refused(tmp_path: Path, version: str, features: dict[str, str], message: str) -> None:
    write_info(tmp_path, version, "videos/{video_key}.mp4", **features)
    with pytest.raises(DatasetError, match=message):
        dataset(tmp_path).clips()
    (tmp_path / "meta" / "info.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"info\.json: the key 'codebase_version' is missing; expected metadata of"):
        dataset(tmp_path).clips()


def test_v2_needs_its_list_of_episodes(v2: Path) -> None:
    (v2 / "meta" / "episodes.jsonl").write_text("{}")
    with pytest.raises(
        DatasetError, match=r"episodes\.jsonl, line 1, column 1: the key 'episode_index' is missing; expected"
    ):
        dataset(v2).clips()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": the file is empty; expected metadata of LeRobot"),
        ('{\n "fps": 3,\n}', ", line 3, column 1: not valid JSON: a key is missing or not valid here"),
        ("[]", ": a value is not of the expected type; expected metadata"),
        ('{"codebase_version": "v2.1", "fps": 0, "features": {}, "video_path": ""}', ": fps is 0.0 and chunks_size is"),
    ],
)
def test_broken_metadata_is_described_in_plain_words(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "meta" / "info.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(DatasetError) as caught:
        dataset(tmp_path).clips()
    assert str(caught.value).startswith(f"{path}{message}")
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"episode_index": 0}\n{"episode_index":\n', ", line 2, column 18: not valid JSON: a value is missing"),
        ('\n{"episode_index": "x"}\n', ", line 2, column 1: a value is not of the expected type"),
        ("\n", ": the file is empty; expected one line of JSON per episode"),
    ],
)
def test_a_broken_list_of_episodes_is_described_by_line(v2: Path, content: str, message: str) -> None:
    path = v2 / "meta" / "episodes.jsonl"
    path.write_text(content)
    with pytest.raises(DatasetError) as caught:
        dataset(v2).clips()
    assert str(caught.value).startswith(f"{path}{message}")


def test_an_episode_without_numbers_is_refused(v3: Path) -> None:
    path = next((v3 / "meta" / "episodes").rglob("*.parquet"))
    table = pyarrow.parquet.read_table(path)
    empty = pyarrow.nulls(len(table), table.schema.field("episode_index").type)
    pyarrow.parquet.write_table(
        table.set_column(table.schema.get_field_index("episode_index"), "episode_index", empty), path
    )
    with pytest.raises(DatasetError, match=r"parquet: episode_index is None; expected a number for every episode"):
        dataset(v3).clips()


def change_episodes(v3: Path, **columns: list[Any]) -> None:
    path = next((v3 / "meta" / "episodes").rglob("*.parquet"))
    rows = pyarrow.parquet.read_table(path).to_pydict()
    pyarrow.parquet.write_table(pyarrow.table(rows | columns), path)


def test_an_episode_without_times_is_named_and_the_others_are_clips(v3: Path) -> None:
    change_episodes(v3, **{f"videos/{TOP}/from_timestamp": [0.0, None, 0.0]})
    lerobot = dataset(v3, TOP)
    assert [bool(clip.prompts) for clip in lerobot.clips()] == [True, False, True]
    assert list(lerobot.unusable) == [f"episode_000001/{TOP}"]
    assert f"videos/{TOP}/from_timestamp is None" in lerobot.unusable[f"episode_000001/{TOP}"]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_an_episode_with_a_frame_too_few_is_refused(version: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(version)
    if version == "v3":
        change_episodes(root, length=[7, 6, 9])
    else:
        lines = [json.dumps({"episode_index": n, "length": length}) for n, length in enumerate((7, 6, 9))]
        (root / "meta" / "episodes.jsonl").write_text("\n".join(lines))
    first, second, _ = dataset(root, TOP).clips()
    open_source(first).close()
    with pytest.raises(
        DecodeError, match=r"has 5 frames, from frame \d on; expected those from frame \d on, 6 of them"
    ):
        open_source(second)


def delay_video(v3: Path) -> None:
    """Let the container of episodes 0 and 1 start at 0.1 s; the episode list begins at 0."""
    path = v3 / "videos" / TOP / "chunk-000" / "file-000.mp4"
    moved = path.with_name("moved.mp4")
    with av.open(str(path)) as source, av.open(str(moved), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.pts += round(0.1 / packet.time_base)
                packet.dts += round(0.1 / packet.time_base)
                packet.stream = stream
                target.mux(packet)
    moved.replace(path)


def test_times_may_count_from_the_first_frame_of_a_video(v3: Path) -> None:
    delay_video(v3)
    second = dataset(v3, TOP).clips()[1]
    with open_source(second) as frames:
        assert frames.time[0] == pytest.approx(7 / FPS + 0.1, abs=1e-3)
        assert frames.index.tolist() == [7, 8, 9, 10, 11]
    assert second.prompts[0].frame == 7 + 2


def test_words_are_looked_up_on_frames_of_the_episode(
    v3: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (v3 / "prompts.yaml").write_text("clips: {'*': {objects: [{id: 1, text: square, frames: [2, 0]}]}}\n")
    (prompt,) = dataset(v3, TOP).clips()[1].prompts
    assert (prompt.frame, prompt.words) == (7 + 2, Words("square", (7 + 2, 7)))
    (v3 / "options" / "detector").mkdir(parents=True)
    (v3 / "options" / "detector" / "square.yaml").write_text("# Squares.\n_target_: tests.fakes.SquareDetector\n")
    monkeypatch.chdir(v3)
    command = (
        f"detect dataset=lerobot dataset.root={v3} detector=square --config-dir options --text square --out a.yaml "
        f"dataset.cameras=[{TOP}]"
    )
    assert prompts.main(shlex.split(command)) == 0, capsys.readouterr()
    (v3 / "prompts.yaml").write_bytes((v3 / "a.yaml").read_bytes())
    (prompt,) = dataset(v3, TOP).clips()[1].prompts
    assert (prompt.frame, prompt.box) == (7, pytest.approx((8, 20, 28, 40), abs=1))


def part_of_episode(root: Path, number: int, start: float | None, end: float | None) -> Clip:
    """A clip as a run with dataset.start_seconds and dataset.end_seconds selects it."""
    clips = dataset(root, TOP).clips()
    return select_clips(clips, include=(), exclude=(), limit=None, start_seconds=start, end_seconds=end)[number]


@pytest.mark.parametrize("is_delayed", [False, True])
@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(2 / FPS, None, [9, 10, 11]), (None, 2 / FPS, [7, 8]), (1 / FPS, 3 / FPS, [8, 9]), (-1, 9, [7, 8, 9, 10, 11])],
)
def test_time_range_of_a_run_counts_from_the_start_of_the_episode(
    v3: Path, is_delayed: bool, start: float | None, end: float | None, expected: list[int]
) -> None:
    if is_delayed:
        delay_video(v3)
    second = part_of_episode(v3, 1, start, end)
    with open_source(second) as frames:
        assert frames.index.tolist() == expected
    assert num_shown_frames(read_size(second.source), second) == len(expected)


def test_time_range_after_the_end_of_an_episode_is_refused(v3: Path) -> None:
    message = r"no frame from start_seconds=0\.2 on of the clip '.*', whose 5 frames take 0\.133 s: choose a range"
    with pytest.raises(DecodeError, match=message):
        open_source(part_of_episode(v3, 1, 0.2, None))


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_an_episode_with_a_frame_too_few_is_refused_whatever_the_time_range(
    version: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(version)
    name = {"v2": f"chunk-000/{TOP}/episode_000001.mp4", "v3": f"{TOP}/chunk-000/file-000.mp4"}[version]
    write_video(root / "videos" / name, moving_square({"v2": 4, "v3": 11}[version]), fps=FPS)
    with pytest.raises(DecodeError, match="has 4 frames"):
        open_source(part_of_episode(root, 1, 0.0, 1 / FPS))
