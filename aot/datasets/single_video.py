"""One video, with its prompt on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt
from pydantic import ValidationError

from aot.datasets.ground_truth import GroundTruth
from aot.errors import ConfigError, DatasetError
from aot.images.frames import IMAGE_SUFFIXES
from aot.manifest.assign import entry_prompts
from aot.manifest.read import object_errors
from aot.manifest.schema import ClipEntry, ObjectEntry, contradictions
from aot.system.listing import visible_entries
from aot.system.text import override_text
from aot.types import Clip


class SingleVideo:
    """One video file or folder of frames, with one object.

    Args:
        path: video file or folder of frames.
        frame: source frame of the prompt.
        box: [x0, y0, x1, y1] px; None: no box.
        points: [[x, y], …] px.
        labels: one per point: 1 object, 0 background; empty: all are 1.
        mask: image file, in which all pixels other than 0 are the object; excludes box and points. None: no mask.
        fps: frames per second of a folder of frames, above 0; None: 24.
        stream: number of the video stream to read of a file with several, from 0; None: the one that the `ffmpeg`
            command takes, which is the largest, preferably the default one, and the first of equal ones.
        mask_id: pixel value of the object in a mask with several, 1 to 255; None: it has only one.
        pattern: of the names of the frames in a folder with several kinds of images, such as `*_color.png`, as the
            message about such a folder lists them; None: all images are frames.
        text: words that describe the object, which a detector finds on the frame; excludes box, points and mask.
            None: no words.
    Raises:
        ConfigError: there is no prompt, or the prompt is not valid.
    """

    def __init__(
        self,
        path: Path,
        frame: int = 0,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[int] = (),
        mask: Path | None = None,
        fps: Annotated[float, Gt(0)] | None = None,
        pattern: str | None = None,
        mask_id: Annotated[int, Ge(1)] | None = None,
        stream: Annotated[int, Ge(0)] | None = None,
        text: str | None = None,
    ) -> None:
        self.path = path
        self.mask = mask
        self.fps = fps
        self.pattern = pattern
        self.stream = stream
        is_marked = box is not None or bool(points) or mask is not None
        if not is_marked and text is None:
            raise ConfigError(
                "dataset.box, dataset.points and dataset.mask are missing; expected one of them to locate the object, "
                "for example 'dataset.box=[460,335,560,400]', or dataset.text with a detector"
            )
        if is_marked and text is not None:
            raise ConfigError("dataset.text: expected without dataset.box, dataset.points and dataset.mask")
        prompt = {"id": 1, "frame": frame, "points": points, "labels": labels}
        given = {"box": box, "mask": None if mask is None else str(mask), "mask_id": mask_id, "text": text}
        prompt |= {key: value for key, value in given.items() if value is not None}
        try:
            entry = ObjectEntry.model_validate(prompt)
        except ValidationError as exc:
            raise ConfigError("\n".join(f"dataset.{error}" for error in object_errors(exc, prompt))) from exc
        if errors := contradictions([entry]):
            raise ConfigError(f"dataset.labels: {'; '.join(errors)}")
        self._entry = ClipEntry(objects=(entry,))

    def clips(self) -> list[Clip]:
        if not self.path.exists():
            raise DatasetError(f"dataset.path={self.path} does not exist; expected a video file or a folder of frames")
        if not (self.path.is_dir() or self.path.is_file()):
            # A pipe would be waited for, and cannot be read twice.
            raise DatasetError(
                f"dataset.path={self.path} is a pipe or a device; expected a video file or a folder of frames: write "
                f"the video to a file"
            )
        if self.mask is not None and not self.mask.is_file():
            raise DatasetError(
                f"dataset.mask={self.mask} does not exist; expected an image file with the object's mask"
            )
        if self.path.is_dir() and not _has_images(self.path):
            videos = override_text("dataset.root", self.path)
            raise DatasetError(
                f"dataset.path={self.path} is a folder without images; expected a video file, or a folder with one "
                f"image per frame: name a file, or use dataset=videos {videos} for a folder of videos"
            )
        clip_id = self.path.resolve().name if self.path.is_dir() else self.path.stem
        prompts = entry_prompts(self._entry, folder=Path())
        return [Clip(clip_id, self.path, prompts=prompts, fps=self.fps, pattern=self.pattern, stream=self.stream)]

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        return None


def _has_images(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in visible_entries(folder))
