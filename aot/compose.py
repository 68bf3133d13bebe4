"""From a command line to composed configurations, by Hydra.

Hydra's own `main` exits with 1 if a configuration is wrong, suggests no names, and aborts a sweep when a job fails.
Therefore all jobs of a command are composed and checked here before the first one starts.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from aot.arguments import config_folder, has_open_bracket, option_values
from aot.config import GROUPS, MISSING
from aot.errors import ConfigError
from aot.system.nearest import did_you_mean, nearest_names
from aot.system.text import override_text

CONFIG_NAME = "config"


@dataclass(frozen=True)
class Composed:
    """The composed configuration of one job: plain containers, interpolations resolved."""

    values: dict[str, Any]
    choices: dict[str, str]
    """The option chosen in every group."""


def compose_jobs(command: argparse.Namespace) -> tuple[list[Composed], list[str]]:
    """Compose every job of a command: one, or one per combination of the values of a sweep.

    Returns:
        The jobs; and every error, each with the nearest valid names. Where there are errors, the jobs are composed
        without the wrong overrides, so that their other values can be checked too; such jobs must not be run.
    Raises:
        ConfigError: nothing can be composed at all.
    """
    overrides, errors = _parse(command.overrides)
    overrides, refused = _refuse_hydra_settings(overrides)
    errors += refused
    with _hydra():
        correct = [] if errors else _compose_correct(overrides, command)
        if correct:
            return correct, []
        usable, unknown = _drop_unknown_names(overrides, command)
        errors += not_yet_reported(unknown, errors)
        if not command.multirun:
            errors += [_describe_sweep(override) for override in usable if override.is_sweep_override()]
        return [_compose(job, command) for job in _expand(usable)], errors


def not_yet_reported(messages: Sequence[str], reported: Sequence[str]) -> list[str]:
    """The messages about other settings than those of `reported`; every message begins with the key of the setting.

    A setting that was dropped because it is wrong would otherwise be reported a second time as not given.
    """
    keys = {_key_of(message) for message in reported}
    return [message for message in messages if _key_of(message) not in keys]


def _key_of(message: str) -> str:
    return re.split("[:=]", message, maxsplit=1)[0]


def _describe_sweep(override: Override) -> str:
    """What to write instead of several values without -m."""
    values, key = override.value(), override.get_key_element()
    advice = f"{override.input_line}: several values are a sweep; add -m"
    if override.key_or_group in GROUPS or not (isinstance(values, ChoiceSweep) and values.simple_form):
        return advice
    text = ",".join(override.sweep_string_iterator())
    if all(isinstance(value, int | float) for value in values.list):
        return f"{advice}, or, where a list is expected, write it in brackets: '{key}=[{text}]'"
    return f"{advice}, or put one value that has commas in quotes: {override_text(key, text)}"


def _refuse_hydra_settings(overrides: Sequence[Override]) -> tuple[list[Override], list[str]]:
    """Split off deletions and settings of Hydra without effect here, each with what to write instead."""
    usable, errors = [], []
    for override in overrides:
        key = override.key_or_group
        if override.is_delete():
            errors.append(f"{override.input_line}: a setting cannot be deleted; give it a value: {key}=VALUE")
        elif key.startswith(("hydra.", "hydra/")) and key != "hydra.searchpath" and override.value() != "basic":
            errors.append(f"{override.input_line}: {_instead_of(key, override)}")
        else:
            usable.append(override)
    return usable, errors


def _instead_of(key: str, override: Override) -> str:
    """What to write instead of a setting of Hydra."""
    if key == "hydra/launcher":
        return "aot has its own launchers; write launcher=slurm, launcher=local or launcher=inline"
    if key.startswith("hydra.launcher."):
        own = key.removeprefix("hydra.")
        return f"aot has its own launchers; write launcher=slurm {own}={override.value()}"
    if key.startswith(("hydra.sweeper", "hydra/sweeper")):
        return "aot expands sweeps itself; write the values on the command line: -m frame_interval=1,2,4"
    if key.startswith(("hydra.sweep.", "hydra.run.")):
        return "aot names its own run folders; write output.root=FOLDER"
    return "aot does not use this setting of Hydra; leave it out"


def _parse(texts: Sequence[str]) -> tuple[list[Override], list[str]]:
    parser, parsed, errors = OverridesParser.create(), [], []
    for text in texts:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException:
            errors.append(f"{text}: {_instead_of_unreadable(text, parser)}")
    return parsed, errors


def _instead_of_unreadable(text: str, parser: OverridesParser) -> str:
    """What to write instead of a setting that Hydra's grammar does not allow."""
    key, _, value = text.partition("=")
    try:
        parser.parse_override(f"{key}=0")
    except HydraException:
        return f"{key!r} is not a key; expected key=value, such as frame_interval=2"
    if has_open_bracket(text):
        return "a bracket or a quote is not closed"
    return f"this value needs double quotes inside single quotes: {override_text(key, value)}"


def _expand(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """The override lists of all jobs."""
    choices = []
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line or ""])
    for combination in itertools.product(*choices):
        yield list(combination)


def _compose(overrides: list[str], command: argparse.Namespace) -> Composed:
    with _hydra_errors(overrides, command):
        config = compose(CONFIG_NAME, [*overrides, *_search_path(command)], return_hydra_config=True)
        choices = {group: str(config.hydra.runtime.choices.get(group)) for group in GROUPS}
        return Composed(plain(config), choices)


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration without Hydra's own part, as plain containers; missing values stay "???"."""
    return {str(key): _plain_value(config, key) for key in config if key != "hydra"}


def _plain_value(node: DictConfig | ListConfig, key: Any) -> Any:
    if OmegaConf.is_missing(node, key):
        return MISSING
    try:
        value = node[key]
    except InterpolationToMissingValueError:  # the value it refers to is reported where it is missing
        return OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index]
    if isinstance(value, DictConfig):
        return {str(name): _plain_value(value, name) for name in value}
    if isinstance(value, ListConfig):
        return [_plain_value(value, position) for position in range(len(value))]
    return value


def _search_path(command: argparse.Namespace) -> list[str]:
    if not command.config_dir:
        return []
    folder = Path(command.config_dir).absolute()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {command.config_dir}: no such folder; expected one with dataset/NAME.yaml")
    return [f"hydra.searchpath=['file://{folder}']"]


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra, ready to compose; afterwards its global state is empty again."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


@contextmanager
def _hydra_errors(overrides: Sequence[str], command: argparse.Namespace) -> Iterator[None]:
    """Map errors of Hydra, and those of the files that it reads, to a ConfigError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as exc:
        refuse_broken_options(command, overrides)
        raise ConfigError(f"{' '.join(overrides)}: {_reason(exc)}") from exc
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        refuse_broken_options(command)
        raise


def refuse_broken_options(command: argparse.Namespace, chosen: Sequence[str] | None = None) -> None:
    """Check the files of the user's own options, which Hydra reads without describing what is wrong with them.

    Args:
        command: its --config-dir is the folder of the files.
        chosen: the options to check, each as group=option; None: all.
    Raises:
        ConfigError: a file cannot be read, or is not YAML with keys.
    """
    for path in sorted(Path(command.config_dir).glob("*/*.yaml")) if command.config_dir else []:
        is_empty = path.is_file() and not path.stat().st_size  # allowed, and reported where a key is missing
        if not is_empty and (chosen is None or f"{path.parent.name}={path.stem}" in chosen):
            option_values(path)


def _reason(error: Exception) -> str:
    """The message of an error of Hydra on one line, without the names of its own types."""
    lines = [line for line in str(error).splitlines() if line[:1].strip()]
    key = getattr(error, "full_key", None)
    where = f" (in the key {key})" if key else ""
    return " ".join(lines) + where if lines else "an interpolation in braces, such as ${output.root}, is not complete"


def _compose_correct(overrides: Sequence[Override], command: argparse.Namespace) -> list[Composed]:
    """The jobs of a command without errors. No jobs if there is any error: to describe it takes another composition."""
    is_sweep = any(override.is_sweep_override() for override in overrides)
    if (is_sweep and not command.multirun) or _chosen_options(overrides, _all_options(command))[1]:
        return []
    try:
        jobs = [_compose(job, command) for job in _expand(overrides)]
    except ConfigError:
        return []
    named = {override.key_or_group for override in overrides if _names_a_key(override)}
    return jobs if all(named <= set(_keys(job.values)) for job in jobs) else []


def _names_a_key(override: Override) -> bool:
    """Whether an override sets a key that must exist; not one that it adds, the option of a group, or one of Hydra."""
    key = override.key_or_group
    return not (override.is_add() or key in GROUPS or key.startswith("hydra"))


def _drop_unknown_names(overrides: Sequence[Override], command: argparse.Namespace) -> tuple[list[Override], list[str]]:
    """Split off all overrides with unknown names; Hydra stops at the first one and suggests none."""
    options = _all_options(command)
    chosen, errors = _chosen_options(overrides, options)
    has_dataset = "dataset" in chosen
    # Without a valid dataset, any dataset serves to list the keys that all of them have.
    base = {"dataset": "demo"} | chosen
    valid = _valid_keys([f"{group}={option}" for group, option in base.items()], command)
    usable = []
    for override in overrides:
        key = override.key_or_group
        if key in options:
            is_known = all(value in options[key] for value in _values(override))
            usable += [override] if is_known else []
        elif key.startswith("dataset.") and not has_dataset:
            continue
        elif not _names_a_key(override) or key in valid:
            usable.append(override)
        else:
            errors.append(f"{key}: no such key; {_option_with(key, command) or _nearest(key, valid)}")
    if not has_dataset:
        usable += _parse([f"dataset={base['dataset']}"])[0]
    return usable, errors


def _option_with(key: str, command: argparse.Namespace) -> str:
    """A hint at the options whose files have a key which the chosen option has not; empty if there are none."""
    group, _, own = key.partition(".")
    files = _option_files(group, command) if group in GROUPS else []
    others = sorted(
        {f"{group}={path.stem}" for path in files if path.stat().st_size and own in _keys(option_values(path))}
    )
    return f"it belongs to {' or '.join(others)}" if others else ""


def _chosen_options(
    overrides: Sequence[Override], options: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], list[str]]:
    """The option that is chosen in each group, where it exists; and an error for each that does not."""
    chosen: dict[str, str] = {}
    errors = []
    for override in overrides:
        group = override.key_or_group
        if group not in options:
            continue
        unknown = [value for value in _values(override) if value not in options[group]]
        errors += [f"{group}={value}: no such option; {_nearest(value, options[group])}" for value in unknown]
        if not unknown:
            chosen[group] = _values(override)[0]
    # A misspelt key, such as datset=davis, is reported with its correction elsewhere.
    if not any(nearest_names(override.key_or_group, ["dataset"], cutoff=0.8) for override in overrides):
        errors.append(f"dataset: none chosen; add dataset=NAME, one of {', '.join(options['dataset'])}")
    return chosen, errors


def _values(override: Override) -> list[str]:
    """The values of an override: one, or those of a sweep."""
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    value = override.value()
    return [value if isinstance(value, str) else override.get_value_element_as_str()]


def _all_options(command: argparse.Namespace) -> dict[str, list[str]]:
    """The options of every group: those of aot, and the user's own."""
    return {group: sorted({path.stem for path in _option_files(group, command)}) for group in GROUPS}


def _option_files(group: str, command: argparse.Namespace) -> list[Path]:
    folders = [config_folder(), *([Path(command.config_dir)] if command.config_dir else [])]
    return [path for folder in folders for path in (folder / group).glob("*.yaml") if path.is_file()]


def _valid_keys(choices: list[str], command: argparse.Namespace) -> list[str]:
    """All keys of the configuration that these choices compose, dotted."""
    with _hydra_errors(choices, command):
        config = compose(CONFIG_NAME, [*choices, *_search_path(command)])
    return _keys(OmegaConf.to_container(config))


def _keys(values: Any) -> list[str]:
    """The dotted keys that a command may set."""
    return [key for key in _dotted(values) if not key.endswith("_target_")]


def _dotted(values: Any, above: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield f"{above}{key}"
            yield from _dotted(value, f"{above}{key}.")


def _nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the known names, dotted or not, that are nearest to a wrong one."""
    group, _, own = name.rpartition(".")
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == group}
    near = [beside[key] for key in nearest_names(own, beside)]
    # The name may stand without its group, or in the wrong one.
    near = near or [key for key in known if key.rpartition(".")[2] == own][:3]
    near = near or ([] if beside else nearest_names(name, known))
    if near:
        return did_you_mean(near)
    return f"expected one of {', '.join(beside.values() or (key for key in known if '.' not in key))}"
