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
from aot.system.cli import version

CONFIG_NAME = "config"

_UNSUPPORTED_FLAGS = {
    "hydra_help": "--hydra-help: use --help, which lists the options of aot",
    "shell_completion": "--shell-completion: tab completion is not supported",
    "config_path": "--config-path: the options of aot are always used; add your own with --config-dir DIR",
    "config_name": "--config-name: there is one main configuration; add options of your own with --config-dir DIR",
    "package": "--package: aot does not use it; override single keys with key=value",
    "experimental_rerun": "--experimental-rerun: run the same command again instead; run.json records it",
}


@dataclass(frozen=True)
class Composed:
    """The composed configuration of one job: plain containers, interpolations resolved."""

    values: dict[str, Any]
    choices: dict[str, str]
    """The option chosen in every group."""


def config_folder() -> Path:
    """The folder of the options: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed, checkout = package / "conf", package.parent / "conf"
    return installed if installed.is_dir() else checkout


def command_parser() -> argparse.ArgumentParser:
    """Hydra's own command line: overrides, multirun, cfg, config_dir, …; without what aot does not support."""
    parser = get_args_parser()
    parser.prog = "python -m aot.run"
    for action in parser._actions:
        if action.dest == "version":
            action.version = f"aot {version()}"  # type: ignore[attr-defined]
        elif action.dest in _UNSUPPORTED_FLAGS:
            action.help = argparse.SUPPRESS
    return parser


def parse_command(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `aot.run`; flags may stand anywhere.

    Raises:
        SystemExit: with 2, as argparse does, on an unknown flag.
        ConfigError: the shell has split an argument, or a flag of Hydra is not supported.
    """
    mistakes = split_by_the_shell(arguments)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    command = command_parser().parse_intermixed_args(list(arguments))
    unsupported = [advice for flag, advice in _UNSUPPORTED_FLAGS.items() if getattr(command, flag)]
    if unsupported:
        raise ConfigError("\n".join(unsupported))
    _set_mode(command)
    return command


def _set_mode(command: argparse.Namespace) -> None:
    """Replace the override hydra.mode by the flag that it stands for.

    Raises:
        ConfigError: the mode does not exist.
    """
    prefix = "hydra.mode="
    modes = [override.removeprefix(prefix) for override in command.overrides if override.startswith(prefix)]
    for mode in modes:
        if mode not in ("RUN", "MULTIRUN"):
            raise ConfigError(f"{prefix}{mode}: no such mode; expected RUN or MULTIRUN, which is the same as -m")
    command.multirun = command.multirun or "MULTIRUN" in modes
    command.overrides = [override for override in command.overrides if not override.startswith(prefix)]


def split_by_the_shell(arguments: Sequence[str]) -> list[str]:
    """One message per argument whose brackets or quotes are closed only by the arguments that follow it."""
    mistakes, words = [], list(arguments)
    while words:
        first = words.pop(0)
        if "=" not in first or not _is_open(first):
            continue
        for number in range(1, len(words) + 1):
            joined = " ".join([first, *words[:number]])
            if not _is_open(joined):
                quoted = "'" + joined.replace("'", '"') + "'"
                mistakes.append(
                    f"{joined}: the shell split this argument at its spaces; put the whole argument in single quotes: "
                    f"{quoted}"
                )
                words = words[number:]
                break
    return mistakes


def _is_open(text: str) -> bool:
    """Whether a bracket or a double quote is not closed."""
    outside = re.sub(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", "", text)
    return '"' in outside or any(outside.count(left) > outside.count(right) for left, right in ("[]", "{}", "()"))


def compose_jobs(command: argparse.Namespace) -> tuple[list[Composed], list[str]]:
    """Compose every job of a command: one, or one per combination of the values of a sweep.

    Returns:
        The jobs; and every mistake, each with the nearest valid names. Where there are mistakes, the jobs are composed
        without the wrong overrides, so that their other values can be checked too; such jobs must not be run.
    Raises:
        ConfigError: nothing can be composed at all.
    """
    overrides, mistakes = _parse(command.overrides)
    overrides, refused = _refuse_hydra_settings(overrides)
    mistakes += refused
    with _hydra() as loader:
        usable, unknown = _drop_unknown_names(overrides, loader, command)
        mistakes += unknown
        swept = [override.get_key_element() for override in usable if override.is_sweep_override()]
        if swept and not command.multirun:
            mistakes.append(f"{', '.join(swept)}: several values are a sweep; add -m, or quote a value that has commas")
        return [_compose(job, command) for job in _expand(usable)], mistakes


def _refuse_hydra_settings(overrides: Sequence[Override]) -> tuple[list[Override], list[str]]:
    """Split off the settings of Hydra that have no effect here, each with what to write instead."""
    usable, mistakes = [], []
    for override in overrides:
        key = override.key_or_group
        if key.startswith(("hydra.", "hydra/")) and key != "hydra.searchpath" and override.value() != "basic":
            mistakes.append(f"{override.input_line}: {_instead_of(key, override)}")
        else:
            usable.append(override)
    return usable, mistakes


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
    parser, parsed, mistakes = OverridesParser.create(), [], []
    for text in texts:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as exc:
            reason = str(exc).splitlines()[0]
            mistakes.append(
                f"{text}: not a key=value that Hydra can read ({reason}); put a value with spaces, commas, '=', '~' "
                f"or brackets in double quotes inside single quotes: 'key=\"my value\"'"
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
        config = compose(CONFIG_NAME, [*overrides, *_search_path(command)], return_hydra_config=True)
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
def _hydra() -> Iterator[ConfigLoader]:
    """Hydra, ready to compose; afterwards its global state is empty again."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def _drop_unknown_names(
    overrides: Sequence[Override], loader: ConfigLoader, command: argparse.Namespace
) -> tuple[list[Override], list[str]]:
    """Split off all overrides with unknown names; Hydra stops at the first one and suggests none."""
    options = {group: _options(group, loader, command) for group in GROUPS}
    chosen, mistakes = _chosen_options(overrides, options)
    has_dataset = "dataset" in chosen
    # Without a valid dataset, any dataset serves to list the keys that all of them have.
    base = {"dataset": "demo"} | chosen
    valid = _valid_keys([f"{group}={option}" for group, option in base.items()], command)
    usable = []
    for override in overrides:
        key = override.key_or_group
        if key in options:
            usable += [override] if key in chosen else []
        elif key.startswith("dataset.") and not has_dataset:
            continue
        elif override.is_add() or key.startswith("hydra") or key in valid:
            usable.append(override)
        else:
            mistakes.append(f"{key}: no such key; {_nearest(key, valid)}")
    if not has_dataset:
        usable += _parse([f"dataset={base['dataset']}"])[0]
    return usable, mistakes


def _chosen_options(
    overrides: Sequence[Override], options: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], list[str]]:
    """The option that is chosen in each group, where it exists; and a mistake for each that does not."""
    chosen, mistakes = {}, []
    for override in overrides:
        group = override.key_or_group
        if group not in options:
            continue
        unknown = [value for value in _values(override) if value not in options[group]]
        mistakes += [f"{group}={value}: no such option; {_nearest(str(value), options[group])}" for value in unknown]
        if not unknown:
            chosen[group] = _values(override)[0]
    # A misspelt key, such as datset=davis, is reported with its correction elsewhere.
    if not any(get_close_matches(override.key_or_group, ["dataset"], cutoff=0.8) for override in overrides):
        mistakes.append(f"dataset: none chosen; add dataset=NAME, one of {', '.join(options['dataset'])}")
    return chosen, mistakes


def _values(override: Override) -> list[Any]:
    """The values of an override: one, or those of a sweep."""
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [override.value()]


def _options(group: str, loader: ConfigLoader, command: argparse.Namespace) -> list[str]:
    own = Path(command.config_dir or "", group)
    added = [path.stem for path in own.glob("*.yaml")] if command.config_dir else []
    return sorted({*loader.get_group_options(group, results_filter=ObjectType.CONFIG), *added})


def _valid_keys(choices: list[str], command: argparse.Namespace) -> list[str]:
    """All keys of the configuration that these choices compose, dotted."""
    try:
        config = compose(CONFIG_NAME, [*choices, *_search_path(command)])
    except (HydraException, OmegaConfBaseException) as exc:
        raise ConfigError(f"{' '.join(choices)}: {exc}") from exc
    return [key for key in _dotted(OmegaConf.to_container(config)) if not key.endswith("_target_")]


def _dotted(values: Any, above: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield f"{above}{key}"
            yield from _dotted(value, f"{above}{key}.")


def _nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the known names, dotted or not, that are nearest to a wrong one."""
    group, _, own = name.rpartition(".")
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == group}
    near = [beside[key] for key in get_close_matches(own, beside, n=3)]
    # The name may stand without its group, or in the wrong one.
    near = near or [key for key in known if key.rpartition(".")[2] == own][:3]
    near = near or ([] if beside else get_close_matches(name, known, n=3))
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"expected {', '.join(beside.values() or (key for key in known if '.' not in key))}"
