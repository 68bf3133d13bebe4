"""The parser for the arguments of all commands except `aot.run`, whose command line is that of Hydra.

Its messages have the form of all others: the value, what was expected, what to do next; without the usage, which would
push them off a small screen.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from aot.system.nearest import suggestion

_EXIT_WRONG = 2
_UNKNOWN = "unrecognized arguments: "

# What argparse says → what is printed.
_WORDS = (
    (r"argument (\S+): invalid int value: (.*)", r"\1 \2: expected an integer"),
    (r"argument (\S+): invalid float value: (.*)", r"\1 \2: expected a number"),
    (r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)", r"\1 \2: expected one of \3"),
    (r"argument (\S+): expected (?:one|at least one) argument", r"\1: expected a value after it"),
    (r"argument (\S+): ignored explicit argument (.*)", r"\1 \2: expected no value"),
    (r"the following arguments are required: (.*)", r"\1: required and not given"),
    (r"ambiguous option: (\S+) could match (.*)", r"\1: expected one of \2"),
    (r"argument (\S+): (.*)", r"\1 \2"),
)


class CommandParser(argparse.ArgumentParser):
    """argparse, with messages in plain words and suggestions for misspelt options and values."""

    def error(self, message: str) -> NoReturn:
        """Print a message and the way to the help; exit with the code of a wrong command.

        Args:
            message: of argparse, or in plain words already.
        """
        unknown = message.removeprefix(_UNKNOWN)
        if unknown != message:
            message = _describe_unknown(unknown, _option_strings(self))
        self.exit(
            _EXIT_WRONG, f"{plain_words(message)}\nNothing was started. `{self.prog} --help` lists the arguments.\n"
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not one of the choices; argparse would not suggest the nearest."""
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or action.metavar or action.dest
            kind = "command" if isinstance(action, argparse._SubParsersAction) or name == "command" else "value"
            self.error(f"{name} {value}: no such {kind}; {suggestion(str(value), map(str, action.choices))}")


def plain_words(message: str) -> str:
    """A message of argparse in the words of the other messages; any other message as it is."""
    for pattern, words in _WORDS:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return found.expand(words)
    return message


def _option_strings(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser and of its subcommands, whose unknown arguments argparse hands to the parser above."""
    found: list[str] = []
    for action in parser._actions:
        found += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            found += [option for below in action.choices.values() for option in _option_strings(below)]
    return list(dict.fromkeys(found))


def _describe_unknown(arguments: str, known: Sequence[str]) -> str:
    """What is wrong with arguments that the command does not have, from the first one on."""
    if not arguments.startswith("-"):
        return f"{arguments}: not expected here; put a path or a pattern that contains spaces or * in quotes"
    name = re.split("[ =]", arguments, maxsplit=1)[0]
    return f"{name}: no such option; {suggestion(name, known)}"
