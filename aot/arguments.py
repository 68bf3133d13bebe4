"""The command line of `aot.run`: Hydra's flags, and settings written as key=value.

Hydra and argparse report what their parsers expected. Here every error that is common on a command line is reported
with the argument to write instead.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser

from aot.config import GROUPS, RunConfig
from aot.errors import ConfigError
from aot.system.cli import version
from aot.system.command_parser import plain_words
from aot.system.nearest import did_you_mean, nearest_names
from aot.system.text import override_text
from aot.system.text_files import MalformedFile, read_text
from aot.system.yaml_files import parse_yaml

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


def option_values(path: Path) -> dict[str, Any]:
    """The keys and values in the file of an option.

    Raises:
        ConfigError: the file cannot be read, or is not YAML with keys.
    """
    expected = "expected the keys of an option, such as _target_: package.module.Class"
    try:
        values = parse_yaml(read_text(path))
    except MalformedFile as exc:
        raise ConfigError(f"{exc.about(path)}; {expected}") from exc
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {'the file is empty' if values is None else 'it contains no keys'}; {expected}")
    return values


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
    raise ConfigError(plain_words(message))


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
    """The value given to an unknown flag: after its "=" or in the next argument; otherwise empty."""
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
    if near := _nearest_flag(name, flags):
        return did_you_mean([near])
    key = name.replace("-", "_")
    if value or key in RunConfig.model_fields or "." in key:
        return f"settings have no dashes: {override_text(key, value) if value else f'{key}=VALUE'}"
    return f"expected one of {', '.join(flags)}, and settings as key=value"


def _nearest_flag(name: str, flags: Sequence[str]) -> str:
    """The flag whose name is most similar to a name without dashes; empty if none is similar."""
    if len(name) == 1:  # -v for --version
        return next((flag for flag in flags if flag[2] == name), "")
    return next(iter(nearest_names(f"--{name}", flags, cutoff=0.75)), "")


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
    """One message per argument that is not key=value, or that the shell split at its spaces."""
    groups: list[list[str]] = []
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if groups and not following.startswith("=") and _continues(" ".join(groups[-1]), word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [message for group in groups if (message := _describe_words(group))]


def _continues(text: str, word: str) -> bool:
    """Whether a word belongs to the argument that `text` begins."""
    if word.startswith("="):
        return "=" not in text
    if not word or "=" in word or word.startswith("~"):
        return False
    key, sign, value = text.partition("=")
    return bool(sign) and (not value or "." in key)  # the value of a dotted key may be a path with spaces


def _describe_words(group: Sequence[str]) -> str:
    """What is wrong with an argument, given as the words that belong to it; empty if nothing is."""
    text = " ".join(group)
    key, sign, value = text.partition("=")
    if not sign and not text.startswith("~"):
        return f"{text or repr(text)}: expected key=value{_option_named(text)}"
    if not key and sign:
        return f"{text}: expected key=value"
    if len(group) == 1:
        return ""
    setting = override_text(key.rstrip(), value.lstrip() or "VALUE")
    if key.endswith(" "):
        return f"{text}: remove the spaces around '=': {setting}"
    if value.startswith(" "):
        return f"{text}: remove the space after '=': {setting}"
    return f"{text}: {_SPLIT}; write {setting}"


def _option_named(word: str) -> str:
    """A hint at the option of this name, if a group has one."""
    named = [f"{group}={word}" for group in GROUPS if (config_folder() / group / f"{word}.yaml").is_file()]
    return f"; {did_you_mean(named)}" if named else ""
