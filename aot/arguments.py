"""The command line of `aot.run`: Hydra's flags, and settings written as key=value.

Hydra and argparse report what their parsers expected. Here every mistake that is common on a command line is reported
with the argument that was meant instead.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from aot.config import GROUPS, RunConfig
from aot.errors import ConfigError
from aot.system.cli import version
from aot.system.text import override_text

_SPLIT = "the shell split this argument at its spaces"
_UNSUPPORTED_FLAGS = {
    "hydra_help": "--hydra-help: use --help, which lists the options of aot",
    "shell_completion": "--shell-completion: tab completion is not supported",
    "config_path": "--config-path: the options of aot are always used; add your own with --config-dir DIR",
    "config_name": "--config-name: there is one main configuration; add options of your own with --config-dir DIR",
    "package": "--package: aot does not use it; override single keys with key=value",
    "experimental_rerun": "--experimental-rerun: run the same command again instead; run.json records it",
}


def config_folder() -> Path:
    """The folder of the options: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed, checkout = package / "conf", package.parent / "conf"
    return installed if installed.is_dir() else checkout


def command_parser() -> argparse.ArgumentParser:
    """Hydra's own command line: overrides, multirun, cfg, config_dir, …; without what aot does not support."""
    parser = get_args_parser()
    parser.prog = "python -m aot.run"
    parser.error = _raise_error  # type: ignore[method-assign]  # argparse would exit before other errors are found
    for action in parser._actions:
        if action.dest == "version":
            action.version = f"aot {version()}"  # type: ignore[attr-defined]
        elif action.dest in _UNSUPPORTED_FLAGS:
            action.help = argparse.SUPPRESS
    return parser


def _raise_error(message: str) -> NoReturn:
    raise ConfigError(message)


def parse_command(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `aot.run`; flags may stand anywhere.

    Returns:
        Hydra's flags, and `overrides`: the settings, each of the form key=value or, for Hydra, ~key.
    Raises:
        ConfigError: lists all arguments that are neither a setting nor a flag, each with what to write instead.
    """
    if errors := _split_brackets(arguments):
        raise ConfigError("\n".join(errors))
    parser = command_parser()
    command, unknown_flags = parser.parse_known_intermixed_args(list(arguments))
    errors = [advice for flag, advice in _UNSUPPORTED_FLAGS.items() if getattr(command, flag)]
    for flag in unknown_flags:
        value = _value_of(flag, arguments)
        errors.append(f"{flag}: no such flag; {_instead_of_flag(flag, value, parser)}")
        if value in command.overrides:
            command.overrides.remove(value)
    errors += _words_without_key(command.overrides)
    if errors:
        raise ConfigError("\n".join(errors))
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


def _value_of(flag: str, arguments: Sequence[str]) -> str:
    """The value that was meant for an unknown flag: after its "=" or in the next argument; otherwise empty."""
    _, is_assigned, value = flag.partition("=")
    following = list(arguments[list(arguments).index(flag) + 1 :]) if flag in arguments else []
    if is_assigned or not following or following[0].startswith("-") or "=" in following[0]:
        return value
    return following[0]


def _instead_of_flag(flag: str, value: str, parser: argparse.ArgumentParser) -> str:
    """What to write instead of an unknown flag."""
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    flags = [text for action in actions for text in action.option_strings if text.startswith("--")]
    name = flag.lstrip("-").partition("=")[0]
    # The first letter of a flag is enough for the few there are: -v for --version.
    near = [text for text in flags if text[2:] == name or (len(name) == 1 and text[2] == name)]
    near = near or get_close_matches(f"--{name}", flags, n=1, cutoff=0.75)
    if near:
        return f"did you mean {near[0]}?"
    key = name.replace("-", "_")
    if value or key in RunConfig.model_fields or "." in key:
        return f"settings have no dashes: {override_text(key, value) if value else f'{key}=VALUE'}"
    return f"expected one of {', '.join(flags)}, and settings as key=value"


def _split_brackets(arguments: Sequence[str]) -> list[str]:
    """One message per argument whose brackets or quotes are closed only by the arguments that follow it."""
    errors, words = [], list(arguments)
    while words:
        first = words.pop(0)
        if "=" not in first or not has_open_bracket(first):
            continue
        for number in range(1, len(words) + 1):
            joined = " ".join([first, *words[:number]])
            if not has_open_bracket(joined):
                quoted = "'" + joined.replace("'", '"') + "'"
                errors.append(f"{joined}: {_SPLIT}; put the whole argument in single quotes: {quoted}")
                words = words[number:]
                break
    return errors


def has_open_bracket(text: str) -> bool:
    """Whether a bracket or a double quote is not closed."""
    outside = re.sub(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", "", text)
    return '"' in outside or any(outside.count(left) > outside.count(right) for left, right in ("[]", "{}", "()"))


def _words_without_key(words: Sequence[str]) -> list[str]:
    """One message per group of arguments that are not key=value: split at spaces, or only a name."""
    errors, rest = [], list(words)
    while rest:
        first = rest.pop(0)
        if first.startswith("=") or not first:
            errors.append(f"{first or repr(first)}: expected key=value")
        elif "=" not in first and rest and rest[0].startswith("="):  # key = value, or key =value
            sign = rest.pop(0)
            value = rest.pop(0) if sign == "=" and rest and "=" not in rest[0] else ""
            typed = " ".join([first, sign, value]).rstrip()
            errors.append(f"{typed}: remove the spaces around '=': {first}={sign[1:] or value or 'VALUE'}")
        elif first.endswith("=") and rest and "=" not in rest[0]:  # key= value
            value = rest.pop(0)
            errors.append(f"{first} {value}: remove the space after '=': {first}{value}")
        elif "=" not in first and not first.startswith("~"):
            errors.append(f"{first}: expected key=value{_option_named(first)}")
        elif "." in first.partition("=")[0]:  # the value may be a path with spaces
            more: list[str] = []
            while rest and "=" not in rest[0] and not rest[0].startswith("~") and not (rest[1:] and rest[1][0] == "="):
                more.append(rest.pop(0))
            if more:
                key, _, value = " ".join([first, *more]).partition("=")
                errors.append(f"{key}={value}: {_SPLIT}; write {override_text(key, value)}")
    return errors


def _option_named(word: str) -> str:
    """A hint at the option of this name, if a group has one."""
    named = [f"{group}={word}" for group in GROUPS if (config_folder() / group / f"{word}.yaml").is_file()]
    return f"; did you mean {' or '.join(named)}?" if named else ""
