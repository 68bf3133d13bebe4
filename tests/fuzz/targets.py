"""What is handed to aot by strangers, as functions of bytes: each accepts a right input, refuses a wrong one with an
error of ours, and must do nothing else, whatever the bytes are.

A target raises only where aot misbehaves. `python -m tests.fuzz TARGET` looks for such bytes; what was ever found lies
in `findings/<target>/` and is tried by every test run.
"""

from __future__ import annotations

import io
import json
import pickle
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from aot.compose import compose_jobs, parse_command
from aot.config import check_config
from aot.datasets.base import Dataset, check_clip_ids
from aot.datasets.lerobot import LeRobot
from aot.datasets.mask_folders import MaskFolders
from aot.datasets.sa_v import SaVideos
from aot.datasets.tap_vid import TapVid
from aot.decoding import open_source
from aot.errors import AotError, ConfigError, DecodeError, PromptError
from aot.images.masks import encode_rle
from aot.manifest.assign import assign_prompts
from aot.manifest.fit import check_prompts
from aot.manifest.read import load_manifest
from aot.manifest.schema import Manifest
from aot.manifest.serialize import prompts_as_json
from aot.prompts import main as prompts_main
from aot.types import Clip, MaskBlock, Prompt, QueryPoints, Tracks
from aot.verify import MISTAKE, Expected, FileChecker, State
from aot.writing.hdf5 import new_clip_file
from aot.writing.reader import MaskReader, load
from tests.synthetic import moving_square, write_video

Target = Callable[[bytes], bool]
"""Whether the input was taken as a right one."""

# Fast, and nothing of it outlives the machine.
_SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())

# A damaged file can stop the HDF5 library for ever; a right one takes milliseconds.
_checker = FileChecker(stall_seconds=10)

CLIPS = [Clip("teapot", Path("teapot.mp4")), Clip("day1/ep_003", Path("day1/ep_003.mp4"))]

MANIFEST = b"""\
clips:
  teapot:
    objects:
      - id: 1
        name: teapot
        frame: 0
        box: [10, 8, 22, 20]
        points: [[12, 18], [15, 12.5]]
        labels: [1, 0]
      - {id: 2, frame: 3, mask: masks/teapot_2.png}
      - {id: 1, frame: 5, points: [[20, 12]], labels: [0]}
  day1/*:
    objects:
      - {id: 1, box: [5, 4, 16, 12], query_points: [[0, 6, 5], [2, 7.5, 5]]}
"""

OVERRIDES = (
    b"dataset=demo\nframe_interval=2\nsegmenter=none\n",
    b"dataset=video\ndataset.path='a b=c.mp4'\ndataset.box=[1,2,30,40]\ndataset.points=[[3,4]]\ndataset.labels=[1]\n",
    b"dataset=videos\ndataset.root=${oc.env:HOME}\nretry=[oom,decode]\n",
    b'-m\ndataset=demo\nframe_interval=1,2,4\ndataset.include=["day1/*"]\n',
)


def manifest(data: bytes) -> bool:
    """YAML or JSON by the first byte; a manifest that is taken gives prompts that are what it says."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        path = Path(folder) / ("prompts.json" if data[:1] == b"{" else "prompts.yaml")
        path.write_bytes(data)
        write_mask(Path(folder) / "masks" / "teapot_2.png")
        try:
            clips = assign_prompts(CLIPS, path)
        except ConfigError:
            return False
        for clip in clips:
            try:
                usable, errors = check_prompts(
                    clip.prompts, width=64, height=48, frames=range(10), num_source_frames=10
                )
            except PromptError as exc:
                raise AssertionError("an object's mistake must not be an error of the clip") from exc
            if {prompt.object_id for prompt in usable} & set(errors):
                raise AssertionError("an object is both usable and wrong")
            written = json.loads(json.dumps(prompts_as_json(clip.prompts)))
            if written:
                Manifest.model_validate({"clips": {"teapot": {"objects": [_as_entry(item) for item in written]}}})
    return True


def overrides(data: bytes) -> bool:
    """One override a line; all that is wrong with them is one ConfigError, or a list of mistakes."""
    given = [line for line in data.decode("utf-8", "replace").splitlines() if line]
    # A class named on the command line is code that its user chose to run.
    if any("_target_" in line or (line.startswith("-") and line not in ("-m", "--multirun")) for line in given):
        return False
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            command = parse_command(given)
        jobs, mistakes = compose_jobs(command)
        for job in jobs:
            config = check_config(job.values, job.choices)
            if not mistakes:
                # What run.json will hold must be readable, and mean the same.
                again = check_config(json.loads(json.dumps(config.as_composed())), config.choices())
                if again.hash != config.hash:
                    raise AssertionError("the configuration means something else after it was written and read")
    except ConfigError:
        return False
    except SystemExit as exc:
        if exc.code not in (0, 2):
            raise AssertionError(f"exit code {exc.code}") from exc
        return False
    return not mistakes


def results(data: bytes) -> bool:
    """A file among the results: `aot.verify` calls it broken, or it can be read."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        path = Path(folder) / "clip.h5"
        path.write_bytes(data)
        verdict = _checker.examine(path, Expected("teapot", "", None), quick=False)
        if MISTAKE in verdict.reason:
            raise AssertionError(verdict.reason)
        if verdict.state is not State.WHOLE:
            return False
        result = load(path)
        if len(result.flow()) != max(len(result.index) - 1, 0):
            raise AssertionError("rows and tracks do not agree")
        with MaskReader(path) as reader:
            if sum(1 for _ in reader) != len(result.mask_row):
                raise AssertionError("masks and rows do not agree")
    return True


def video(data: bytes) -> bool:
    """A video: every frame that it says it shows, or a DecodeError."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(data)
        try:
            with open_source(Clip("clip", path)) as frames:
                if frames.width * frames.height > 2**22:
                    return False  # right or wrong, decoding it would take the fuzzer's time
                counted = sum(len(block.index) for block in frames.blocks())
                if counted != len(frames.index) or (np.diff(frames.time) <= 0).any():
                    raise AssertionError("frames are missing, or times do not ascend")
                for row in (counted - 1, counted // 2, 0):
                    frames.read(frames.index[[row]])
        except DecodeError:
            return False
    return True


def pickled(data: bytes) -> bool:
    """A TAP-Vid pickle: unpacked into its own folder and read, or refused; nothing it says is run."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        root = Path(folder)
        (root / "tapvid.pkl").write_bytes(data)
        try:
            _read_all(TapVid(root / "tapvid.pkl", root / "unpacked"))
        except (AotError, MemoryError):
            return False
        finally:
            _check_nothing_but(root, {"tapvid.pkl", "unpacked"})
            _check_nothing_but(root / "unpacked", {"tapvid"})
    return True


def tree(data: bytes) -> bool:
    """One file of a published dataset's tree; its first letter says which (see `_TREES`)."""
    make = _TREES.get(data[:1])
    if make is None:
        return False
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        root = Path(folder) / "root"
        root.mkdir()
        try:
            _read_all(make(root, data[1:]))
        except (AotError, MemoryError):
            return False
        finally:
            _check_nothing_but(Path(folder), {"root"})
    return True


def imported(data: bytes) -> bool:
    """Another tool's boxes, COCO's or MOT's by the first byte: a manifest that can be read, or a ConfigError."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        path, out = Path(folder) / "boxes", Path(folder) / "prompts.yaml"
        path.write_bytes(data)
        form = "coco" if data[:1] in (b"{", b"[") else "mot"
        masks = ["--masks"] if b"segmentation" in data else []
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            code = prompts_main(["import", "--format", form, *masks, str(path), "--out", str(out)])
            if code not in (0, 2):
                raise AssertionError(f"exit code {code}")
            if code == 0:
                load_manifest(out)
    return code == 0


def _read_all(dataset: Dataset) -> None:
    clips = dataset.clips()
    check_clip_ids(clips)
    for clip in clips[:4]:
        truth = dataset.ground_truth(clip.clip_id)
        if truth is None:
            continue
        for frame in truth.mask_frames[:4]:
            for object_id, mask in (truth.mask(int(frame)) or {}).items():
                if object_id not in truth.object_ids or mask.ndim != 2:
                    raise AssertionError(f"object {object_id} of {truth.object_ids}, mask {mask.shape}")
        points = [(prompt.object_id, *point) for prompt in clip.prompts for point in prompt.query_points or ()]
        if points:
            ids, txy = np.array([point[0] for point in points]), np.array([point[1:] for point in points])
            truth.tracks(QueryPoints(txy.astype(np.float32), ids.astype(np.int32)), np.arange(3))


def _check_nothing_but(folder: Path, expected: set[str]) -> None:
    extra = {path.name for path in folder.iterdir()} - expected if folder.is_dir() else set()
    if extra:
        raise AssertionError(f"left behind: {sorted(extra)}")


def _sa_v(root: Path, data: bytes) -> Dataset:
    (root / "sav_1.mp4").touch()
    (root / "sav_1_manual.json").write_bytes(data)
    return SaVideos(root)


def _folders(root: Path, **options: object) -> MaskFolders:
    for name in ("two", "one"):
        (root / "JPEGImages" / name).mkdir(parents=True)
        for frame in range(3):
            (root / "JPEGImages" / name / f"{frame:05}.jpg").touch()
        (root / "Annotations" / name).mkdir(parents=True)
        for frame in range(3):
            path = root / "Annotations" / name / f"{frame:05}.png"
            path.write_bytes(_palette_png())
    return MaskFolders(root, "JPEGImages", "Annotations", **options)  # type: ignore[arg-type]


def _davis_list(root: Path, data: bytes) -> Dataset:
    (root / "val.txt").write_bytes(data)
    return _folders(root, split="val.txt")


def _davis_mask(root: Path, data: bytes) -> Dataset:
    dataset = _folders(root)
    (root / "Annotations" / "two" / "00000.png").write_bytes(data)
    return dataset


def _vos_meta(root: Path, data: bytes) -> Dataset:
    (root / "meta.json").write_bytes(data)
    return _folders(root, meta="meta.json", late_objects=True)


def _le_robot(root: Path, info: bytes = b"", episodes: bytes = b"") -> Dataset:
    (root / "meta").mkdir()
    (root / "meta" / "info.json").write_bytes(info or _INFO)
    (root / "meta" / "episodes.jsonl").write_bytes(episodes or _EPISODES)
    (root / "videos" / "chunk-000" / "top").mkdir(parents=True)
    for number in range(2):
        (root / "videos" / "chunk-000" / "top" / f"episode_{number:06}.mp4").touch()
    (root / "prompts.yaml").write_text("clips: {'*': {objects: [{id: 1, frame: 1, box: [1, 2, 3, 4]}]}}")
    return LeRobot(root, root / "prompts.yaml")


@cache
def _palette_png() -> bytes:
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 3, mode="P")
    picture.putpalette(range(9))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


_TREES: dict[bytes, Callable[[Path, bytes], Dataset]] = {
    b"S": _sa_v, b"L": _davis_list, b"P": _davis_mask, b"M": _vos_meta,
    b"I": lambda root, data: _le_robot(root, info=data), b"E": lambda root, data: _le_robot(root, episodes=data),
}  # fmt: skip
"""The file that is handed over: SA-V's masklets, a list of clips, a palette PNG, YouTube-VOS's meta.json, LeRobot's
info.json and episodes.jsonl."""

_INFO = json.dumps({
    "codebase_version": "v2.1", "fps": 10, "chunks_size": 1000, "total_episodes": 2,
    "features": {"top": {"dtype": "video"}},
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}).encode()  # fmt: skip
_EPISODES = b'{"episode_index": 0, "length": 5}\n{"episode_index": 1, "length": 7}\n'


def write_mask(path: Path) -> None:
    path.parent.mkdir()
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(path)


def _as_entry(item: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in item.items() if key != "mask_value"}


def result_file(path: Path) -> Path:
    """A small whole result."""
    index = np.array([0, 3, 6, 9], dtype=np.int64)
    clip = Clip(
        "teapot", Path("teapot.mp4"), (Prompt(1, 0, "teapot", box=(0, 0, 4, 4)), Prompt(2, 3, box=(1, 1, 3, 3)))
    )
    shape = (4, 5)
    tracks = Tracks(
        xy=np.zeros((*shape, 2), np.float32),
        visible=np.ones(shape, np.bool_),
        visibility=np.ones(shape, np.float32),
        confidence=np.ones(shape, np.float32),
    )
    queries = QueryPoints(np.zeros((5, 3), np.float32), np.ones(5, np.int32))
    texts = "clip_id source source_sha256 config_yaml config_hash versions device attempts seconds created".split()
    numbers = "width height fps num_source_frames frame_interval_requested frame_interval peak_memory_bytes".split()
    attributes = dict.fromkeys(texts, "") | dict.fromkeys(numbers, 3)
    attributes |= {"clip_id": "teapot", "width": 8, "height": 6, "num_source_frames": 10}
    masks = np.ones((4, 2, 6, 8), np.bool_)
    block = MaskBlock(index, np.array([1, 2], np.int32), masks, np.ones((4, 2), np.float32))
    made = {"index": index, "time": index / 10, "mask_index": index, "height": 6, "width": 8}
    with new_clip_file(path, clip, **made) as writer:  # type: ignore[arg-type]
        writer.write_masks(block)
        writer.write_tracks(tracks, queries, tracks.visible)
        writer.write_provenance(attributes, {})
    return path


def seeds(name: str) -> Sequence[bytes]:
    """Right inputs to begin with."""
    if name == "manifest":
        as_json = json.dumps({"clips": {"teapot": {"objects": [{"id": 1, "box": [1, 2, 3, 4]}]}}}).encode()
        return [MANIFEST, as_json]
    if name == "overrides":
        return OVERRIDES
    if name == "pickled":
        return _pickles()
    if name == "tree":
        return _tree_files()
    if name == "imported":
        return _boxes()
    with tempfile.TemporaryDirectory() as folder:
        if name == "results":
            return [result_file(Path(folder) / "clip.h5").read_bytes()]
        return [write_video(Path(folder) / "clip.mp4", moving_square(8)).read_bytes()]


def _pickles() -> list[bytes]:
    video = moving_square(3, width=64)[:, ::8, ::8]
    points = np.full((2, 3, 2), 0.5)
    example = {"video": video, "points": points, "occluded": np.zeros((2, 3), np.bool_)}
    stream = io.BytesIO()
    Image.fromarray(video[0]).save(stream, "JPEG")
    coded = example | {"video": [stream.getvalue()] * 3}
    return [
        pickle.dumps(content, protocol=protocol)
        for content in ({"goat": example, "../sheep": example}, [coded, coded])
        for protocol in (0, 2, 4)
    ]


def _tree_files() -> list[bytes]:
    mask = encode_rle(np.eye(6, 8, dtype=np.bool_))
    entry = {"size": [6, 8], "counts": mask.counts}
    sa_v = {
        "video_id": "sav_1", "video_frame_count": 9.0, "video_height": 6.0, "video_width": 8.0, "masklet_id": [0, 1],
        "masklet_num": 2, "masklet": [[entry, entry], [entry, entry]],
    }  # fmt: skip
    objects = {"1": {"category": "cup", "frames": ["00000", "00001"]}, "2": {"category": "hand", "frames": ["00001"]}}
    meta = {"videos": {"two": {"objects": objects}, "one": {"objects": objects}}}
    return [
        b"S" + json.dumps(sa_v).encode(), b"Ltwo\none\n\n", b"P" + _palette_png(), b"M" + json.dumps(meta).encode(),
        b"I" + _INFO, b"E" + _EPISODES,
    ]  # fmt: skip


def _boxes() -> list[bytes]:
    images = [{"id": 1, "file_name": "day1/ep_3/00004.jpg", "width": 8, "height": 6}]
    item = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 3], "track_id": 7, "score": 0.5}
    whole = {"images": images, "categories": [{"id": 1, "name": "mug"}]}
    outline = item | {"segmentation": [[1, 1, 5, 1, 5, 4]]}
    mask = encode_rle(np.eye(6, 8, dtype=np.bool_))
    packed = item | {"segmentation": {"size": [6, 8], "counts": mask.counts}}
    return [
        json.dumps(whole | {"annotations": [item]}).encode(),
        json.dumps(whole | {"annotations": [outline, packed]}).encode(),
        b"1,1,10,20,50,60,1,1,1\n2,1,11,20,50,60,1,1,1\n2,2,1.5,2,5,6,1\n",
    ]


TARGETS: dict[str, Target] = {
    "manifest": manifest, "overrides": overrides, "results": results, "video": video, "pickled": pickled,
    "tree": tree, "imported": imported,
}  # fmt: skip
