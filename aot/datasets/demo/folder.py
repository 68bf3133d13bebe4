"""The demo folder: five rendered clips whose masks and tracks are known exactly. Nothing is downloaded.

<root>/
  spin.mp4  zoom.mp4  hide.mp4  pair.mp4  late.mp4
  prompts.yaml                 the prompt manifest
  masks/<clip_id>_<id>.png     prompts that are masks
  truth/<clip_id>.npz          the ground truth, read by `SceneTruth`
  version.json                 marks the folder as a complete demo dataset, and records the version of the renderer
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import av

from aot.datasets.demo.clip_files import ENCODER_OPTIONS, manifest_entry, write_truth, write_video
from aot.datasets.demo.rendering import NOISE_LEVELS, SEED, SUPERSAMPLING
from aot.datasets.demo.scenes import FPS, HEIGHT, SCENES, WIDTH, Scene
from aot.errors import DatasetError
from aot.system.os_errors import os_reason
from aot.system.output_folder import find_obstacle, unusable_output

MARKER = "version.json"
MANIFEST = "prompts.yaml"

_GENERATOR = "aot demo scenes"
# Increase this when the rendering code gives other frames; changes of the scenes change the hash of the parameters.
_VERSION = 1

_MANIFEST_HEAD = """\
# Prompts of the demo clips, taken from the ground truth. Make those of your own videos with
# `python -m aot.prompt dataset=...`.
clips:
"""


def ensure_demo(root: Path, scenes: Sequence[Scene] | None = None) -> None:
    """Generate the demo dataset in `root` unless a complete folder of this version exists there.

    Args:
        root: the folder.
        scenes: that it contains; None: the five of `make demo`.
    Raises:
        DatasetError: `root` contains other files (nothing was changed), or cannot be written.
    """
    if not _is_current(root, SCENES if scenes is None else scenes):
        generate_demo(root, scenes)


def generate_demo(root: Path, scenes: Sequence[Scene] | None = None) -> None:
    """Render the clips with their ground truth and prompts, and move them to `root` in one step.

    An older or incomplete demo folder is renamed to `<root>.old-<number>` and never deleted, because its prompts may
    have been edited. Several processes may do this at the same time: one folder is kept, and all are equal.

    Args:
        root, scenes: as for `ensure_demo`.
    Raises:
        DatasetError: `root` contains other files (nothing was changed), or cannot be written.
    """
    # The folder is renamed, which needs its name also if it is given as "."; messages show it as it was given.
    target = root.absolute()
    scenes = SCENES if scenes is None else scenes
    try:
        _refuse_foreign(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            # Only this user may read the temporary folder; the dataset is a folder inside it, with normal permissions.
            built = Path(scratch) / "demo"
            built.mkdir()
            _write_dataset(built, scenes)
            _move_into_place(built, target, scenes)
    except (OSError, av.FFmpegError) as exc:
        # Not before: a test file in an empty `root` would prevent another process from replacing it.
        obstacle = find_obstacle(root)
        if obstacle is not None:
            raise DatasetError(str(unusable_output("dataset.root", root, obstacle))) from exc
        raise DatasetError(
            f"cannot write the demo clips to {root}: {os_reason(exc)}; set dataset.root to a writable folder"
        ) from exc


def _write_dataset(folder: Path, scenes: Sequence[Scene]) -> None:
    (folder / "truth").mkdir()
    (folder / "masks").mkdir()
    prompts = [_MANIFEST_HEAD]
    for scene in scenes:
        masks = write_video(scene, folder / f"{scene.clip_id}.mp4")
        write_truth(scene, masks, folder / "truth" / f"{scene.clip_id}.npz")
        prompts.append(manifest_entry(scene, masks, folder))
    (folder / MANIFEST).write_text("".join(prompts), encoding="utf-8")
    # Written last: a folder with the marker is complete.
    marker = _marker(scenes) | {"files": _sizes(folder)}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def _move_into_place(built: Path, root: Path, scenes: Sequence[Scene]) -> None:
    if _is_current(root, scenes):
        return
    _refuse_foreign(root)
    # Another process may have completed the folder in the meantime.
    if _marker_of(root) and not _is_current(root, scenes):
        _rename_old(root)
    try:
        built.replace(root)
    except OSError:
        # Another process was faster: a folder that is not empty cannot be replaced.
        if not _is_current(root, scenes):
            raise


def _rename_old(root: Path) -> None:
    number = 1
    while (old := root.with_name(f"{root.name}.old-{number}")).exists():
        number += 1
    # It is missing if another process has just renamed it.
    with suppress(FileNotFoundError):
        root.rename(old)


def _refuse_foreign(root: Path) -> None:
    if root.is_file():
        raise DatasetError(f"dataset.root={root} is a file; expected a new or empty folder for the demo clips")
    is_free = not root.exists() or not any(root.iterdir())
    if is_free or _marker_of(root):
        return
    raise DatasetError(
        f"dataset.root={root} is not empty and is not the demo dataset (no {MARKER} of the demo); nothing was changed. "
        f"Set dataset.root to a new or empty folder"
    )


def _is_current(root: Path, scenes: Sequence[Scene]) -> bool:
    """Whether all files of this version exist with their sizes; the manifest may have been edited."""
    marker = _marker_of(root)
    expected = _marker(scenes)
    if {key: marker.get(key) for key in expected} != expected or not (root / MANIFEST).is_file():
        return False
    files = cast(dict[str, int], marker.get("files", {}))
    return bool(files) and all(
        (root / name).is_file() and (root / name).stat().st_size == size for name, size in files.items()
    )


def _marker(scenes: Sequence[Scene]) -> dict[str, object]:
    rendering = [WIDTH, HEIGHT, FPS, SEED, SUPERSAMPLING, ENCODER_OPTIONS, NOISE_LEVELS]
    parameters = [*rendering, [_described(scene) for scene in scenes]]
    digest = hashlib.sha256(json.dumps(parameters).encode()).hexdigest()
    return {"generator": _GENERATOR, "version": _VERSION, "parameters_sha256": digest}


def _described(scene: Scene) -> dict[str, object]:
    """A scene as data. A squeeze of 1 is left out: earlier folders, which have no other, stay valid."""
    described = asdict(scene)
    for layer in described["layers"]:
        for pose in layer["poses"]:
            if pose["squeeze"] == 1:
                del pose["squeeze"]
    return described


def _marker_of(root: Path) -> dict[str, object]:
    """The marker in a folder; empty if there is none, or if it is from another program."""
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) and marker.get("generator") == _GENERATOR else {}


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
