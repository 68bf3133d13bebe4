"""Write-back into LeRobot datasets of both layouts, read by our own reader, by pyarrow and by PyAV."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import aot
from aot import run
from aot.datasets.lerobot import EpisodeVideo, LeRobot
from aot.decoding import open_source
from aot.errors import ExportError
from aot.export import __main__ as export
from aot.export.base import ExportedClip
from aot.export.lerobot import folder as folders
from aot.export.lerobot import statistics
from aot.export.lerobot.episodes import Episode, Facts, camera_metadata, check_clip, chosen
from aot.export.lerobot.features import names_of
from aot.export.lerobot.labels import labels_of, npz_paths
from aot.export.lerobot.metadata import Info
from aot.types import Clip, ClipResult
from tests.command_line import EMBEDDED
from tests.datasets.lerobot_made import FPS, HEIGHT, LENGTHS, TOP, WIDTH, WRIST, make
from tests.results import write_result

NUM_POINTS = 20
TRACKS, MASKS, PATH = "observation.tracks.top", "observation.masks.top", "annotation.masks.top.path"
VERSIONS = ["v2.1", "v3.0"]


def process(root: Path, out: Path, *options: str) -> Path:
    """Process a dataset with the embedded models; returns the run folder."""
    paths = [f"dataset.root='{root}'", f"output.root='{out}'", "output.overlay=false"]
    points = f"query_points.num_points={NUM_POINTS}"
    assert run.main(["dataset=lerobot", *EMBEDDED, *paths, points, *options]) == 0
    (found,) = (out / "lerobot").iterdir()
    return found


@pytest.fixture(scope="module", params=VERSIONS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset with one camera, and a run that has processed it."""
    root = tmp_path_factory.mktemp("made")
    dataset = make(root / "dataset", request.param)
    return dataset, process(dataset, root / "out")


@pytest.fixture(scope="module")
def made_v3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("made_v3")
    dataset = make(root / "dataset", "v3.0")
    return dataset, process(dataset, root / "out")


def rows_of(root: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """(episode, frame) → row, of all data files."""
    paths = sorted((root / "data").rglob("*.parquet"))
    rows = [row for path in paths for row in pyarrow.parquet.read_table(path).to_pylist()]
    return {(row["episode_index"], row["frame_index"]): row for row in rows}


def features_of(root: Path) -> dict[str, Any]:
    features: dict[str, Any] = json.loads((root / "meta" / "info.json").read_text())["features"]
    return features


def label_frames(path: Path) -> np.ndarray:
    """(T, H, W, 3) of a label video, checked to be shown at multiples of 1 / FPS."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(len(frames)) / FPS, atol=1e-4)
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def result_of(run_folder: Path, episode: int, camera: str = TOP) -> ClipResult:
    return aot.load(run_folder / "clips" / f"episode_{episode:06d}" / f"{camera}.h5")


def first_frame(root: Path, episode: int, camera: str = TOP) -> int:
    videos = LeRobot(root, root / "prompts.yaml", [camera]).videos()
    return next(video.first_frame for video in videos if video.number == episode)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_every_frame_gets_its_tracks_and_masks(made: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run_folder = made
    before = tree(dataset)
    out = tmp_path / "copy"
    assert export.main([str(run_folder), "--format", "lerobot", "--out", str(out)]) == 0
    assert tree(dataset) == before, "the source is not changed"
    rows, old_rows = rows_of(out), rows_of(dataset)
    assert rows.keys() == old_rows.keys()
    videos = {v.number: v for v in LeRobot(out, out / "prompts.yaml").videos()}
    is_v3 = (out / "meta" / "episodes").is_dir()
    for episode, length in enumerate(LENGTHS):
        result, first = result_of(run_folder, episode), first_frame(dataset, episode)
        if is_v3:
            path = f"{MASKS}/chunk-000/file-{videos[episode].file[1]:03d}.mp4"
        else:
            path = f"chunk-000/{MASKS}/episode_{episode:06d}.mp4"
        labels = label_frames(out / "videos" / path)[first : first + length]
        for frame in range(length):
            row = rows[episode, frame]
            assert row.items() >= old_rows[episode, frame].items()
            np.testing.assert_array_equal(row[TRACKS], result.tracks.xy[frame])
            np.testing.assert_array_equal(row[f"{TRACKS}.visible"], result.lifetimes.valid[frame])
            np.testing.assert_array_equal(row[f"{TRACKS}.object_id"], result.track_object_id)
            assert np.array_equal(labels[frame], np.repeat(result.masks[frame, 0][..., None], 3, axis=-1))
    with open_source(videos[1].clip) as frames:
        assert len(frames.index) == LENGTHS[1], "the videos are copied"
    assert [video.camera for video in videos.values()] == [TOP] * 3, "a label video is no camera"


def test_the_features_describe_themselves(made: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run_folder = made
    assert export.main([str(run_folder), "--format", "lerobot", "--out", str(tmp_path / "copy")]) == 0
    features = features_of(tmp_path / "copy")
    old = features_of(dataset)
    assert {name: features[name] for name in old} == old
    tracks = features[TRACKS]
    assert (tracks["dtype"], tracks["shape"]) == ("float32", [NUM_POINTS, 2])
    assert (features[f"{TRACKS}.visible"]["dtype"], features[f"{TRACKS}.visible"]["shape"]) == ("bool", [NUM_POINTS])
    assert features[f"{TRACKS}.object_id"]["dtype"] == "int64"
    for feature in (tracks, features[MASKS]):
        described = feature["info"]["aot"]
        assert described["camera"] == TOP
        assert described["image_size"] == {"width": WIDTH, "height": HEIGHT}
        assert "pixel centres at integers" in described["coordinates"]
        assert described["models"] == {"segmenter": "grabcut", "tracker": "lucas_kanade"}
        assert described["weights"] == []
        assert described["objects"] == {"1": ["square"]}
    assert (features[MASKS]["dtype"], features[MASKS]["shape"]) == ("video", [HEIGHT, WIDTH, 3])
    assert features[MASKS]["info"]["video.fps"] == FPS


def test_frames_that_were_not_kept_are_invisible(tmp_path: Path) -> None:
    dataset = make(tmp_path / "dataset", "v3.0")
    run_folder = process(dataset, tmp_path / "out", "frame_interval=2", "dataset.include=['episode_000001/*']")
    arguments = [str(run_folder), "--format", "lerobot", "--out", str(tmp_path / "copy"), "--points", "24"]
    assert export.main(arguments) == 0
    rows, result = rows_of(tmp_path / "copy"), result_of(run_folder, 1)
    kept = (result.index - 7).tolist()
    assert 0 < len(kept) < LENGTHS[1]
    labels = label_frames(tmp_path / "copy" / "videos" / MASKS / "chunk-000" / "file-000.mp4")
    for (episode, frame), row in rows.items():
        has_tracks = episode == 1 and frame in kept
        assert (np.array(row[TRACKS]) != -1).all(axis=1).tolist() == [has_tracks] * NUM_POINTS + [False] * 4
        assert not any(row[f"{TRACKS}.visible"][NUM_POINTS:])
        assert has_tracks or not any(row[f"{TRACKS}.visible"])
        assert row[f"{TRACKS}.object_id"] == [int(episode == 1)] * NUM_POINTS + [0] * 4
        if episode < 2:
            assert (labels[frame + 7 * episode] == 255).all() == (not has_tracks)


def test_fewer_points_are_taken_at_equal_distances(made_v3: tuple[Path, Path], tmp_path: Path) -> None:
    _, run_folder = made_v3
    arguments = ["--format", "lerobot", "--out", str(tmp_path / "copy"), "--masks", "none"]
    assert export.main([str(run_folder), *arguments, "--points", "5"]) == 0
    assert not [name for name in features_of(tmp_path / "copy") if "masks" in name]
    xy = result_of(run_folder, 2).tracks.xy[:, chosen(NUM_POINTS, 5)]
    np.testing.assert_array_equal(rows_of(tmp_path / "copy")[2, 3][TRACKS], xy[3])
    assert chosen(NUM_POINTS, 5).tolist() == [0, 5, 10, 14, 19]
    assert export.main([str(run_folder), *arguments, "--points", "1"]) == 0
    row = rows_of(tmp_path / "copy")[2, 3]
    assert (np.shape(row[TRACKS]), row[f"{TRACKS}.visible"]) == ((1, 2), True), "LeRobot stores shape (1,) as a value"


def test_masks_as_npz_files(made: tuple[Path, Path], tmp_path: Path) -> None:
    _, run_folder = made
    out = tmp_path / "copy"
    assert export.main([str(run_folder), "--format", "lerobot", "--out", str(out), "--masks", "npz"]) == 0
    assert not list((out / "videos").rglob(f"*{MASKS}*"))
    assert features_of(out)[PATH]["dtype"] == "string"
    rows = rows_of(out)
    for (episode, frame), row in rows.items():
        with np.load(out / row[PATH]) as arrays:
            masks = np.unpackbits(arrays[f"{frame:06d}"], axis=-1, count=WIDTH).view(bool)
            assert (arrays["object_id"].tolist(), arrays["size"].tolist()) == ([1], [HEIGHT, WIDTH])
        assert np.array_equal(masks, result_of(run_folder, episode).masks[frame])


def test_statistics_are_those_of_the_positions(made: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run_folder = made
    out = tmp_path / "copy"
    clips = ["episode_000000/*", "episode_000002/*"]
    assert export.main([str(run_folder), "--format", "lerobot", "--out", str(out), "--clips", *clips]) == 0
    xy = {episode: result_of(run_folder, episode).tracks.xy for episode in (0, 2)}
    path = out / "meta" / "episodes_stats.jsonl"
    if path.is_file():
        episodes = [json.loads(line)["stats"] for line in path.read_text().splitlines()]
        assert {*episodes[0]} >= {TRACKS, f"{TRACKS}.visible", f"{TRACKS}.object_id", MASKS}
        assert {*episodes[0][TRACKS]} == {*episodes[0]["action"]}, "v2.1 has no quantiles"
        old = [json.loads(line)["stats"] for line in (dataset / "meta" / path.name).read_text().splitlines()]
    else:
        (path,) = (out / "meta" / "episodes").rglob("*.parquet")
        episodes = [nested(row) for row in pyarrow.parquet.read_table(path).to_pylist()]
        old = [nested(row) for row in pyarrow.parquet.read_table(dataset / path.relative_to(out)).to_pylist()]
        total = json.loads((out / "meta" / "stats.json").read_text())
        assert {*total} - {*json.loads((dataset / "meta" / "stats.json").read_text())} == {TRACKS, MASKS}
        assert total[TRACKS]["count"] == [LENGTHS[0] + LENGTHS[2]]
        means = [xy[episode].mean(axis=(0, 1)) * LENGTHS[episode] for episode in (0, 2)]
        expected = sum(means) / (LENGTHS[0] + LENGTHS[2])
        np.testing.assert_allclose(total[TRACKS]["mean"], np.tile(expected, (NUM_POINTS, 1)), rtol=1e-4)
        assert np.shape(total[MASKS]["q99"]) == (3, 1, 1)
    for episode in (0, 1, 2):
        assert {name: episodes[episode][name] for name in old[episode]} == old[episode]
        stats = episodes[episode][TRACKS]
        assert np.shape(stats["mean"]) == (NUM_POINTS, 2)
        if episode == 1:
            assert stats["count"] == [0]
        else:
            assert stats["count"] == [LENGTHS[episode]]
            np.testing.assert_allclose(stats["max"], np.tile(xy[episode].max(axis=(0, 1)), (NUM_POINTS, 1)), rtol=1e-5)
            np.testing.assert_allclose(stats["std"], np.tile(xy[episode].std(axis=(0, 1)), (NUM_POINTS, 1)), rtol=1e-3)
        labels = episodes[episode][MASKS]
        expected_max = 1.0 if episode == 1 else 1 / 255
        np.testing.assert_allclose(labels["max"], np.full((3, 1, 1), expected_max), rtol=1e-5)


def nested(row: dict[str, Any]) -> dict[str, Any]:
    """Feature → statistics, from the columns of an episode."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name.startswith("stats/"):
            feature, _, statistic = name.removeprefix("stats/").rpartition("/")
            found.setdefault(feature, {})[statistic] = value
    return found


def test_in_place_replaces_the_dataset_and_its_own_features(made: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run_folder = made
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    (root / "notes").mkdir()
    (root / "notes" / "mine.txt").write_text("mine")
    video = next((root / "videos").rglob("*.mp4"))
    inode = video.stat().st_ino
    arguments = [str(run_folder), "--format", "lerobot", "--in-place", "--dataset", str(root)]
    assert export.main([*arguments, "--masks", "npz"]) == 0
    assert video.stat().st_ino == inode, "videos are not copied"
    assert (root / "notes" / "mine.txt").read_text() == "mine"
    assert PATH in features_of(root)
    assert export.main([*arguments, "--points", "3"]) == 0
    features = features_of(root)
    assert PATH not in features
    assert not list((root / "masks").glob("*"))
    assert features[TRACKS]["shape"] == [3, 2]
    assert set(rows_of(root)[0, 0]) == {*rows_of(dataset)[0, 0], TRACKS, f"{TRACKS}.visible", f"{TRACKS}.object_id"}
    assert export.main([*arguments, "--masks", "none"]) == 0
    assert not list((root / "videos").rglob(f"*{MASKS}*"))
    for path in root.rglob("*.parquet"):
        schema = pyarrow.parquet.ParquetFile(path).schema_arrow
        assert not [name for name in schema.names if "masks" in name]
        assert b"masks" not in (schema.metadata or {}).get(b"huggingface", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"], "no temporary folder is left"


@pytest.mark.slow
def test_another_camera_is_added_beside_the_first(tmp_path: Path) -> None:
    dataset = make(tmp_path / "dataset", "v3.0", cameras=(TOP, WRIST))
    for number, camera in enumerate((TOP, WRIST)):
        run_folder = process(dataset, tmp_path / f"out{number}", f"dataset.cameras=[{camera}]")
        assert export.main([str(run_folder), "--format", "lerobot", "--in-place"]) == 0
    names = set(features_of(dataset))
    assert {TRACKS, MASKS, "observation.tracks.wrist", "observation.masks.wrist"} <= names
    assert {*names} >= {*rows_of(dataset)[0, 0]} >= {TRACKS, "observation.tracks.wrist.object_id"}
    copy = tmp_path / "copy"
    first = next((tmp_path / "out0" / "lerobot").iterdir())
    assert export.main([str(first), "--format", "lerobot", "--out", str(copy)]) == 0
    assert {TRACKS, "observation.tracks.wrist"} <= set(features_of(copy))
    assert export.main([str(first), "--format", "lerobot", "--out", str(copy)]) == 0, "the dataset has both cameras"


KILLED = """
import os, signal, sys
from pathlib import Path
from aot.export import __main__ as export
from aot.export.lerobot import folder, tables, write_back

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

point, *arguments = sys.argv[1:]
if point == "after a data file":
    add_columns, files = write_back.add_columns, []
    def add(source, *args, **kwargs):
        files.append(source)
        die() if len(files) == 2 else add_columns(source, *args, **kwargs)
    write_back.add_columns = add
elif point == "before the replacement":
    folder._replace = die
else:
    folder._exchanged = lambda *_: False
    rename = Path.rename
    Path.rename = lambda path, target: die() if path.suffix == ".part" else rename(path, target)
export.main(arguments)
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after a data file", "before the replacement", "between two names"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_killed_export_leaves_the_dataset(
    made_v3: tuple[Path, Path], tmp_path: Path, point: str, in_place: bool
) -> None:
    dataset, run_folder = made_v3
    root, out = tmp_path / "dataset", tmp_path / "copy"
    shutil.copytree(dataset, root)
    arguments = [str(run_folder), "--format", "lerobot", "--dataset", str(root)]
    arguments += ["--in-place"] if in_place else ["--out", str(out)]
    killed = subprocess.run([sys.executable, "-c", KILLED, point, *arguments], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-1000:]
    assert not out.exists()
    if in_place and point == "between two names":
        assert tree(tmp_path / f".{root.name}-aot-previous.part") == tree(dataset), "complete under another name"
    else:
        assert tree(root) == tree(dataset)
        assert len(LeRobot(root, root / "prompts.yaml").clips()) == 3
    assert export.main(arguments) == 0, "the same command completes it"
    assert TRACKS in features_of(root if in_place else out)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "what was left is removed"


def test_file_systems_that_cannot_exchange_names_or_link_files(
    made_v3: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    arguments = [str(run_folder), "--format", "lerobot", "--in-place", "--dataset", str(root)]
    monkeypatch.setattr(folders, "_exchanged", lambda *_: False)
    assert export.main(arguments) == 0
    assert TRACKS in features_of(root)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    before = tree(root)
    monkeypatch.setattr("os.link", refuse)
    assert "do not allow hard links; write a copy with --out FOLDER" in refused(arguments, capsys)
    assert tree(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_broken_and_circular_links_are_kept(made_v3: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run_folder = made_v3
    root, out = tmp_path / "dataset", tmp_path / "copy"
    shutil.copytree(dataset, root)
    (root / "broken").symlink_to("nowhere")
    (root / "meta" / "circle").symlink_to("..")
    (root / "file").symlink_to("README.md")
    assert export.main([str(run_folder), "--format", "lerobot", "--dataset", str(root), "--out", str(out)]) == 0
    assert (out / "broken").readlink() == Path("nowhere")
    assert (out / "meta" / "circle").readlink() == Path("..")
    assert not (out / "file").is_symlink()
    assert (out / "file").read_bytes() == (root / "README.md").read_bytes()
    (root / "meta" / "circle").unlink()
    assert export.main([str(run_folder), "--format", "lerobot", "--dataset", str(root), "--in-place"]) == 0
    assert [(root / name).is_symlink() for name in ("broken", "file")] == [True, True]


@pytest.mark.parametrize("target", ["--in-place", "--out"])
def test_a_folder_that_cannot_be_listed_is_not_left_out(
    made_v3: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    (root / "closed").mkdir()
    scan = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", scandir)
    arguments = [str(run_folder), "--format", "lerobot", "--dataset", str(root), target]
    arguments += [str(tmp_path / "copy")] if target == "--out" else []
    assert "closed cannot be read: no permission; a dataset is exported only completely" in refused(arguments, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset"]


def test_a_dataset_that_changes_meanwhile_is_not_replaced(
    made_v3: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    fill = folders._fill

    def fill_and_record(*args: Any, **kwargs: Any) -> None:
        fill(*args, **kwargs)
        (root / "data" / "chunk-000" / "file-002.parquet").write_bytes(b"new")

    monkeypatch.setattr(folders, "_fill", fill_and_record)
    assert export.main([str(run_folder), "--format", "lerobot", "--in-place", "--dataset", str(root)]) == 2
    assert "its files have changed during the export" in capsys.readouterr().err
    assert (root / "data" / "chunk-000" / "file-002.parquet").read_bytes() == b"new"
    assert TRACKS not in features_of(root)


def test_two_names_are_exchanged_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert folders._exchanged(tmp_path / "a", tmp_path / "b"), "the file system of the tests can do it"
    assert [(tmp_path / name).exists() for name in ("a/b", "b/a")] == [True, True]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert export.main(arguments) == 2
    return capsys.readouterr().err


def test_another_dataset_is_refused(
    made_v3: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run_folder = made_v3
    arguments = [str(run_folder), "--format", "lerobot", "--out", str(tmp_path / "copy"), "--dataset"]
    other = make(tmp_path / "other", "v2.1", lengths=(7, 5, 8))
    message = refused([*arguments, str(other)], capsys)
    assert "has the SHA-256 " in message
    assert "the dataset is another one, or has changed since the run" in message
    assert "Nothing was written." in message
    shorter = make(tmp_path / "shorter", "v2.1", lengths=(2, 2))
    message = refused([*arguments, str(shorter)], capsys)
    assert "the result has frames 0 to 6 of the video, and the episode consists of frames 0 to 1;" in message
    assert "episode_000002/observation.images.top: the dataset has no such episode; it has episodes 0 to 1" in message
    wrist = make(tmp_path / "wrist", "v3.0", cameras=("observation.images.tip",))
    message = refused([*arguments, str(wrist)], capsys)
    assert "the dataset has no camera 'observation.images.top'; did you mean observation.images.tip?" in message
    assert f"{tmp_path}: no meta/info.json; expected the folder of a LeRobot dataset\n" in refused(
        [*arguments, str(tmp_path)], capsys
    )
    assert not (tmp_path / "copy").exists()


def test_a_dataset_whose_frames_do_not_match_its_episodes_is_refused(
    made_v3: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    path = root / "data" / "chunk-000" / "file-000.parquet"
    arguments = [str(run_folder), "--format", "lerobot", "--in-place", "--dataset", str(root)]
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.slice(0, 11), path)
    assert "episode 1 has 4 rows, and its length in meta is 5" in refused(arguments, capsys)
    pyarrow.parquet.write_table(table.drop_columns(["frame_index"]), path)
    assert "no column frame_index; expected one row per frame" in refused(arguments, capsys)
    path.write_bytes(b"PAR1")
    assert "it is damaged, cut off, or not a parquet file; copy it again" in refused(arguments, capsys)
    shutil.rmtree(root / "data")
    assert "no parquet file; expected the frames of all episodes" in refused(arguments, capsys)


@pytest.mark.parametrize(
    ("version", "name", "content", "message"),
    [
        ("v3.0", "stats.json", "[]", "stats.json: a value is not of the expected type; expected the"),
        ("v3.0", "stats.json", "{", "stats.json, line 1, column 2: not valid JSON"),
        ("v2.1", "episodes_stats.jsonl", '{"episode_index": 0}\n', "line 1, column 1: the key 'stats' is missing"),
        ("v2.1", "episodes_stats.jsonl", "\n{]\n", "line 2, column 2: not valid JSON"),
    ],
)  # fmt: skip
def test_malformed_statistics_are_refused(
    tmp_path: Path,
    version: str,
    name: str,
    content: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = make(tmp_path / "dataset", version, lengths=(3, 3, 3))
    run_folder = process(root, tmp_path / "out")
    (root / "meta" / name).write_text(content)
    before = tree(root)
    assert message in refused([str(run_folder), "--format", "lerobot", "--in-place"], capsys)
    assert tree(root) == before


def test_other_size_of_the_camera_is_refused(
    made_v3: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    info = root / "meta" / "info.json"
    info.write_text(info.read_text().replace(f"{WIDTH}", "128"))
    message = refused([str(run_folder), "--format", "lerobot", "--in-place", "--dataset", str(root)], capsys)
    assert "the result has 96x64 px, and the camera 128x64 px" in message


def test_clips_without_a_result_are_reported_and_invisible(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run_folder = made
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    (copy / "clips" / "episode_000001" / f"{TOP}.h5").unlink()
    assert export.main([str(copy), "--format", "lerobot"]) == 1
    shown = capsys.readouterr()
    assert f"episode_000001/{TOP}: not finished, so not exported" in shown.err
    assert f"{TOP} (2 of 3 episodes)" in shown.out
    row = rows_of(copy / "export" / "lerobot")[1, 0]
    assert not any(row[f"{TRACKS}.visible"])
    assert np.unique(row[TRACKS]) == [-1]


def test_an_existing_folder_is_replaced_only_if_nothing_is_lost(
    made_v3: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, run_folder = made_v3
    out = tmp_path / "copy"
    arguments = [str(run_folder), "--format", "lerobot", "--out"]
    assert export.main([*arguments, str(out), "--points", "4"]) == 0
    assert export.main([*arguments, str(out)]) == 0
    assert features_of(out)[TRACKS]["shape"] == [NUM_POINTS, 2]
    info = out / "meta" / "info.json"
    content = json.loads(info.read_text())
    content["features"][WRIST] = content["features"][TOP]
    content["features"]["observation.tracks.wrist"] = content["features"][TRACKS]
    info.write_text(json.dumps(content))
    message = refused([*arguments, str(out)], capsys)
    assert f"an earlier export has written tracks of {WRIST} there, which would be lost" in message
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "is not empty, and is not an earlier export" in refused([*arguments, str(tmp_path / "full")], capsys)
    for place in (dataset, dataset / "below", dataset.parent):
        assert "it is the dataset itself, or a folder in or above it" in refused([*arguments, str(place)], capsys)


def test_features_of_others_are_not_replaced(
    made_v3: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    info = json.loads((root / "meta" / "info.json").read_text())
    info["features"][TRACKS] = {"dtype": "float32", "shape": [2], "names": None}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    message = refused([str(run_folder), "--format", "lerobot", "--in-place", "--dataset", str(root)], capsys)
    assert f"it has a feature {TRACKS} already, which aot has not added" in message


def test_a_link_to_a_folder_is_not_followed_in_place(
    made_v3: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    (root / "videos").rename(tmp_path / "videos")
    (root / "videos").symlink_to(tmp_path / "videos")
    arguments = [str(run_folder), "--format", "lerobot", "--dataset", str(root)]
    assert "videos is a link to a folder" in refused([*arguments, "--in-place"], capsys)
    assert export.main([*arguments, "--out", str(tmp_path / "copy")]) == 0
    assert not (tmp_path / "copy" / "videos").is_symlink()
    assert not list((tmp_path / "videos").rglob(f"*{MASKS}*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "lerobot", "--in-place", "--out", "x"], "--in-place --out x: expected one of them"),
        (["--format", "lerobot", "--points", "0"], "--points 0: expected 1 or more"),
        (
            ["--format", "npz", "--in-place"],
            "--in-place: --format npz does not have this option; it belongs to lerobot",
        ),
        (["--format", "coco", "--masks", "npz"], "--masks: --format coco does not have this option"),
    ],
)
def test_invalid_arguments_are_refused(
    made_v3: tuple[Path, Path], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused([str(made_v3[1]), *arguments], capsys)


def test_a_dataset_that_has_moved_is_named(
    made_v3: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(made_v3[1], copy)
    content = json.loads((copy / "run.json").read_text())
    content["config"]["dataset"]["root"] = str(tmp_path / "gone")
    (copy / "run.json").write_text(json.dumps(content))
    message = refused([str(copy), "--format", "lerobot"], capsys)
    assert f"{tmp_path}/gone: no meta/info.json; expected" in message
    assert "if it has moved, give its folder with --dataset" in message


def change_episodes(root: Path, **columns: list[Any]) -> None:
    (path,) = (root / "meta" / "episodes").rglob("*.parquet")
    rows = pyarrow.parquet.read_table(path).to_pydict()
    pyarrow.parquet.write_table(pyarrow.table(rows | columns), path)


def test_frames_of_a_video_that_are_of_no_episode_are_unlabelled(tmp_path: Path) -> None:
    dataset = make(tmp_path / "dataset", "v3.0", lengths=(4, 3, 3))
    (path,) = (dataset / "meta" / "episodes").rglob("*.parquet")
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(1), path)
    path = dataset / "data" / "chunk-000" / "file-000.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(4), path)
    run_folder = process(dataset, tmp_path / "out")
    assert export.main([str(run_folder), "--format", "lerobot", "--in-place"]) == 0
    labels = label_frames(dataset / "videos" / MASKS / "chunk-000" / "file-000.mp4")
    assert [bool((each == 255).all()) for each in labels] == [True] * 4 + [False] * 3
    (path,) = (dataset / "meta" / "episodes").rglob("*.parquet")
    table = pyarrow.parquet.read_table(path).to_pydict()
    np.testing.assert_allclose(table[f"videos/{MASKS}/from_timestamp"], [4 / FPS, 0])
    np.testing.assert_allclose(table[f"videos/{MASKS}/to_timestamp"], [7 / FPS, 3 / FPS])
    assert (table[f"videos/{MASKS}/chunk_index"], table[f"videos/{MASKS}/file_index"]) == ([0, 0], [0, 1])


def test_episodes_that_overlap_in_their_video_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make(tmp_path / "dataset", "v3.0", lengths=(4, 3, 3))
    times = {"from_timestamp": [0.0, 0.0, 0.0], "to_timestamp": [4 / FPS, 3 / FPS, 3 / FPS]}
    change_episodes(dataset, **{f"videos/{TOP}/{name}": values for name, values in times.items()})
    run_folder = process(dataset, tmp_path / "out")
    before = tree(dataset)
    message = refused([str(run_folder), "--format", "lerobot", "--in-place"], capsys)
    assert "episode 1 begins with frame 0 of its video, before the end of the episode before it" in message
    assert tree(dataset) == before
    assert export.main([str(run_folder), "--format", "lerobot", "--in-place", "--masks", "none"]) == 0


def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make(tmp_path / "below" / "dataset", "v3.0", lengths=(3, 3, 3))
    (dataset / "videos").rename(tmp_path / "below" / "videos")
    info = dataset / "meta" / "info.json"
    info.write_text(info.read_text().replace('"videos/', '"../videos/'))
    run_folder = process(dataset, tmp_path / "out")
    arguments = [str(run_folder), "--format", "lerobot", "--in-place"]
    assert "video_path leads to ../videos/observation.masks.top/" in refused(arguments, capsys)
    assert not (tmp_path / "below" / "videos" / MASKS).exists()


def test_runs_of_other_datasets_are_refused(
    made_v3: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(made_v3[1], copy)
    content = json.loads((copy / "run.json").read_text())
    content["choices"]["dataset"] = "videos"
    content["config"]["dataset"] = {"_target_": "aot.datasets.videos.Videos", "root": "."}
    (copy / "run.json").write_text(json.dumps(content))
    message = refused([str(copy), "--format", "lerobot"], capsys)
    assert "the run has processed dataset=videos; expected a run with dataset=lerobot" in message


def test_object_ids_above_those_of_a_label_video_need_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make(tmp_path / "dataset", "v3.0", lengths=(3, 3, 3))
    (dataset / "prompts.yaml").write_text((dataset / "prompts.yaml").read_text().replace("id: 1", "id: 300"))
    run_folder = process(dataset, tmp_path / "out")
    arguments = [str(run_folder), "--format", "lerobot"]
    assert "object id 300 does not fit into a label video; expected at most 254" in refused(arguments, capsys)
    assert export.main([*arguments, "--masks", "npz"]) == 0
    assert rows_of(run_folder / "export" / "lerobot")[0, 0][f"{TRACKS}.object_id"] == [300] * NUM_POINTS


def test_statistics_suit_the_names_of_cameras(tmp_path: Path) -> None:
    """LeRobot refuses to load statistics that are not of images where a name contains "image"."""
    camera = "observation.image"
    dataset = make(tmp_path / "dataset", "v2.1", cameras=(camera,), lengths=(3, 3, 3))
    run_folder = process(dataset, tmp_path / "out")
    assert export.main([str(run_folder), "--format", "lerobot", "--in-place"]) == 0
    lines = (dataset / "meta" / "episodes_stats.jsonl").read_text().splitlines()
    stats = json.loads(lines[0])["stats"]
    assert [name for name in stats if ".tracks." in name or ".masks." in name] == ["observation.masks.image"]
    assert np.shape(stats["observation.masks.image"]["mean"]) == (3, 1, 1)
    info = json.loads((dataset / "meta" / "info.json").read_text())
    assert info["features"]["observation.tracks.image"]["shape"] == [NUM_POINTS, 2]
    assert info["total_videos"] == 6


def test_columns_have_the_types_that_the_loader_expects(made: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run_folder = made
    assert export.main([str(run_folder), "--format", "lerobot", "--out", str(tmp_path / "copy")]) == 0
    for path in (tmp_path / "copy" / "data").rglob("*.parquet"):
        schema = pyarrow.parquet.ParquetFile(path).schema_arrow
        assert schema.field(TRACKS).type == pyarrow.list_(pyarrow.list_(pyarrow.float32()))
        assert not schema.field(TRACKS).metadata or b"ARROW:extension:name" not in schema.field(TRACKS).metadata
        assert schema.field(f"{TRACKS}.visible").type == pyarrow.list_(pyarrow.bool_(), NUM_POINTS)
        assert schema.field(f"{TRACKS}.object_id").type == pyarrow.list_(pyarrow.int64(), NUM_POINTS)
        types = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        old = json.loads(pyarrow.parquet.ParquetFile(dataset / path.relative_to(tmp_path / "copy")).schema_arrow
                         .metadata[b"huggingface"])["info"]["features"]  # fmt: skip
        assert types.items() >= old.items()
        assert types[TRACKS] == {"shape": [NUM_POINTS, 2], "dtype": "float32", "_type": "Array2D"}
        assert types[f"{TRACKS}.visible"]["length"] == NUM_POINTS
        source = pyarrow.parquet.ParquetFile(dataset / path.relative_to(tmp_path / "copy")).metadata
        assert pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0).compression == "SNAPPY"
        assert pyarrow.parquet.ParquetFile(path).metadata.num_rows == source.num_rows


def test_rows_in_any_order_and_files_of_many_batches(
    made_v3: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    path = root / "data" / "chunk-000" / "file-000.parquet"
    table = pyarrow.parquet.read_table(path)
    order = np.random.default_rng(0).permutation(len(table))
    pyarrow.parquet.write_table(table.take(order), path, compression="none", row_group_size=5)
    monkeypatch.setattr("aot.export.lerobot.tables._MAX_ROWS", 4)
    arguments = [str(run_folder), "--format", "lerobot", "--in-place", "--dataset", str(root), "--masks", "npz"]
    assert export.main(arguments) == 0
    assert pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0).compression == "UNCOMPRESSED"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [(row["episode_index"], row["frame_index"]) for row in rows] == [
        (int(number >= 7), int(number - 7 * (number >= 7))) for number in order
    ]
    for row in rows:
        np.testing.assert_array_equal(
            row[TRACKS], result_of(run_folder, row["episode_index"]).tracks.xy[row["frame_index"]]
        )
        assert row[PATH] == f"masks/top/episode_{row['episode_index']:06d}.npz"


def test_weights_and_their_licences_travel_with_the_arrays() -> None:
    weights = {"part": "tracker", "file": "a.pth", "sha256": "ab", "checkpoint": "a", "licence": "CC-BY-NC-4.0"}
    attributes = {"weights": json.dumps([weights]), "frame_interval": 2, "config_hash": "h"}
    facts = [
        Facts(attributes, (480, 640), 3, 2, {1: "mug", 2: ""}),
        Facts(attributes | {"frame_interval": 1}, (480, 640), 4, 2, {1: "cup"}),
    ]
    found = camera_metadata("cam", facts, {"segmenter": "sam2", "tracker": "cotracker3", "launcher": "local"})
    assert found["weights"] == [weights]
    assert found["models"] == {"segmenter": "sam2", "tracker": "cotracker3"}
    assert found["objects"] == {"1": ["cup", "mug"], "2": [""]}
    assert (found["image_size"], found["frame_interval"]) == ({"width": 640, "height": 480}, [1, 2])


@pytest.mark.parametrize(
    ("shape", "names", "size"),
    [
        ([48, 64, 3], ["height", "width", "channels"], (48, 64)),
        ([3, 48, 64], ["channels", "height", "width"], (48, 64)),
        ([48, 64, 3], None, (48, 64)),
        ([48], None, None),
        (None, None, None),
    ],
)
def test_size_of_a_camera(shape: Any, names: Any, size: Any, tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    features = {"cam": {"dtype": "video", "shape": shape, "names": names}}
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"features": features}))
    assert Info(tmp_path).size("cam") == size


def test_statistics_of_labels_and_their_combination() -> None:
    rng = np.random.default_rng(0)
    labels = [rng.choice([0, 1, 5, 255], size=(n, 8, 8), p=[0.6, 0.2, 0.15, 0.05]) for n in (3, 6)]
    found = [statistics.of_labels(np.bincount(each.ravel(), minlength=256), len(each)) for each in labels]
    for each, values in zip(found, labels):
        np.testing.assert_allclose(each["mean"][:, 0, 0], [values.mean() / 255] * 3)
        np.testing.assert_allclose(each["std"][:, 0, 0], [values.std() / 255] * 3)
        expected = np.quantile(values, list(statistics.QUANTILES.values()), method="inverted_cdf") / 255
        np.testing.assert_allclose([each[name][0, 0, 0] for name in statistics.QUANTILES], expected)
    both = statistics.combined(found)
    np.testing.assert_allclose(both["mean"][0, 0, 0], np.concatenate(labels).mean() / 255)
    np.testing.assert_allclose(both["std"][0, 0, 0], np.concatenate(labels).std() / 255)
    assert both["count"].tolist() == [9]
    assert statistics.complete({0: None}) == {}


def test_the_copy_of_a_read_only_dataset_is_complete(made_v3: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run_folder = made_v3
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    folder_paths = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in folder_paths:
        path.chmod(0o555)
    out = tmp_path / "copy"
    assert export.main([str(run_folder), "--format", "lerobot", "--dataset", str(root), "--out", str(out)]) == 0
    for path in folder_paths:
        path.chmod(0o755)
    assert {*tree(out)} > {*tree(dataset)}
    made = tmp_path / "made"
    made.mkdir()
    assert out.stat().st_mode == made.stat().st_mode, "others can read it as other new folders"
    assert (out / "videos").stat().st_mode == made.stat().st_mode


def episode_of(path: Path, first_frame: int, length: int) -> Episode:
    clip = Clip("episode_000001/cam", path.with_suffix(".mp4"), expected_frames=(first_frame, length))
    return Episode(EpisodeVideo(1, "cam", clip, first_frame), length, ExportedClip(clip.clip_id, path))


def test_rows_are_frames_of_the_episode_where_tracks_are_valid(tmp_path: Path) -> None:
    """Of a result that begins two frames after its episode, and whose track has left its object on the last frame."""
    masks = np.zeros((2, 2, 8, 8), dtype=np.bool_)
    masks[:, 0, :4], masks[:, 1, 2:6] = True, True
    path = write_result(tmp_path / "a.h5", masks=masks, index=[9, 11], queries=[(9, 1, 2, 1), (9, 3, 4, 2)])
    with h5py.File(path, "a") as file:
        file["tracks/valid"][1, 0] = False
        file["masks/score"][1] = [0.5, 0.9]
        file["masks/score"][0] = [0.9, 0.5]
    episode = episode_of(path, 7, 5)
    tracks = episode.tracks(3)
    assert tracks.xy[2].tolist() == tracks.xy[4].tolist() == [[1, 2], [3, 4], [-1, -1]]
    assert (tracks.xy[[0, 1, 3]] == -1).all()
    assert tracks.visible.tolist() == [[False] * 3] * 2 + [[True, True, False], [False] * 3, [False, True, False]]
    assert tracks.object_id.tolist() == [1, 2, 0]
    labels = list(labels_of(episode, (8, 8)))
    assert [each[:, 0].tolist() for each in labels] == [
        [255] * 8, [255] * 8, [1, 1, 1, 1, 2, 2, 0, 0], [255] * 8, [1, 1, 2, 2, 2, 2, 0, 0],
    ]  # fmt: skip
    assert npz_paths(episode, "masks/cam") == ["", "", *["masks/cam/episode_000001.npz", ""] * 2][:5]


@pytest.mark.parametrize(("first_frame", "length"), [(7, 4), (8, 4), (10, 2)])
def test_a_result_with_frames_outside_of_its_episode_is_refused(tmp_path: Path, first_frame: int, length: int) -> None:
    path = write_result(tmp_path / "a.h5", masks=np.zeros((5, 1, 8, 8), dtype=np.bool_), index=list(range(7, 12)))
    episode = episode_of(path, first_frame, length)
    last = first_frame + length - 1
    expected = f"frames 7 to 11 of the video, and the episode consists of frames {first_frame} to {last};"
    with pytest.raises(ExportError, match=expected):
        check_clip(ExportedClip("a", path), episode.video, None)


def test_cameras_with_the_same_last_part_keep_their_names() -> None:
    names = names_of(["observation.images.top", "observation.image", "cam"])
    assert [each.tracks.removeprefix("observation.tracks.") for each in names.values()] == ["top", "image", "cam"]
    names = names_of(["observation.images.top", "observation.top"])
    assert [each.camera for each in names.values()] == ["observation.images.top", "observation.top"]
