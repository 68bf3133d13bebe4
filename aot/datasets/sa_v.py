"""Training set of SA-V: videos at 24 frames per second, with masklets in JSON on every fourth frame.

The validation and test sets are folders of frames: conf/dataset/sa_v_val.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from aot.datasets.ground_truth import GroundTruth, TrackTruth
from aot.datasets.published import missing_dataset
from aot.errors import DatasetError
from aot.images.masks import decode_rle, rle_area
from aot.manifest.assign import assign_prompts
from aot.manifest.from_masks import PromptKind, mask_prompt
from aot.system.listing import list_tree
from aot.system.text_files import MalformedFile, about_file, read_json
from aot.types import LOWEST_OBJECT_ID, BoolArray, Clip, Int64Array, Prompt, QueryPoints, RleMask


class SaVideos:
    """Videos with masklets in the same folder: `sav_000001.mp4`, `sav_000001_manual.json`, `sav_000001_auto.json`.

    Args:
        root: folder that contains the videos, directly or in folders below it. All annotation files in it are read
            at the start.
        annotations: masklets to use: `manual` (by people) or `auto` (by a model).
        frames_per_annotation: source frames from one annotated frame to the next, at least 1.
        prompts: prompt manifest; None: each masklet is prompted on the first frame that shows it.
        prompt_from: kind of prompt that is made from a mask: mask, box or points.
    """

    def __init__(
        self,
        root: Path,
        annotations: Literal["manual", "auto"] = "manual",
        frames_per_annotation: Annotated[int, Ge(1)] = 4,
        prompts: Path | None = None,
        prompt_from: PromptKind = "mask",
    ) -> None:
        self.root = root
        self._annotations = annotations
        self._step = frames_per_annotation
        self.prompts = prompts
        self._prompt_from: PromptKind = prompt_from

    def clips(self) -> list[Clip]:
        videos = [] if not self.root.is_dir() else [f for f in list_tree(self.root).files if f.suffix == ".mp4"]
        if not videos:
            raise missing_dataset("dataset.root", self.root, "sav_000001.mp4, … of SA-V in this folder or below it")
        clips = [Clip(clip_id=path.relative_to(self.root).with_suffix("").as_posix(), source=path) for path in videos]
        if self.prompts is not None:
            return assign_prompts(clips, self.prompts, dataset="sa_v", root=self.root)
        return [Clip(clip_id=clip.clip_id, source=clip.source, prompts=self._prompts(clip.clip_id)) for clip in clips]

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        path = self._json_of(clip_id)
        return MaskletTruth(self._masklets(path), path) if path.is_file() else None

    def _json_of(self, clip_id: str) -> Path:
        return self.root / f"{clip_id}_{self._annotations}.json"

    def _prompts(self, clip_id: str) -> tuple[Prompt, ...]:
        path = self._json_of(clip_id)
        if not path.is_file():
            raise DatasetError(
                f"{path} does not exist; expected the masklets of {clip_id}.mp4; download them, or give a manifest: "
                f"dataset.prompts=FILE"
            )
        prompts = []
        for object_id, masks in self._masklets(path).items():
            if masks:
                frame, mask = next(iter(masks.items()))
                name = f"masklet {object_id - LOWEST_OBJECT_ID}"
                prompts.append(mask_prompt(object_id, frame, mask, decode_rle(mask), self._prompt_from, name))
        return tuple(prompts)

    def _masklets(self, path: Path) -> dict[int, dict[int, RleMask]]:
        """Object id → source frame → mask, starting with the first frame that shows the object."""
        try:
            content = read_json(path)
            # Object ids start at 0 in SA-V and at 1 in this package.
            ids = [int(masklet_id) for masklet_id in content["masklet_id"]]
            if len(set(ids)) < len(ids) or min(ids, default=0) < 0:
                raise MalformedFile(f"masklet_id is {ids}; expected different integers ≥ 0")
            masks_of: dict[int, dict[int, RleMask]] = {masklet_id + LOWEST_OBJECT_ID: {} for masklet_id in sorted(ids)}
            for number, masks in enumerate(content["masklet"]):
                if len(masks) != len(ids):
                    raise MalformedFile(
                        f"masklet[{number}] has {len(masks)} masks, expected {len(ids)} as in masklet_id"
                    )
                for masklet_id, entry in zip(ids, masks):
                    mask = _as_rle(entry)
                    of_object = masks_of[masklet_id + LOWEST_OBJECT_ID]
                    if of_object or _area(mask, f"masklet[{number}]"):
                        of_object[number * self._step] = mask
        except (ValueError, KeyError, TypeError, OverflowError) as exc:
            raise DatasetError(
                f"{about_file(path, exc)}; expected masklets of SA-V: masklet_id, and masklet with run lengths of "
                f"every object on every annotated frame"
            ) from exc
        return masks_of


class MaskletTruth(GroundTruth):
    """Masks in run lengths, decoded when a frame is requested; they may overlap.

    Args:
        masks: object id → source frame → mask, for every frame on which the object is annotated.
        path: file of the masks, named in errors.
    """

    def __init__(self, masks: Mapping[int, Mapping[int, RleMask]], path: Path) -> None:
        self._masks = masks
        self._path = path

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(sorted(self._masks))

    @property
    def mask_frames(self) -> Int64Array:
        return np.array(sorted({frame for by_frame in self._masks.values() for frame in by_frame}), dtype=np.int64)

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        try:
            found = {i: decode_rle(self._masks[i][frame]) for i in self.object_ids if frame in self._masks[i]}
        except ValueError as exc:
            raise DatasetError(f"{self._path}: frame {frame}: {exc}") from exc
        return found or None

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth | None:
        return None


def _area(mask: RleMask, where: str) -> int:
    """Number of pixels of a mask; its run lengths are checked."""
    try:
        return rle_area(mask)
    except ValueError as exc:
        raise MalformedFile(f"{where}: {exc}") from exc


def _as_rle(entry: Mapping[str, Any]) -> RleMask:
    height, width = entry["size"]
    return RleMask(height=int(height), width=int(width), counts=str(entry["counts"]))
