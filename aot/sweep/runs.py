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

FRAME_INTERVAL, SAMPLE_FPS = "frame_interval", "sample_fps"


@dataclass(frozen=True, order=True)
class Spacing:
    """Which frames a run keeps; the run with the smallest step is the finest."""

    step: float
    """frame_interval, or s between frames for sample_fps; 0: all frames."""
    key: str
    """The swept key: frame_interval or sample_fps."""
    value: str
    """Its value."""

    def __str__(self) -> str:
        return f"{self.key}={self.value}"

    @classmethod
    def of(cls, config: RunConfig, key: str) -> Spacing:
        if key == FRAME_INTERVAL:
            return cls(float(config.frame_interval), key, str(config.frame_interval))
        rate = config.sample_fps
        return cls(0.0, key, "null") if rate is None else cls(1 / rate, key, f"{rate:g}")


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep."""

    root: Path
    group: str
    """The swept options other than the spacing, as "key=value, …"; empty if there are none."""
    spacing: Spacing
    results: Mapping[str, Path]
    """Clip id → result file, for the finished clips."""
    build_dataset: Callable[[], Dataset]


def read_runs(root: Path) -> list[SweptRun]:
    """Read all runs of a sweep.

    Args:
        root: the sweep's folder.
    Raises:
        ConfigError: the folder is not a sweep over frame_interval or sample_fps, or two of its runs have the same
            options.
    """
    folders = runs_below(root)
    if len(folders) < 2:
        raise not_a_sweep(root)
    jsons = {folder: read_run_json(RunPaths(folder)) for folder in folders}
    configs = {folder: load_run_config(run) for folder, run in jsons.items()}
    intervals = {config.frame_interval for config in configs.values()}
    key = FRAME_INTERVAL if len(intervals) > 1 else SAMPLE_FPS
    options = {folder: _options(config, key) for folder, config in configs.items()}
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
                spacing=Spacing.of(config, key),
                results={i: paths.clip(i).result for i in jsons[folder]["clips"] if paths.clip(i).result.exists()},
                build_dataset=config.dataset.build,
            )
        )
    _check_distinct(root, runs)
    return runs


def _check_distinct(root: Path, runs: list[SweptRun]) -> None:
    if all(run.spacing == runs[0].spacing for run in runs):
        raise ConfigError(
            f"{root}: all of its runs keep the same frames ({runs[0].spacing} and the same frame_interval); "
            f"expected at least 2 different values, as with frame_interval=1,2,4 or sample_fps=10,5"
        )
    counts = Counter((run.group, run.spacing) for run in runs)
    (group, spacing), count = counts.most_common(1)[0]
    if count > 1:
        name = f"{spacing}" + (f", {group}" if group else "")
        raise ConfigError(f"{root}: {count} runs have the same options ({name}); move all but one to another folder")


def _options(config: RunConfig, key: str) -> dict[str, Any]:
    """The options, other than the key of the spacing, that the runs of a sweep can differ in, and their arguments."""
    # Decoders return the same images, so the choice is no difference between runs.
    options: dict[str, Any] = {group: name for group, name in config.choices().items() if group != "decoder"}
    composed = config.as_composed()
    for group in ("dataset", "segmenter", "query_points", "tracker", "ladder"):
        options |= {f"{group}.{key}": value for key, value in composed[group].items() if key != "_target_"}
    options |= {} if key == SAMPLE_FPS else {SAMPLE_FPS: config.sample_fps}
    return options | {"output.return_check": config.output.return_check}
