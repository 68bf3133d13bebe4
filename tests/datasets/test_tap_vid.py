"""Small pickles in the formats of TAP-Vid: dictionaries and lists, raw and encoded frames; and malicious pickles."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aot.datasets.base import Dataset
from aot.datasets.tap_vid import TapVid
from aot.decoding import open_source
from aot.errors import DatasetError
from aot.types import QueryPoints, UInt8Array
from tests.datasets.contract import DatasetContract
from tests.synthetic import moving_square

WIDTH, HEIGHT, NUM_FRAMES = 96, 64, 12


def example(encoded: bool = False) -> dict[str, Any]:
    """Two points: one moves right and is hidden on frames 0 and 5, the other is at the frame's upper left corner."""
    video: UInt8Array = moving_square(NUM_FRAMES)
    points = np.zeros((2, NUM_FRAMES, 2))
    points[0, :, 0] = 0.25 + np.arange(NUM_FRAMES) * 2 / WIDTH
    points[0, :, 1] = 0.5
    occluded = np.zeros((2, NUM_FRAMES), dtype=bool)
    occluded[0, [0, 5]] = True
    return {"video": [jpeg(frame) for frame in video] if encoded else video, "points": points, "occluded": occluded}


def jpeg(frame: UInt8Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=98, subsampling=0)
    return stream.getvalue()


def write(path: Path, content: Any, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def tapvid(path: Path, **options: Any) -> TapVid:
    return TapVid(path, path.parent / "unpacked", **options)


class TestContract(DatasetContract):
    @pytest.fixture(params=["first", "strided"])
    def dataset(self, tmp_path: Path, request: pytest.FixtureRequest) -> Dataset:
        path = write(tmp_path / "davis.pkl", {"goat": example(), "sheep": example(encoded=True)})
        return TapVid(path, tmp_path / "unpacked", queries=request.param)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("encoded", [False, True])
def test_dictionary_in_any_protocol(tmp_path: Path, encoded: bool, protocol: int) -> None:
    (clip,) = tapvid(write(tmp_path / "davis.pkl", {"goat": example(encoded)}, protocol)).clips()
    assert clip.clip_id == "goat"
    with open_source(clip) as frames:
        assert (frames.width, frames.height, len(frames.index)) == (WIDTH, HEIGHT, NUM_FRAMES)
        difference = np.abs(frames.read([7]).rgb[0].astype(int) - moving_square(NUM_FRAMES)[7])
    assert difference.max() <= (40 if encoded else 0)
    assert difference.mean() < 4


def test_first_queries_are_on_the_first_visible_frame(tmp_path: Path) -> None:
    (clip,) = tapvid(write(tmp_path / "davis.pkl", {"goat": example()})).clips()
    (prompt,) = clip.prompts
    # 0.25 · 96 − 0.5 = 23.5 px on frame 0; the upper left corner of the frame is half a pixel before (0, 0).
    assert prompt.query_points == ((1, 25.5, 31.5), (0, -0.5, -0.5))
    assert (prompt.object_id, prompt.frame) == (1, 0)


def test_strided_queries_are_on_every_fifth_visible_frame(tmp_path: Path) -> None:
    (clip,) = tapvid(write(tmp_path / "davis.pkl", {"goat": example()}), queries="strided").clips()
    frames = [(query[0], query[1] > 0) for query in clip.prompts[0].query_points]
    assert frames == [(0, False), (5, False), (10, True), (10, False)]


@pytest.mark.parametrize("queries", ["first", "strided"])
def test_every_query_is_annotated(tmp_path: Path, queries: str) -> None:
    dataset = tapvid(write(tmp_path / "davis.pkl", {"goat": example()}), queries=queries)
    (clip,) = dataset.clips()
    truth = dataset.ground_truth("goat")
    assert truth is not None
    assert truth.query_mode == queries
    txy = np.array(clip.prompts[0].query_points, dtype=np.float32)
    tracks = truth.tracks(QueryPoints(txy, np.ones(len(txy), dtype=np.int32)), np.arange(NUM_FRAMES, dtype=np.int64))
    assert tracks is not None
    assert tracks.annotated.all()
    moving = int(np.flatnonzero(txy[:, 1] > 0)[0])
    assert np.flatnonzero(~tracks.visible[:, moving]).tolist() == [0, 5]
    np.testing.assert_allclose(tracks.xy[:, moving, 0], 23.5 + 2 * np.arange(NUM_FRAMES), atol=1e-3)
    assert dataset.ground_truth("sheep") is None


def test_lists_and_several_pickles(tmp_path: Path) -> None:
    folder = tmp_path / "pickles"
    folder.mkdir()
    write(folder / "rgb_stacking.pkl", [example(), example()])
    write(folder / "robotap_split0.pkl", {"cup": example(encoded=True)})
    dataset = TapVid(folder, tmp_path / "unpacked")
    assert [clip.clip_id for clip in dataset.clips()] == ["rgb_stacking_00000", "rgb_stacking_00001", "cup"]
    assert dataset.ground_truth("rgb_stacking_00001") is not None
    assert dataset.ground_truth("cup") is not None


def test_pickle_is_unpacked_once_and_again_after_a_change(tmp_path: Path) -> None:
    path = write(tmp_path / "davis.pkl", {"goat": example()})
    tapvid(path).clips()
    frame = tmp_path / "unpacked" / "davis" / "goat" / "frames" / "00000.png"
    before = frame.stat().st_mtime_ns
    tapvid(path).clips()
    assert frame.stat().st_mtime_ns == before
    write(path, {"sheep": example()})
    assert [clip.clip_id for clip in tapvid(path).clips()] == ["sheep"]
    assert not frame.exists()
    assert sorted(entry.name for entry in (tmp_path / "unpacked").iterdir()) == ["davis"], "no unfinished folder"


class Malicious:
    """Unpickling this object runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "davis.pkl", {"goat": example() | {"points": Malicious()}}, protocol)
    with pytest.raises(
        DatasetError, match=r"davis\.pkl cannot be read: it uses posix\.mkdir, which arrays do not need; expected"
    ):
        tapvid(path).clips()
    assert not (tmp_path / "owned").exists()
    assert not list(tmp_path.glob("unpacked/*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((2, 3, 2))}, r"clip 'goat': got 12 frames, points \(2, 3, 2\)"),
        ({"points": np.full((2, NUM_FRAMES, 2), 40.0)}, r"visible points outside 0\.\.1"),
        ({"video": np.zeros((NUM_FRAMES, 4, 4, 3))}, r"frame 0 is \(4, 4, 3\) float64; expected \(H, W, 3\) uint8"),
        ({"video": [np.zeros((0, 4, 3), np.uint8)] * NUM_FRAMES}, r"frame 0 is \(0, 4, 3\) uint8"),
        ({"video": 3}, r"got 0 frames"),
        ({"points": [[1, 2], [3]]}, r"points cannot be converted to numbers; expected an array"),
        ({"video": [b"\xff\xd8not an image"] * NUM_FRAMES}, r"frame 0 cannot be decoded"),
        ({"video": [b"GIF89a"] * NUM_FRAMES}, r"frame 0 starts with b'GIF8'; expected JPEG or PNG"),
    ],
)
def test_malformed_clips_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "davis.pkl", {"goat": example() | change})
    with pytest.raises(DatasetError, match=message):
        tapvid(path).clips()
    assert not list(tmp_path.glob("unpacked/*"))


@pytest.mark.parametrize("name", ["..", ".", "", "unpacked.json", "a\nb", "x" * 300, "\udce9"])
def test_names_that_cannot_be_folders_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"cannot be a folder name"):
        tapvid(write(tmp_path / "davis.pkl", {"goat": example(), name: example()})).clips()
    assert not list(tmp_path.glob("unpacked/*"))


def test_names_with_the_same_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"several clips have the folder name 'a_b'"):
        tapvid(write(tmp_path / "davis.pkl", {"a/b": example(), "a_b": example()})).clips()


def test_other_content_is_refused(tmp_path: Path) -> None:
    incomplete = {key: value for key, value in example().items() if key != "occluded"}
    with pytest.raises(DatasetError, match=r"clip 'goat' has no occluded"):
        tapvid(write(tmp_path / "a.pkl", {"goat": incomplete})).clips()
    with pytest.raises(DatasetError, match=r"contains int; expected a dictionary or a list"):
        tapvid(write(tmp_path / "b.pkl", 3)).clips()
    for cut_off in (b"", b"\x80\x04"):
        (tmp_path / "c.pkl").write_bytes(cut_off)
        with pytest.raises(
            DatasetError, match=r"c\.pkl cannot be read: it is empty or cut off; expected a TAP-Vid pickle"
        ):
            tapvid(tmp_path / "c.pkl").clips()
    (tmp_path / "c.pkl").write_bytes(b"not a pickle")
    with pytest.raises(
        DatasetError, match=r"c\.pkl cannot be read: it is damaged or not a pickle; expected a TAP-Vid pickle"
    ):
        tapvid(tmp_path / "c.pkl").clips()
    with pytest.raises(DatasetError, match=r"dataset\.path=.*none does not exist; expected a TAP-Vid pickle"):
        tapvid(tmp_path / "none").clips()
