"""Masks as label videos, which lose nothing, and as NPZ files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aot.errors import WriteError
from aot.export.davis import flatten
from aot.export.lerobot.episodes import Episode
from aot.export.lerobot.features import UNLABELLED
from aot.system.files import replacing, write_errors
from aot.system.os_errors import os_reason, what_to_check
from aot.types import ClipResult, UInt8Array
from aot.writing.reader import MaskReader

MAX_OBJECT_ID = UNLABELLED - 1
# Every second frame is a key frame, as in the videos of LeRobot, so that random access decodes at most two; 20 % larger
# than with every tenth. Faster presets make files twice as large, slower ones take up to half as long again.
_ENCODER_OPTIONS = {"qp": "0", "preset": "superfast", "g": "2", "bf": "0"}


def labels_of(episode: Episode, size: tuple[int, int]) -> Iterator[UInt8Array]:
    """Yield the (H, W) object ids of every frame of an episode; UNLABELLED everywhere on frames without masks.

    Raises:
        ResultError: the clip's file cannot be read.
    """
    unlabelled = np.full(size, UNLABELLED, dtype=np.uint8)
    result = episode.result()
    if episode.clip is None or result is None:
        yield from (unlabelled for _ in range(episode.length))
        return
    scores, ids = result.mask_score, result.object_id.astype(np.uint8)
    position_of = {frame: position for position, frame in enumerate(_mask_frames(episode, result))}
    with MaskReader(episode.clip.path) as reader:
        masks = iter(reader)
        for frame in range(episode.length):
            position = position_of.get(frame)
            yield unlabelled if position is None else flatten(next(masks)[1], scores[position], ids)


def write_video(path: Path, labels: Iterable[UInt8Array], size: tuple[int, int], fps: float) -> None:
    """Write a label video: R, G and B of a pixel are its label.

    H.264 in RGB without loss: with a conversion to YUV, or with loss, neighbouring ids could not be distinguished.

    Args:
        path: the file to write.
        labels: (H, W) frames; frame i is shown at i / fps.
        size: height and width, px.
        fps: of the dataset.
    Raises:
        WriteError: the file cannot be written.
    """
    import av

    rate = Fraction(fps).limit_denominator(1_000_000)
    with replacing(path) as part, _encoder_errors(path), av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options=_ENCODER_OPTIONS)
        stream.height, stream.width = size
        stream.pix_fmt = "rgb24"
        stream.codec_context.time_base = 1 / rate
        for number, frame_labels in enumerate(labels):
            frame = av.VideoFrame.from_ndarray(np.repeat(frame_labels[..., None], 3, axis=-1), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def npz_paths(episode: Episode, folder: str) -> list[str]:
    """For every frame of an episode, the path of the NPZ file with its masks; empty for frames without masks.

    Args:
        episode: of the dataset.
        folder: of the camera, below the root of the dataset.
    """
    paths = [""] * episode.length
    result = episode.result()
    for frame in _mask_frames(episode, result) if result is not None else ():
        paths[frame] = npz_path(episode, folder)
    return paths


def npz_path(episode: Episode, folder: str) -> str:
    """The path of the NPZ file of an episode, below the root of the dataset."""
    return f"{folder}/episode_{episode.video.number:06d}.npz"


def write_npz(path: Path, episode: Episode) -> None:
    """Write the masks of an episode, without loss and with overlaps.

    Arrays: `object_id` (K,), `size` (2,) height and width in px, and for every frame with masks, `000012` for
    frame_index 12: (K, H, ⌈W / 8⌉) packed bits. Each array is compressed separately, so that one frame can be read.

    Raises:
        WriteError: the file cannot be written.
        ResultError: the clip's file cannot be read.
    """
    result = episode.result()
    if episode.clip is None or result is None:
        return
    size = [int(result.attributes[name]) for name in ("height", "width")]
    with (
        MaskReader(episode.clip.path) as reader,
        replacing(path) as part,
        write_errors(path),
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        _add(archive, "object_id", result.object_id)
        _add(archive, "size", np.array(size))
        for source_frame, masks in reader:
            _add(archive, f"{source_frame - episode.video.first_frame:06d}", np.packbits(masks, axis=-1))


def _mask_frames(episode: Episode, result: ClipResult) -> list[int]:
    """The frames of an episode that have masks, in the order in which the file has them."""
    return [int(frame) - episode.video.first_frame for frame in result.index[result.mask_row]]


def _add(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


@contextmanager
def _encoder_errors(path: Path) -> Iterator[None]:
    import av
    from av.codec.codec import UnknownCodecError

    try:
        yield
    except (av.FFmpegError, UnknownCodecError, OSError) as exc:
        reason = "the installed PyAV lacks its encoder" if isinstance(exc, UnknownCodecError) else os_reason(exc)
        next_step = what_to_check(exc, otherwise="install a PyAV that has it")
        raise WriteError(
            f"cannot write the label video {path}: {reason}; {next_step}, or use --masks npz or --masks none"
        ) from exc
