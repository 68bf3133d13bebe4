"""Errors of the operating system in plain words: the reason, and what to do next.

`str()` of an OSError prints "[Errno 2] No such file or directory: 'x'": a number that says nothing to most users, and
the path, which the message around it has already.
"""

from __future__ import annotations

import errno
import os

_PERMISSION = ("no permission", "check the permissions of the file and of its folders")
_SPACE = "free some space, or use another disk"

# Number → reason, and what to do next.
_PROBLEMS = {
    errno.ENOENT: ("no such file or folder", "check that the path is correct and that nothing has moved or deleted it"),
    errno.EISDIR: ("it is a folder, not a file", "give the path of a file, or rename the folder"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "correct the path, or rename that file"),
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: ("the file system is read-only", "use a folder on a file system that can be written"),
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("the disk quota is used up", _SPACE),
    errno.EFBIG: (
        "the file is larger than the file system or the limit of this process (ulimit -f) allows",
        "raise the limit, or use another disk",
    ),
    errno.EMFILE: ("this process has too many files open", "raise the limit of this process (ulimit -n)"),
    errno.ENFILE: ("the system has too many files open", "end other programs, or raise the limit of the system"),
    errno.ENAMETOOLONG: ("a name in its path is too long", "use a shorter name"),
    errno.ELOOP: ("its symbolic links form a loop", "correct the links"),
    errno.EEXIST: ("a file or folder with this name exists already", "rename or remove it"),
    errno.ENOTEMPTY: ("the folder is not empty", "move its files to another folder"),
    errno.EIO: (
        "the disk or the network file system reports an error",
        "check the disk and the connection to the file server",
    ),
    errno.ESTALE: (
        "the network file system has lost the file",
        "check the connection to the file server, and mount it again",
    ),
}


def os_reason(error: Exception, *, otherwise: str = "") -> str:
    """The reason of an error in plain words: without its number, and without the path.

    Args:
        error: an OSError, or an error of a library with the same attributes, such as those of FFmpeg.
        otherwise: the reason if the error has no number, because a library raised it about the content of a file.
    Returns:
        A clause that completes "FILE cannot be read: …".
    """
    number = _number(error)
    if number in _PROBLEMS:
        return _PROBLEMS[number][0]
    if otherwise and not number:
        return otherwise
    # Libraries put their own internals into `strerror`; the system's text for the same number is shorter.
    text = os.strerror(number) if number in errno.errorcode else getattr(error, "strerror", None) or str(error)
    first_line = (text.strip().splitlines() or ["the operating system gives no reason"])[0]
    return first_line[0].lower() + first_line[1:] if first_line[1:2].islower() else first_line


def what_to_check(error: Exception, *, otherwise: str = "") -> str:
    """What to do after an error of the operating system: a clause that follows "…: <os_reason>; ".

    Args:
        error: as for `os_reason`.
        otherwise: the clause if the error has no number, because a library raised it about the content of a file.
    """
    number = _number(error)
    if number in _PROBLEMS:
        return _PROBLEMS[number][1]
    return otherwise if otherwise and not number else "check the path, its permissions and the disk"


def os_problem(error: Exception) -> str:
    """The reason of an error and what to do next, as the end of a message: "FILE cannot be read: <os_problem>"."""
    return f"{os_reason(error)}; {what_to_check(error)}"


def _number(error: Exception) -> int:
    number: int = getattr(error, "errno", None) or 0
    return number
