"""Plain words for errors of the operating system.

`str()` of an OSError prints "[Errno 2] No such file or directory: 'x'": a number that says nothing to most users, and
the path, which the message around it has already.
"""

from __future__ import annotations

import errno
import os

_REASONS = {
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the file system or the limit of this process (ulimit -f) allows",
    errno.EMFILE: "this process has too many files open",
    errno.ENFILE: "the system has too many files open",
    errno.ENAMETOOLONG: "a name in its path is too long",
    errno.ELOOP: "its symbolic links form a loop",
    errno.EEXIST: "a file or folder with this name exists already",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.EIO: "the disk or the network file system reports an error",
    errno.ESTALE: "the network file system has lost the file",
}


def os_reason(error: Exception, *, otherwise: str = "") -> str:
    """The reason of an error in plain words: without its number, and without the path.

    Args:
        error: an OSError, or an error of a library with the same attributes, such as those of FFmpeg.
        otherwise: the reason if the error has no number, because a library raised it about the content of a file.
    Returns:
        A clause that completes "FILE cannot be read: …".
    """
    number: int = getattr(error, "errno", None) or 0
    if number in _REASONS:
        return _REASONS[number]
    if otherwise and not number:
        return otherwise
    # Libraries put their own internals into `strerror`; the system's text for the same number is shorter.
    text = os.strerror(number) if number in errno.errorcode else getattr(error, "strerror", None) or str(error)
    first_line = (text.strip().splitlines() or ["the operating system gives no reason"])[0]
    return first_line[0].lower() + first_line[1:] if first_line[1:2].islower() else first_line
