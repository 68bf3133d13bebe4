"""All exceptions that aot raises on purpose.

AotError
├── ConfigError         the command, a configuration value or a dataset option is wrong; nothing was started
│   └── CheckpointError     model weights are missing, damaged, or could not be downloaded
├── DatasetError        a dataset's files are missing, misnamed or contradict each other
├── PromptError         a prompt does not fit its clip, or the manifest is wrong
├── DecodeError         the video cannot be read, or not all of its frames
├── SegmentationError   no usable mask came out of a prompt
├── TrackingError       the points could not be tracked
├── WriteError          a file could not be written
│   └── RunDeleted          the run folder was deleted while its clips were processed
├── ResultError         a result file cannot be read, or is not complete
├── ExportError         a result lacks something that another format requires
└── OutOfMemory         host or device memory ran out; a leaner plan or fewer frames may help

A message states what failed (with the value), what was expected and what to do next. Errors of other libraries are
mapped to these in the adapter that calls the library, `from exc`.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

# Control and format characters and line separators: they are invisible, reorder the text around them, or end a line.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Zl", "Zp"})


def unprintable_characters(text: str) -> list[str]:
    """The control and format characters of a text, such as U+202E, which reverses the text after it; each once."""
    return list(dict.fromkeys(char for char in text if unicodedata.category(char) in _UNPRINTABLE))


def printable(text: str, *, keep: str = "\n\t") -> str:
    """A text with its control and format characters as escapes (`\\u202e`), so that it is shown as it is.

    Args:
        text: a message, or the name of a file.
        keep: characters that stay.
    """
    return "".join(
        char.encode("unicode_escape").decode() if char not in keep and unprintable_characters(char) else char
        for char in text
    )


class AotError(Exception):
    """Base class of all errors below; records the clip and the stage, once they are known."""

    kind = "unexpected"
    """The error class as one lower-case word: the name that failures, tables and `retry=` use."""
    clip_id: str | None = None
    stage: str | None = None
    frame_interval: int | None = None

    def __str__(self) -> str:
        """The message; characters that would change how it is shown, such as those of a file name, are escapes."""
        return printable(super().__str__())


class ConfigError(AotError):
    """The command or its configuration is wrong; raised before anything starts."""

    kind = "config"


class DatasetError(AotError):
    """A dataset's files are missing, misnamed or contradict each other."""

    kind = "dataset"


class PromptError(AotError):
    """A prompt does not fit its clip, or the manifest is wrong."""

    kind = "prompt"


class CheckpointError(ConfigError):
    """Model weights are missing, damaged, or could not be downloaded."""

    kind = "checkpoint"


class DecodeError(AotError):
    """The video cannot be read, or not all of its frames."""

    kind = "decode"


class SegmentationError(AotError):
    """No usable mask came out of a prompt."""

    kind = "segmentation"


class TrackingError(AotError):
    """The query points could not be tracked."""

    kind = "tracking"


class WriteError(AotError):
    """A file could not be written."""

    kind = "write"


class RunDeleted(WriteError):
    """The run folder was deleted while its clips were processed; it must not be made again."""


class ResultError(AotError):
    """A result file cannot be read, or is not complete."""

    kind = "result"


class ExportError(AotError):
    """A result lacks something that another format requires."""

    kind = "export"


class OutOfMemory(AotError):
    """Host or device memory ran out; a leaner plan or fewer frames may help."""

    kind = "oom"


@contextmanager
def error_context(
    *, clip_id: str | None = None, stage: str | None = None, frame_interval: int | None = None
) -> Iterator[None]:
    """Record on any AotError that passes through where it happened; the innermost context wins."""
    try:
        yield
    except AotError as error:
        error.clip_id = error.clip_id or clip_id
        error.stage = error.stage or stage
        error.frame_interval = error.frame_interval or frame_interval
        raise
    except (MemoryError, OSError, RuntimeError) as exc:
        if not _is_out_of_memory(exc):
            raise
        out = OutOfMemory(f"out of memory: {_memory_reason(exc)}; use a larger frame_interval")
        out.clip_id, out.stage, out.frame_interval = clip_id, stage, frame_interval
        raise out from exc


def _memory_reason(error: Exception) -> str:
    text = "" if isinstance(error, OSError) else str(error)
    return text or "the system refused an allocation"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; starting a thread needs memory for its stack, and fails with a RuntimeError."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOMEM, errno.EAGAIN)
    return isinstance(error, MemoryError) or str(error) == "can't start new thread"
