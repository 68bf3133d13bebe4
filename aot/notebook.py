"""`aot.track`: one video in a notebook or a script, by the same stages as `python -m aot.run`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import yaml
from PIL import Image

from aot.arguments import parse_command
from aot.checkpoints import available_bytes
from aot.compose import compose_jobs
from aot.config import PartConfig, RunConfig, check_config
from aot.datasets.base import select_clips
from aot.errors import ConfigError, DatasetError, OutOfMemory
from aot.images.masks import encode_rle
from aot.paths import ClipPaths
from aot.pipeline import Parts, Settings, process_clip
from aot.retry import Attempt, ladder, next_rung
from aot.runs.run_json import versions
from aot.system.devices import release_memory
from aot.system.text import override_text
from aot.types import BoolArray, Clip, ClipResult
from aot.writing.reader import load

_ROLES = ("decoder", "segmenter", "query_points", "tracker", "detector")
# The parts of the last call, by role: their models stay in memory.
_kept: dict[str, tuple[PartConfig, Any]] = {}


def track(
    video: str | Path,
    *,
    box: Sequence[float] | None = None,
    points: Sequence[Sequence[float]] = (),
    labels: Sequence[int] = (),
    mask: str | Path | BoolArray | None = None,
    frame: int = 0,
    text: str | None = None,
    detector: str | None = None,
    segmenter: str | None = None,
    tracker: str | None = None,
    out: str | Path | None = None,
    overrides: str | Sequence[str] = (),
) -> ClipResult:
    """Segment and track one object of one video.

    Models stay in memory for the next call with the same options. A video that does not fit into memory is tried again
    as `aot.run` does: with the lean memory plan, then with fewer frames.

    Args:
        video: a video file or a folder of frames.
        box: (x0, y0, x1, y1) px of the object; None: no box.
        points: (x, y) px of clicks.
        labels: one per point: 1 object, 0 background; empty: all are 1.
        mask: the object's mask on the frame: an image file in which all pixels other than 0 are the object, or
            (H, W) bool. Excludes box and points.
        frame: source frame of the prompt.
        text: words that describe the object, such as "red mug", which the detector finds on the frame. Excludes box,
            points and mask.
        detector, segmenter, tracker: names of options, such as "grabcut"; None: the defaults of `aot.run`.
        out: the HDF5 file to write, which is replaced; None: it is in a temporary folder, which is removed with the
            result.
        overrides: further settings as on the command line, one or more: "sample_fps=10", "tracker.device=cpu".
    Returns:
        The result, whose masks are read when they are indexed.
    Raises:
        ConfigError: a wrong argument or setting, or missing weights.
        AotError: the video could not be read, segmented or tracked.
    """
    target = None if out is None else Path(out)
    if target is not None and not target.parent.is_dir():
        raise ConfigError(f"out={target}: the folder {target.parent} does not exist; expected a file in a folder")
    settings = {"dataset.frame": frame, "dataset.points": points, "dataset.labels": labels, "dataset.box": box}
    parts = {"detector": detector, "segmenter": segmenter, "tracker": tracker}
    chosen = [
        "dataset=video",
        "launcher=inline",
        _override("dataset.path", Path(video)),
        *(f"{key}={_listed(value)}" for key, value in settings.items() if value is not None),
        *(shlex.split(override_text("dataset.text", text)) if text is not None else ()),
        *(f"{role}={name}" for role, name in parts.items() if name is not None),
        *([overrides] if isinstance(overrides, str) else overrides),
    ]
    # In the folder of the file that is written, which then gets its name by one step.
    folder = _TemporaryFolder(None if target is None else target.parent)
    try:
        if mask is not None:
            chosen.append(_override("dataset.mask", _mask_file(mask, folder.path)))
        with _argument_names():
            config = _config(chosen)
            (clip,) = select_clips(config.dataset.build().clips(), **config.selection.model_dump())
        if isinstance(mask, np.ndarray):  # recorded by content: its file is temporary
            clip = replace(clip, prompts=tuple(replace(prompt, mask=encode_rle(mask)) for prompt in clip.prompts))
        written = _process(config, clip, folder.path)
        if target is None:
            return load(written, masks="lazy", keeps=folder)
        written.replace(target)
    except BaseException:
        folder.remove()
        raise
    folder.remove()
    return load(target, masks="lazy")


class _TemporaryFolder:
    """A folder that exists until it is removed, or this object is gone.

    Args:
        parent: the folder in which it is made; None: the system's folder for temporary files.
    """

    def __init__(self, parent: Path | None) -> None:
        self.path = Path(mkdtemp(prefix=".aot-", dir=parent))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _mask_file(mask: str | Path | BoolArray, folder: Path) -> Path:
    if not isinstance(mask, np.ndarray):
        return Path(mask)
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ConfigError(f"mask: got {mask.shape} {mask.dtype}, expected (height, width) bool")
    path = folder / "mask.png"
    Image.fromarray(mask).save(path)
    return path


def _override(key: str, path: Path) -> str:
    (text,) = shlex.split(override_text(key, path))
    return text


def _listed(value: Any) -> str:
    """A number or (nested) sequence of numbers as in a setting."""
    return json.dumps(np.asarray(value).tolist())


def _config(overrides: Sequence[str]) -> RunConfig:
    jobs, errors = compose_jobs(parse_command(overrides))
    if errors:
        raise ConfigError("\n".join(errors))
    return check_config(jobs[0].values, jobs[0].choices)


@contextmanager
def _argument_names() -> Iterator[None]:
    """Give the keys of the dataset in errors the names of the arguments of `track`."""
    try:
        yield
    except (ConfigError, DatasetError) as error:
        message = str(error).replace("dataset.path", "video")
        raise type(error)(re.sub(r"\bdataset\.(box|points|labels|mask|frame|text)\b", r"\1", message)) from error


def _process(config: RunConfig, clip: Clip, folder: Path) -> Path:
    """Write the result of a clip below a folder, on the first rung of the ladder that fits; returns its path."""
    parts = Parts(*(_kept_part(role, getattr(config, role)) for role in _ROLES))
    paths = ClipPaths(folder, clip.clip_id)
    rungs = ladder(config.frame_interval, config.ladder.max_frame_interval)
    provenance = {
        "config_yaml": yaml.safe_dump(config.as_composed(), sort_keys=False),
        "config_hash": config.hash,
        "versions": json.dumps(versions()),
    }
    attempts: list[Attempt] = []
    while (rung := next_rung(rungs, attempts)) is not None:
        settings = Settings.on(
            rung,
            frame_interval_requested=config.frame_interval,
            sample_fps=config.sample_fps,
            return_check=config.output.return_check,
            points=config.points,
            provenance=provenance,
            attempts=tuple(attempts),
            # The estimate is an upper bound, so the last rung is tried whatever is predicted.
            available_bytes=None if rung == rungs[-1] else partial(available_bytes, parts.tracker),
        )
        try:
            process_clip(clip, parts, settings, paths)
            break
        except OutOfMemory as error:
            attempts.append(Attempt(rung, error.kind, str(error)))
            if next_rung(rungs, attempts) is None:
                raise
        # Outside the handler: inside it, the traceback still holds the arrays of the attempt.
        release_memory()
    return paths.result


def _kept_part(role: str, config: PartConfig) -> Any:
    """The part of the last call if its settings are the same, otherwise a new one in its place."""
    if role not in _kept or _kept[role][0] != config:
        _kept.pop(role, None)  # its memory is needed for the new one
        _kept[role] = config, config.build()
    return _kept[role][1]
