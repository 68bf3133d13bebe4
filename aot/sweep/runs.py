"""Read the run folders of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aot.config import RunConfig, load_run_config
from aot.datasets.base import Dataset
from aot.errors import ConfigError
from aot.paths import RunPaths
from aot.runs.folders import not_a_sweep, runs_below
from aot.runs.run_json import read_run_json


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep."""

    root: Path
    group: str
    """The swept options other than frame_interval, as "key=value, …"; empty if there are none."""
    frame_interval: int
    results: Mapping[str, Path]
    """Clip id → result file, for the finished clips."""
    build_dataset: Callable[[], Dataset]


def read_runs(root: Path) -> list[SweptRun]:
    """Read all runs of a sweep.

    Args:
        root: the sweep's folder.
    Raises:
        ConfigError: the folder is not a sweep over frame_interval, or two of its runs have the same options.
    """
    folders = runs_below(root)
    if len(folders) < 2:
        raise not_a_sweep(root)
    jsons = {folder: read_run_json(RunPaths(folder)) for folder in folders}
    configs = {folder: load_run_config(run) for folder, run in jsons.items()}
    options = {folder: _options(config) for folder, config in configs.items()}
    swept = {
        key
        for own in options.values()
        for key, value in own.items()
        if any(other.get(key) != value for other in options.values())
    }
    runs = []
    for folder, config in configs.items():
        paths = RunPaths(folder)
        runs.append(
            SweptRun(
                root=folder,
                group=", ".join(f"{key}={options[folder].get(key)}" for key in sorted(swept)),
                frame_interval=config.frame_interval,
                results={i: paths.clip(i).result for i in jsons[folder]["clips"] if paths.clip(i).result.exists()},
                build_dataset=config.dataset.build,
            )
        )
    _check_distinct(root, runs)
    return runs


def _check_distinct(root: Path, runs: list[SweptRun]) -> None:
    if all(run.frame_interval == runs[0].frame_interval for run in runs):
        raise ConfigError(
            f"{root}: all of its runs have frame_interval={runs[0].frame_interval}; expected at least 2 different "
            f"values, as with frame_interval=1,2,4"
        )
    counts = Counter((run.group, run.frame_interval) for run in runs)
    (group, interval), count = counts.most_common(1)[0]
    if count > 1:
        name = f"frame_interval={interval}" + (f", {group}" if group else "")
        raise ConfigError(f"{root}: {count} runs have the same options ({name}); move all but one to another folder")


def _options(config: RunConfig) -> dict[str, Any]:
    """The options, other than frame_interval, that the runs of a sweep can differ in: choices and their arguments."""
    # Decoders return the same images, so the choice is no difference between runs.
    options: dict[str, Any] = {group: name for group, name in config.choices().items() if group != "decoder"}
    composed = config.as_composed()
    for group in ("dataset", "segmenter", "query_points", "tracker", "ladder"):
        options |= {f"{group}.{key}": value for key, value in composed[group].items() if key != "_target_"}
    return options | {"output.return_check": config.output.return_check}
