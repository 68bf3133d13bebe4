"""Fuzz targets: for every kind of untrusted input, a function of bytes that accepts valid input and rejects invalid
input with an `AotError`.

A target raises AssertionError, or any other error, only if aot misbehaves. `python -m tests.fuzz TARGET` searches for
such input; all earlier findings are in `findings/<target>/` and are checked by every test run.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from aot.arguments import parse_command
from aot.compose import compose_jobs
from aot.config import check_config
from aot.datasets.base import Dataset, check_clip_ids
from aot.datasets.lerobot import LeRobot
from aot.datasets.mask_folders import MaskFolders
from aot.datasets.sa_v import SaVideos
from aot.datasets.tap_vid import TapVid
from aot.decoding import open_source
from aot.errors import AotError, ConfigError, DecodeError, PromptError
from aot.manifest.assign import assign_prompts
from aot.manifest.fit import check_prompts
from aot.manifest.read import load_manifest
from aot.manifest.schema import Manifest
from aot.manifest.serialize import prompts_as_json
from aot.prompts import main as prompts_main
from aot.runs.verify import INTERNAL_ERROR, Expected, FileChecker, State
from aot.types import Clip, QueryPoints
from aot.writing.reader import MaskReader, load
from tests.fuzz.seeds import LEROBOT_EPISODES, LEROBOT_INFO, palette_png

Target = Callable[[bytes], bool]
"""Returns whether the input was accepted."""

# In memory: fast, and no wear of a disk.
_SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())

# A damaged file can hang the HDF5 library; a valid one takes milliseconds.
_checker = FileChecker(stall_seconds=10)

CLIPS = [Clip("teapot", Path("teapot.mp4")), Clip("day1/ep_003", Path("day1/ep_003.mp4"))]


def manifest(data: bytes) -> bool:
    """A manifest, JSON if it starts with a brace, else YAML; accepted prompts can be written and read again."""
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
                raise AssertionError("an error of one object must not fail the clip") from exc
            if {prompt.object_id for prompt in usable} & set(errors):
                raise AssertionError("an object is both usable and failed")
            written = json.loads(json.dumps(prompts_as_json(clip.prompts)))
            if written:
                Manifest.model_validate({"clips": {"teapot": {"objects": [_as_entry(item) for item in written]}}})
    return True


def overrides(data: bytes) -> bool:
    """One override per line; invalid ones give a ConfigError or a list of messages."""
    given = [line for line in data.decode("utf-8", "replace").splitlines() if line]
    # A class named on the command line is code that the user chose to run.
    if any("_target_" in line or (line.startswith("-") and line not in ("-m", "--multirun")) for line in given):
        return False
    try:
        jobs, errors = compose_jobs(parse_command(given))
        for job in jobs:
            config = check_config(job.values, job.choices)
            if not errors:
                # The configuration must survive run.json unchanged.
                again = check_config(json.loads(json.dumps(config.as_composed())), config.choices())
                if again.hash != config.hash:
                    raise AssertionError("the configuration changed when it was written and read again")
    except ConfigError:
        return False
    return not errors


def results(data: bytes) -> bool:
    """A result file: `aot.verify` reports it as broken, or it can be read."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        path = Path(folder) / "clip.h5"
        path.write_bytes(data)
        verdict = _checker.examine(path, Expected("teapot", "", None), quick=False)
        if INTERNAL_ERROR in verdict.reason:
            raise AssertionError(verdict.reason)
        if verdict.state is not State.COMPLETE:
            return False
        result = load(path)
        if len(result.flow()) != max(len(result.index) - 1, 0):
            raise AssertionError("the numbers of rows and tracks differ")
        with MaskReader(path) as reader:
            if sum(1 for _ in reader) != len(result.mask_row):
                raise AssertionError("the numbers of masks and mask rows differ")
    return True


def video(data: bytes) -> bool:
    """A video: all frames that it declares, or a DecodeError."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(data)
        try:
            with open_source(Clip("clip", path)) as frames:
                if frames.width * frames.height > 2**22:
                    return False  # too large to decode within a fuzzing step
                counted = sum(len(block.index) for block in frames.blocks())
                if counted != len(frames.index) or (np.diff(frames.time) <= 0).any():
                    raise AssertionError("frames are missing, or times do not increase")
                for row in (counted - 1, counted // 2, 0):
                    frames.read(frames.index[[row]])
        except DecodeError:
            return False
    return True


def pickled(data: bytes) -> bool:
    """A TAP-Vid pickle: unpacked into its own folder and read, or rejected; none of its code is executed."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        root = Path(folder)
        (root / "tapvid.pkl").write_bytes(data)
        try:
            _read_all(TapVid(root / "tapvid.pkl", root / "unpacked"))
        except (AotError, MemoryError):
            return False
        finally:
            _check_only(root, {"tapvid.pkl", "unpacked"})
            _check_only(root / "unpacked", {"tapvid"})
    return True


def tree(data: bytes) -> bool:
    """One file of a published dataset's tree; the first byte selects the file (see `_TREES`)."""
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
            _check_only(Path(folder), {"root"})
    return True


def imported(data: bytes) -> bool:
    """Detections, COCO if they start with a bracket, else MOT: imported to a readable manifest, or a ConfigError."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        path, out = Path(folder) / "boxes", Path(folder) / "prompts.yaml"
        path.write_bytes(data)
        form = "coco" if data[:1] in (b"{", b"[") else "mot"
        options = ["--masks"] if b"segmentation" in data else []
        options += ["--first-frame", "0"] if form == "coco" else []
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            code = prompts_main(["import", "--format", form, *options, str(path), "--out", str(out)])
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


def _check_only(folder: Path, expected: set[str]) -> None:
    extra = {path.name for path in folder.iterdir()} - expected if folder.is_dir() else set()
    if extra:
        raise AssertionError(f"unexpected files: {sorted(extra)}")


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
            path.write_bytes(palette_png())
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
    (root / "meta" / "info.json").write_bytes(info or LEROBOT_INFO)
    (root / "meta" / "episodes.jsonl").write_bytes(episodes or LEROBOT_EPISODES)
    (root / "videos" / "chunk-000" / "top").mkdir(parents=True)
    for number in range(2):
        (root / "videos" / "chunk-000" / "top" / f"episode_{number:06}.mp4").touch()
    (root / "prompts.yaml").write_text("clips: {'*': {objects: [{id: 1, frame: 1, box: [1, 2, 3, 4]}]}}")
    return LeRobot(root, root / "prompts.yaml")


_TREES: dict[bytes, Callable[[Path, bytes], Dataset]] = {
    b"S": _sa_v, b"L": _davis_list, b"P": _davis_mask, b"M": _vos_meta,
    b"I": lambda root, data: _le_robot(root, info=data), b"E": lambda root, data: _le_robot(root, episodes=data),
}  # fmt: skip
"""First byte → file: SA-V's masklets, a list of clips, a palette PNG, YouTube-VOS's meta.json, LeRobot's info.json and
episodes.jsonl."""


def write_mask(path: Path) -> None:
    path.parent.mkdir()
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(path)


def _as_entry(item: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in item.items() if key != "mask_value"}


TARGETS: dict[str, Target] = {
    "manifest": manifest, "overrides": overrides, "results": results, "video": video, "pickled": pickled,
    "tree": tree, "imported": imported,
}  # fmt: skip
