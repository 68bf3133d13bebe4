"""One video, its prompt given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from aot.datasets.ground_truth import GroundTruth
from aot.errors import ConfigError, DatasetError
from aot.prompts import ClipEntry, ObjectEntry, entry_prompts
from aot.types import Clip


class SingleVideo:
    """One file (or folder of frames) and one object in it.

    Args:
        path: the video file, or a folder of frames.
        frame: source frame on which the prompt is given.
        box: [x0, y0, x1, y1] px.
        points: [[x, y], …] px.
        labels: one a point: 1 object, 0 background; none given means all 1.
        mask: an image file, not 0 = object; stands alone.
        fps: frames per second of a folder of frames.
    """

    def __init__(
        self,
        path: Path,
        frame: int = 0,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[int] = (),
        mask: Path | None = None,
        fps: float | None = None,
    ) -> None:
        self.path = path
        self.fps = fps
        prompt = {"id": 1, "frame": frame, "points": points, "labels": labels}
        given = {"box": box, "mask": None if mask is None else str(mask)}
        prompt |= {key: value for key, value in given.items() if value is not None}
        try:
            self._entry = ClipEntry(objects=(ObjectEntry.model_validate(prompt),))
        except ValidationError as exc:
            mistakes = "; ".join(
                f"dataset.{'.'.join(map(str, error['loc'])) or 'box, points or mask'}: {error['msg']}, "
                f"got {error['input']!r}"
                for error in exc.errors()
            )
            raise ConfigError(f"{mistakes}; for example 'dataset.box=[460,335,560,400]'") from exc

    def clips(self) -> list[Clip]:
        if not self.path.exists():
            raise DatasetError(f"dataset.path={self.path} does not exist; expected a video file or a folder of frames")
        clip_id = self.path.resolve().name if self.path.is_dir() else self.path.stem
        prompts = entry_prompts(self._entry, folder=Path())
        return [Clip(clip_id=clip_id, source=self.path, prompts=prompts, fps=self.fps)]

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        return None
