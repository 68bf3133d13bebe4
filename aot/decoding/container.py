"""Open files with FFmpeg, and describe in words why it cannot read one and how it is repaired."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import av

from aot.system.os_errors import os_reason

# From version 19 on, PyAV always replaces what is not UTF-8, and has no such argument.
_OTHER_ENCODINGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: Path) -> Any:
    """Open a file with FFmpeg.

    FFmpeg cannot mistake the absolute path for an option (leading dash) or a protocol (colon). Metadata in another
    encoding than UTF-8, such as a title, is not an error.
    """
    return av.open(str(path.absolute()), **_OTHER_ENCODINGS)


def ffmpeg_reason(error: Exception, *, invalid: str = "it is not a video, or it is damaged") -> str:
    """Why FFmpeg cannot read a file, in plain words.

    Args:
        error: raised by PyAV.
        invalid: the reason if FFmpeg reports the data as invalid.
    """
    return invalid if isinstance(error, av.error.InvalidDataError) else os_reason(error)


def ffmpeg_argument(path: Path) -> str:
    """A path as FFmpeg's argument in a shell; without `./`, `-a.mp4` would be an option and `a:b.mp4` a protocol."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") or ":" in text.split("/")[0] else text)


def repair_command(path: Path, filters: str = "", *, input_options: str = "") -> str:
    """The command that re-encodes the frames of a video to another file, which can be read.

    The times are kept exactly, and 4:4:4 has no restrictions on the size.

    Args:
        path: of the video.
        filters: of FFmpeg, quoted for a shell if necessary.
        input_options: of FFmpeg, for reading the video.
    """
    source, repaired = ffmpeg_argument(path), ffmpeg_argument(path.with_name(f"{path.stem}_repaired.mp4"))
    filtered = f"-vf {filters} " if filters else ""
    encoded = "-fps_mode passthrough -enc_time_base 1:90000 -c:v libx264 -pix_fmt yuv444p -crf 18"
    reading = f"{input_options} " if input_options else ""
    return f"ffmpeg {reading}-i {source} -an {filtered}{encoded} {repaired}"


def repair_hint(path: Path, filters: str = "") -> str:
    """The advice to re-encode the readable frames of a damaged video; see `repair_command`."""
    return f"re-encode the frames that can be decoded: {repair_command(path, filters)}"
