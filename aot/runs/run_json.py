"""run.json: what a run folder records about itself (settings, clips and package versions)."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from typing import Any, cast

from aot.datasets.base import check_clip_id
from aot.errors import ConfigError, DatasetError
from aot.paths import RunPaths
from aot.runs.folders import not_a_run
from aot.system.files import write_text
from aot.system.os_errors import os_problem
from aot.system.text_files import MalformedFile, parse_json

SCHEMA = "aot-run/1"
# Lines around those of the clips, each of which is on one line.
_CLIPS_START = ' "clips": {\n'
_CLIPS_END = " }\n"

_REPORTED_PACKAGES = (
    "auto-objects-tracker", "torch", "torchvision", "rf-sam-2", "numpy", "opencv-python-headless", "av",
    "decord2", "h5py", "hydra-core",
)  # fmt: skip


def read_run_json(paths: RunPaths) -> dict[str, Any]:
    """Read a run folder's run.json.

    Args:
        paths: of the run folder.
    Returns:
        The file's contents; `config_hash` (str) and `clips` (clip id → record) are checked.
    Raises:
        ConfigError: the folder has no run.json, or the file is damaged.
    """
    try:
        text = paths.run_json.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise not_a_run(paths.root) from exc
    except OSError as exc:
        raise ConfigError(f"{paths.run_json} cannot be read: {os_problem(exc)}") from exc
    try:
        run = parse_json(text)
        _check(run)
    except MalformedFile as exc:
        raise ConfigError(
            f"{exc.about(paths.run_json)}; the file is damaged: delete it and run the command that created the folder "
            f"again, which rewrites run.json and keeps all finished clips"
        ) from exc
    return cast(dict[str, Any], run)


def read_clip_ids(paths: RunPaths) -> tuple[list[str], list[str]]:
    """The ids of the clips of a run, and those of clips without a prompt; faster than reading all their records.

    Raises:
        ConfigError: as `read_run_json`.
    """
    with (
        suppress(OSError, ValueError, KeyError, TypeError, DatasetError),
        paths.run_json.open(encoding="utf-8") as file,
    ):
        head = []
        for line in file:
            if line == _CLIPS_START:
                break
            head.append(line)
        run = json.loads("".join(head).rstrip().removesuffix(",") + "}")
        decode = json.JSONDecoder().raw_decode
        clip_ids: list[str] = []
        for line in file:
            if line == _CLIPS_END:
                for clip_id in clip_ids:
                    check_clip_id(clip_id)
                return clip_ids, list(run["no_prompt"])
            clip_ids.append(decode(line, 2)[0])
    run = read_run_json(paths)
    return list(run["clips"]), list(run.get("no_prompt", ()))


def write_run_json(paths: RunPaths, run: dict[str, Any]) -> None:
    """Replace a run folder's run.json.

    Args:
        paths: of the run folder, which is created if it does not exist.
        run: the contents; `clips` (clip id → record) must be among them.
    Raises:
        WriteError: the run folder cannot be written.
    """
    write_text(paths.run_json, _one_clip_per_line(run))


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on; "not installed" for those that are missing."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _check(run: Any) -> None:
    """Raise unless it has the keys that all readers of run.json rely on, and clip ids that stay in the run folder."""
    clips = run.get("clips") if isinstance(run, dict) else None
    if not isinstance(clips, dict) or not isinstance(run.get("config_hash"), str):
        raise MalformedFile("expected the keys config_hash and clips")
    for clip_id, record in clips.items():
        try:
            check_clip_id(clip_id)
        except DatasetError as error:
            raise MalformedFile(str(error)) from error
        if not isinstance(record, dict):
            raise MalformedFile(f"clip {clip_id!r}: got {record!r}, expected an object")


def _one_clip_per_line(run: dict[str, Any]) -> str:
    """Readable JSON. Indenting 100,000 clips would take seconds and produce a million lines."""
    clips = ",\n".join(f"  {json.dumps(clip_id)}: {json.dumps(record)}" for clip_id, record in run["clips"].items())
    head = json.dumps({key: value for key, value in run.items() if key != "clips"}, indent=1)
    return f"{head[:-2]},\n{_CLIPS_START}{clips}\n{_CLIPS_END}}}\n"
