"""SA-V's training set: videos of 24 frames a second with masklets in JSON, annotated on every fourth frame.

Validation and test come as folders of pictures: conf/dataset/sa_v_val.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from aot.datasets.ground_truth import GroundTruth, TrackTruth
from aot.errors import DatasetError
from aot.images.masks import decode_rle, rle_area
from aot.manifest.assign import assign_prompts
from aot.manifest.from_masks import PromptKind, mask_prompt
from aot.types import LOWEST_OBJECT_ID, BoolArray, Clip, Int64Array, Prompt, QueryPoints, RleMask


class SaVideos:
    """Videos, each with its masklets beside it: `sav_000001.mp4`, `sav_000001_manual.json`, `sav_000001_auto.json`.

    Args:
        root: the folder with the videos; folders below it are looked through too.
        annotations: whose masklets: people's, or those that were made automatically.
        frames_per_annotation: source frames from one annotated frame to the next.
        prompts: a manifest; None: each masklet is prompted on the frame that first shows it.
        prompt_from: what is made of a mask.
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
        if not self.root.is_dir():
            raise DatasetError(f"dataset.root={self.root} is not a folder; expected the one with SA-V's sav_*.mp4")
        videos = sorted(self.root.rglob("*.mp4"))
        if not videos:
            raise DatasetError(f"dataset.root={self.root} holds no mp4; expected SA-V's sav_000001.mp4, …")
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
                f"{path} does not exist; expected the masklets of {clip_id}.mp4 there, or a manifest: "
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
        """Object id → source frame → mask, from the frame that first shows the object on."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            # SA-V counts its objects from 0, this package from 1.
            ids = [int(masklet_id) for masklet_id in content["masklet_id"]]
            if len(set(ids)) < len(ids) or min(ids, default=0) < 0:
                raise ValueError(f"masklet_id {ids}; expected different numbers from 0 on")
            found: dict[int, dict[int, RleMask]] = {masklet_id + LOWEST_OBJECT_ID: {} for masklet_id in sorted(ids)}
            for number, masks in enumerate(content["masklet"]):
                if len(masks) != len(ids):
                    raise ValueError(f"masklet[{number}] has {len(masks)} masks, masklet_id names {len(ids)}")
                for masklet_id, entry in zip(ids, masks):
                    mask = _as_rle(entry)
                    of_object = found[masklet_id + LOWEST_OBJECT_ID]
                    if of_object or rle_area(mask):
                        of_object[number * self._step] = mask
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
            raise DatasetError(
                f"{path}: not SA-V's masklets ({type(exc).__name__}: {exc}); expected masklet_id, and masklet with "
                f"the run lengths of every object on every annotated frame"
            ) from exc
        return found


class MaskletTruth(GroundTruth):
    """Masks in run lengths, packed until a frame is asked for; they may overlap.

    Args:
        masks: object id → source frame → mask, of every frame on which the object is annotated.
        path: where they come from, for errors.
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


def _as_rle(entry: Mapping[str, Any]) -> RleMask:
    height, width = entry["size"]
    return RleMask(height=int(height), width=int(width), counts=str(entry["counts"]))
