"""Errors of the operating system in plain words, from real operations that fail."""

from __future__ import annotations

import ast
import builtins
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import aot
from aot.errors import WriteError
from aot.system.files import write_errors
from aot.system.os_errors import os_problem, os_reason, what_to_check

PACKAGE = Path(aot.__file__).parent

FAILING: dict[str, Callable[[Path], object]] = {
    "no such file or folder": lambda folder: (folder / "gone").read_bytes(),
    "it is a folder, not a file": lambda folder: folder.read_bytes(),
    "a part of its path is a file, not a folder": lambda folder: (folder / "file" / "below").read_bytes(),
    "a name in its path is too long": lambda folder: (folder / ("x" * 300)).read_bytes(),
    "its symbolic links form a loop": lambda folder: (folder / "loop").read_bytes(),
    "a file or folder with this name exists already": lambda folder: (folder / "file").mkdir(),
    "the folder is not empty": lambda folder: folder.rmdir(),
    "the disk is full": lambda folder: Path("/dev/full").write_bytes(b"x"),
}


@pytest.mark.parametrize("reason", FAILING)
def test_reasons_are_plain_words(tmp_path: Path, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match=r"Errno") as caught:
        FAILING[reason](tmp_path)
    assert os_reason(caught.value) == reason


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_no_reason_has_a_number_or_the_path(number: int) -> None:
    reason = os_reason(OSError(number, os.strerror(number), "/data/x"))
    assert reason
    assert "Errno" not in reason
    assert "/data/x" not in reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, "Unable to open file (errno = 5, buf = 0x7ff)"), "the disk or the network file system"),
        (OSError(errno.EPIPE, "library text"), "broken pipe"),
        (TimeoutError("timed out"), "timed out"),
        (OSError("First line\nsecond line"), "first line"),
        (OSError(), "the operating system gives no reason"),
    ],
)
def test_errors_of_libraries_lose_their_internals(error: OSError, reason: str) -> None:
    assert os_reason(error).startswith(reason)
    assert "\n" not in os_reason(error)


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_reason_has_a_next_step(number: int) -> None:
    error = OSError(number, os.strerror(number), "/data/x")
    assert os_problem(error) == f"{os_reason(error)}; {what_to_check(error, otherwise='of a library')}"
    assert re.match(r"(check|use|give|correct|raise|end|free|rename|move) ", what_to_check(error))


def test_next_step_of_an_error_without_a_number() -> None:
    assert what_to_check(OSError("damaged"), otherwise="copy it again") == "copy it again"
    assert what_to_check(OSError()) == "check the path, its permissions and the disk"


@pytest.mark.parametrize(
    ("number", "end"),
    [
        (errno.EACCES, "no permission; check the permissions of the file and of its folders"),
        (errno.ENOSPC, "the disk is full; free some space, or use another disk"),
        (errno.EROFS, "the file system is read-only; use a folder on a file system that can be written"),
        (errno.ENAMETOOLONG, "a name in its path is too long; use a shorter name"),
    ],
)
def test_failed_write_says_what_to_do(number: int, end: str) -> None:
    with pytest.raises(WriteError) as caught, write_errors(Path("/data/x")):
        raise OSError(number, os.strerror(number), "/data/x")
    assert str(caught.value) == f"/data/x could not be written: {end}"


OS_ERRORS = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, OSError)}


def handlers_of_os_errors(path: Path) -> Iterator[ast.ExceptHandler]:
    """The handlers of a module that name an OSError or FFmpegError, directly or in a tuple of the module."""
    tree = ast.parse(path.read_text())
    tuples = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type:
            kinds = [node.type, *(tuples[name.id] for name in ast.walk(node.type) if getattr(name, "id", "") in tuples)]
            names = {part for kind in kinds for part in re.findall(r"\w+", ast.unparse(kind))}
            if names & (OS_ERRORS | {"FFmpegError"}):
                yield node


def printed_errors(handler: ast.ExceptHandler) -> Iterator[str]:
    """Expressions that make text of the caught error as it is."""
    name = handler.name
    texts = {f"str({name})", f"repr({name})", f"{name}.strerror", f"type({name}).__name__"}
    for node in ast.walk(handler):
        if isinstance(node, ast.FormattedValue) and ast.unparse(node.value) == name:
            yield f"{{{name}}}"
        elif isinstance(node, ast.expr) and ast.unparse(node) in texts:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_do_not_print_errors_of_the_system_as_they_are(path: Path) -> None:
    found = [
        f"line {handler.lineno}: {text}" for handler in handlers_of_os_errors(path) for text in printed_errors(handler)
    ]
    assert not found, "print os_reason(exc), or another description in plain words"
