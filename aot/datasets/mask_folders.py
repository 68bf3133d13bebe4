"""Trees that keep a folder of frames and a folder of annotated masks for every clip, as DAVIS does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from aot.datasets.ground_truth import AnnotatedTruth, GroundTruth
from aot.errors import DatasetError
from aot.mask_images import read_indices
from aot.prompts import assign_prompts, points_inside
from aot.types import Clip, MaskFile, Prompt

FOREGROUND = 255
"""DAVIS-2016 paints the one object 255; in palettes the same value means "not annotated"."""


class MaskFolders:
    """Clips whose frames and masks lie in two parallel folders.

    Args:
        root: the tree's top folder.
        images: where the clips' frame folders lie, below root.
        annotations: where the clips' mask folders lie, below root.
        split: a list of clip names, one a line, below root; None: every folder in `images`.
        prompts: a manifest; None: the prompts are made from each clip's first annotated frame.
        prompt_from: what is made of that frame's masks, one prompt an object.
        fps: frames per second, which frame folders do not tell.
    """

    def __init__(
        self,
        root: Path,
        images: str,
        annotations: str,
        split: str | None = None,
        prompts: Path | None = None,
        prompt_from: Literal["mask", "box", "points"] = "mask",
        fps: Annotated[float, Gt(0)] = 24.0,
    ) -> None:
        self.root = root
        self._images = root / images
        self._annotations = root / annotations
        self._split = None if split is None else root / split
        self.prompts = prompts
        self._prompt_from = prompt_from
        self._fps = fps

    def clips(self) -> list[Clip]:
        clips = [Clip(clip_id=name, source=self._images / name, fps=self._fps) for name in self._names()]
        missing = [clip.clip_id for clip in clips if not clip.source.is_dir()]
        if missing:
            raise DatasetError(f"{self._split} lists {', '.join(missing[:5])}; no such folder in {self._images}")
        if self.prompts is not None:
            return assign_prompts(clips, self.prompts)
        return [
            Clip(clip_id=clip.clip_id, source=clip.source, fps=clip.fps, prompts=self._first_masks(clip.clip_id))
            for clip in clips
        ]

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        folder = self._annotations / clip_id
        return AnnotatedTruth(folder, None) if folder.is_dir() else None

    def _names(self) -> list[str]:
        if not self._images.is_dir():
            raise DatasetError(
                f"dataset.root={self.root}: the tree has no folder {self._images}, which should hold the clips"
            )
        if self._split is None:
            return sorted(entry.name for entry in self._images.iterdir() if entry.is_dir())
        try:
            lines = self._split.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise DatasetError(
                f"dataset.split={self._split} cannot be read ({exc}); expected one clip name a line, "
                f"or dataset.split=null for every folder in {self._images}"
            ) from exc
        return [line.strip() for line in lines if line.strip()]

    def _first_masks(self, clip_id: str) -> tuple[Prompt, ...]:
        folder = self._annotations / clip_id
        numbered = sorted((int(path.stem), path) for path in folder.glob("*.png") if path.stem.isdecimal())
        if not numbered:
            raise DatasetError(f"{folder} holds no numbered PNG; expected the masks of clip {clip_id!r}")
        frame, path = numbered[0]
        try:
            values = read_indices(path)
        except ValueError as exc:
            raise DatasetError(f"annotated mask {exc}") from exc
        present = [int(value) for value in np.unique(values) if value != 0]
        if present == [FOREGROUND]:
            return (self._prompt(1, frame, MaskFile(path, FOREGROUND), values == FOREGROUND),)
        return tuple(
            self._prompt(value, frame, MaskFile(path, value), values == value)
            for value in present
            if value != FOREGROUND
        )

    def _prompt(self, object_id: int, frame: int, file: MaskFile, mask: np.ndarray) -> Prompt:
        if self._prompt_from == "mask":
            return Prompt(object_id=object_id, frame=frame, mask=file)
        if self._prompt_from == "points":
            points = points_inside(mask)
            return Prompt(object_id=object_id, frame=frame, points=points, labels=(1,) * len(points))
        ys, xs = np.nonzero(mask)
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        return Prompt(object_id=object_id, frame=frame, box=box)
