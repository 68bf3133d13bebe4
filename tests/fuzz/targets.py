"""What is handed to aot by strangers, as functions of bytes: each accepts a right input, refuses a wrong one with an
error of ours, and must do nothing else, whatever the bytes are.

A target raises only where aot misbehaves. `python -m tests.fuzz TARGET` looks for such bytes; what was ever found lies
in `findings/<target>/` and is tried by every test run.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from aot.compose import compose_jobs, parse_command
from aot.config import check_config
from aot.decoding import open_source
from aot.errors import ConfigError, DecodeError, PromptError
from aot.prompts import Manifest, assign_prompts, check_prompts, prompts_as_json
from aot.types import Clip, MaskBlock, Prompt, QueryPoints, Tracks
from aot.verify import Expected, FileChecker
from aot.writing.hdf5 import MaskReader, load, new_clip_file
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
        if _checker.examine(path, Expected("teapot", "", None), quick=False):
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
        except DecodeError:
            return False
    return True


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
    with tempfile.TemporaryDirectory() as folder:
        if name == "results":
            return [result_file(Path(folder) / "clip.h5").read_bytes()]
        return [write_video(Path(folder) / "clip.mp4", moving_square(8)).read_bytes()]


TARGETS: dict[str, Target] = {"manifest": manifest, "overrides": overrides, "results": results, "video": video}
