"""Hydra's side of the configuration: from a command line to composed containers, before Hydra itself takes over."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from aot.config import GROUPS, MISSING
from aot.errors import ConfigError

CONFIG_NAME = "config"


@dataclass(frozen=True)
class Composed:
    """One job's configuration as Hydra composed it: plain containers, interpolations resolved."""

    values: dict[str, Any]
    choices: dict[str, str]
    """The option chosen in every group."""


def config_folder() -> Path:
    """Where the options lie: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed, checkout = package / "conf", package.parent / "conf"
    return installed if installed.is_dir() else checkout


def parse_command(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's own command line: overrides, multirun, cfg, config_dir, …; flags may stand anywhere.

    Raises:
        SystemExit: with 2, as argparse does, on an unknown flag.
    """
    parser = get_args_parser()
    parser.prog = "python -m aot.run"
    return parser.parse_intermixed_args(list(arguments))


def compose_jobs(command: argparse.Namespace) -> tuple[list[Composed], list[str]]:
    """Compose every job that a command means: one, or one a combination of a sweep's values.

    Returns:
        The jobs; and every mistake, each with the nearest valid names. With mistakes the jobs are composed of what is
        left without them, so that what is wrong with the rest can be said too; they are not to be run.
    Raises:
        ConfigError: nothing can be composed at all.
    """
    overrides, mistakes = _parse(command.overrides)
    with _hydra() as loader:
        usable, unknown = _drop_unknown_names(overrides, loader, command)
        mistakes += unknown
        swept = [override.get_key_element() for override in usable if override.is_sweep_override()]
        if swept and not command.multirun:
            mistakes.append(f"{', '.join(swept)}: several values mean a sweep; add -m, or quote one value with commas")
        return [_compose(job, command) for job in _expand(usable)], mistakes


def _parse(texts: Sequence[str]) -> tuple[list[Override], list[str]]:
    parser, parsed, mistakes = OverridesParser.create(), [], []
    for text in texts:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as exc:
            reason = str(exc).splitlines()[0]
            mistakes.append(
                f"{text}: not a key=value that Hydra can read ({reason}); put a value with spaces, commas, '=', '~' "
                f"or brackets in double quotes inside single ones: 'key=\"my value\"'"
            )
    return parsed, mistakes


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
    try:
        config = compose(
            command.config_name or CONFIG_NAME, [*overrides, *_search_path(command)], return_hydra_config=True
        )
        choices = {group: str(config.hydra.runtime.choices.get(group)) for group in GROUPS}
        return Composed(plain(config), choices)
    except (HydraException, OmegaConfBaseException) as exc:
        raise ConfigError(f"{' '.join(overrides)}: {exc}") from exc


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration without Hydra's own part, as plain containers; missing values stay "???"."""
    return {str(key): _plain_value(config, key) for key in config if key != "hydra"}


def _plain_value(node: DictConfig | ListConfig, key: Any) -> Any:
    if OmegaConf.is_missing(node, key):
        return MISSING
    try:
        value = node[key]
    except InterpolationToMissingValueError:  # what it stands on is reported where it is missing
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
def _hydra() -> Iterator[ConfigLoader]:
    """Hydra, ready to compose; its global state is given back as it was found: empty."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def _drop_unknown_names(
    overrides: Sequence[Override], loader: ConfigLoader, command: argparse.Namespace
) -> tuple[list[Override], list[str]]:
    """Split off everything that does not exist; Hydra stops at the first such name and says nothing of near ones."""
    options = {group: _options(group, loader, command) for group in GROUPS}
    usable, mistakes, chosen = [], [], {"dataset": ""}
    for override in overrides:
        group = override.key_or_group
        unknown = [value for value in _values(override) if group in options and value not in options[group]]
        mistakes += [f"{group}={value}: no such option; {_nearest(str(value), options[group])}" for value in unknown]
        if group in options and not unknown:
            chosen[group] = _values(override)[0]
    if not any(override.key_or_group == "dataset" for override in overrides):
        mistakes.append(f"dataset: none chosen; say dataset=NAME, one of {', '.join(options['dataset'])}")
    # Without a valid choice any dataset will do to tell which keys there are besides its own.
    base = {**chosen, "dataset": chosen["dataset"] or "demo"}
    valid = _valid_keys([f"{group}={option}" for group, option in base.items()], command)
    for override in overrides:
        key = override.key_or_group
        if key in options:
            usable += [override] if chosen.get(key) else []
        elif override.is_add() or key.startswith("hydra") or key in valid:
            usable.append(override)
        elif not key.startswith("dataset.") or chosen["dataset"]:
            mistakes.append(f"{key}: no such key; {_nearest(key, valid)}")
    if not chosen["dataset"]:
        usable = [override for override in usable if not override.key_or_group.startswith("dataset.")]
        usable += _parse([f"dataset={base['dataset']}"])[0]
    return usable, mistakes


def _values(override: Override) -> list[Any]:
    """The values an override gives, one or those of a sweep."""
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [override.value()]


def _options(group: str, loader: ConfigLoader, command: argparse.Namespace) -> list[str]:
    own = Path(command.config_dir or "", group)
    added = [path.stem for path in own.glob("*.yaml")] if command.config_dir else []
    return sorted({*loader.get_group_options(group, results_filter=ObjectType.CONFIG), *added})


def _valid_keys(choices: list[str], command: argparse.Namespace) -> list[str]:
    """All keys of the configuration that these choices compose, dotted."""
    config = compose(command.config_name or CONFIG_NAME, [*choices, *_search_path(command)])
    return [key for key in _dotted(OmegaConf.to_container(config)) if not key.endswith("_target_")]


def _dotted(values: Any, above: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield f"{above}{key}"
            yield from _dotted(value, f"{above}{key}.")


def _nearest(name: str, known: Sequence[str]) -> str:
    """Which of the known names, dotted or not, may be meant."""
    group, _, own = name.rpartition(".")
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == group}
    near = [beside[key] for key in get_close_matches(own, beside, n=3)]
    near = near or [key for key in known if key.rpartition(".")[2] == own][:3]  # without its group, or in a wrong one
    near = near or ([] if beside else get_close_matches(name, known, n=3))
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"expected {', '.join(beside.values() or (key for key in known if '.' not in key))}"
