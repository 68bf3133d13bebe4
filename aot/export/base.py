"""The interface of exporters, and the clips that they export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from aot.errors import DecodeError, ExportError
from aot.evaluate.full_rate import held_rows
from aot.images.frames import image_files
from aot.types import BoolArray, ClipResult, Float32Array, Int64Array
from aot.writing.reader import MaskReader, load


@dataclass(frozen=True)
class ExportedClip:
    """One clip to export; reads its result file once."""

    clip_id: str
    path: Path
    """`clips/<clip_id>.h5` of the run."""

    @cached_property
    def result(self) -> ClipResult:
        """The result without masks."""
        return load(self.path, masks=False)

    @property
    def source(self) -> Path:
        """The video, or the folder of frames."""
        return Path(self.result.attributes["source"])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return int(self.result.attributes["height"]), int(self.result.attributes["width"])

    @cached_property
    def frame_names(self) -> list[str] | None:
        """File names of the source frames without suffix; None for a video, or if the folder is missing."""
        try:
            return (
                [path.stem for path in image_files(self.source, self.result.attributes.get("frame_pattern"))]
                if self.source.is_dir()
                else None
            )
        except (DecodeError, OSError):
            return None

    def frame_name(self, frame: int) -> str:
        """Name of a source frame: the name of its file, otherwise its number with five digits."""
        names = self.frame_names
        return names[frame] if names is not None and frame < len(names) else f"{frame:05d}"

    def masks(self, frames: Int64Array) -> Iterator[tuple[int, BoolArray, Float32Array]]:
        """Yield (source frame, (K, H, W) masks, (K,) scores); frames that were not kept get those of the
        previous kept frame.

        Raises:
            ExportError: the result does not have masks on every kept frame.
        """
        result = self.result
        if not len(result.mask_row) or len(result.mask_row) < len(result.index):
            raise ExportError(
                f"{self.clip_id}: has masks on {len(result.mask_row)} of {len(result.index)} kept frames; this format "
                f"requires masks on all of them: use a segmenter that propagates masks (segmenter.propagate=true)"
            )
        with MaskReader(self.path) as reader:
            for frame, row in zip(frames.tolist(), held_rows(result.index, frames).tolist()):
                masks = reader.row(row)
                if masks is not None:
                    yield frame, masks, result.mask_score[row]


class Exporter(Protocol):
    """Writes clips in one format."""

    def export(self, clip: ExportedClip, out: Path) -> Path:
        """Write one clip below the folder `out`.

        Returns:
            The file or folder that was written.
        Raises:
            ExportError: the result lacks something that the format requires.
            WriteError: the folder cannot be written.
            ResultError: the clip's file cannot be read.
            DecodeError: the format includes the frames, and the source cannot be read.
        """
        ...
