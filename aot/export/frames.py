"""The frames that exports include or refer to, and the folders of clips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aot.export.base import ExportedClip
from aot.source_frames import source_frames
from aot.system.files import replacing_folder
from aot.types import Int64Array, UInt8Array

_JPEG_QUALITY = 95
# A third of the time of the default level 6, for files of 1296x720 that are 8 % larger.
_PNG_LEVEL = 3


def frames_of(clip: ExportedClip, index: Int64Array, size: tuple[int, int] | None = None) -> Iterator[UInt8Array]:
    """Yield the (H, W, 3) RGB of a clip's source frames; see `source_frames`."""
    return source_frames(clip.result.attributes, index, size)


def save_frames(clip: ExportedClip, index: Int64Array, folder: Path) -> None:
    """Write source frames as `<frame name>.jpg` into a folder, which is replaced.

    Raises:
        DecodeError: the source cannot be read.
        WriteError: the folder cannot be written.
    """
    with replacing_clip_folder(folder) as part:
        for frame, rgb in zip(index.tolist(), frames_of(clip, index)):
            save_image(part / f"{clip.frame_name(frame)}.jpg", rgb)


def save_image(path: Path, rgb: UInt8Array) -> None:
    """Write a JPEG or PNG, as the suffix says, in a folder that exists or is made."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, quality=_JPEG_QUALITY, compress_level=_PNG_LEVEL)


@contextmanager
def replacing_clip_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill in place of a clip's; it keeps the folders of other clips, such as "day1/a" below "day1".

    Raises:
        WriteError: the folder cannot be written.
    """
    with replacing_folder(folder) as part:
        yield part
        if folder.is_dir():
            for below in [path for path in folder.iterdir() if path.is_dir() and not (part / path.name).exists()]:
                below.rename(part / below.name)
