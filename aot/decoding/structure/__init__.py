"""Check the structure of container files: whether their parts follow each other without a gap, up to the end.

FFmpeg skips what it cannot read to the next intact part, mostly without an error: a damaged file becomes a shorter one.
Nothing is decoded, and only headers are read, except where the container stores checksums of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from aot.decoding.structure.asf import asf_problem
from aot.decoding.structure.avi import avi_problem
from aot.decoding.structure.flv import flv_problem
from aot.decoding.structure.gif import gif_problem
from aot.decoding.structure.matroska import matroska_problem
from aot.decoding.structure.mp4 import mp4_problem
from aot.decoding.structure.mpegts import mpegts_problem
from aot.decoding.structure.ogg import ogg_problem

# Name of the format, as FFmpeg gives it → what is wrong with a file, or None.
_CHECKS: dict[str, Callable[[BinaryIO, int], str | None]] = {
    "asf": asf_problem,
    "avi": avi_problem,
    "flv": flv_problem,
    "gif": gif_problem,
    "matroska,webm": matroska_problem,
    "mov,mp4,m4a,3gp,3g2,mj2": mp4_problem,
    "mpegts": mpegts_problem,
    "ogg": ogg_problem,
}


def structure_problem(path: Path, format_name: str) -> str | None:
    """What is missing or damaged in a container file, and where; None: nothing, or the format is not checked.

    Args:
        path: the file.
        format_name: FFmpeg's name of the format.
    Raises:
        OSError: the file cannot be read.
    """
    check = _CHECKS.get(format_name)
    if check is None:
        return None
    with path.open("rb") as file:
        return check(file, path.stat().st_size)
