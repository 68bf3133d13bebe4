"""Trees that keep a folder of frames and a folder of annotated masks for every clip: DAVIS, YouTube-VOS, LVOS, MOSE."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from aot.datasets.ground_truth import AnnotatedTruth, ApartTruth, GroundTruth, numbered_pictures
from aot.errors import DatasetError, DecodeError
from aot.images.frames import IMAGE_SUFFIXES, image_files
from aot.images.masks import read_indices
from aot.manifest.assign import assign_prompts
from aot.manifest.from_masks import PromptKind, mask_prompt
from aot.types import LOWEST_OBJECT_ID, BoolArray, Clip, MaskFile, Prompt, UInt8Array

FOREGROUND_VALUE = 255
"""DAVIS-2016 paints the one object 255; in palettes the same value means "not annotated"."""


@dataclass(frozen=True)
class _Listed:
    """What the meta file tells of an object."""

    category: str
    first_frame: str
    """Name, without suffix, of the frame that first shows it; empty where the file does not say."""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> _Listed:
        """From YouTube-VOS's words, or LVOS's."""
        first = min(entry["frames"]) if entry.get("frames") else entry.get("frame_range", {}).get("start", "")
        return cls(str(entry.get("category", "")), str(first))


_Meta = Mapping[str, Mapping[int, _Listed]]
"""Clip → object id → what is told of it."""


class MaskFolders:
    """Clips whose frames and masks lie in two parallel folders; a picture belongs to the frame of the same name.

    Args:
        root: the tree's top folder.
        images: where the clips' frame folders lie, below root; {subset} stands for `subset`.
        annotations: where the clips' mask folders lie, likewise.
        split: a list of clip names, one a line, likewise; None: every folder in `images`.
        subset: the part of the dataset, as its folders or lists are called.
        meta: a JSON file that tells on which frame each object is first seen, likewise; None: all pictures are read.
        late_objects: objects join on later frames too, and each is prompted on the frame that first shows it;
            False: all prompts are on the clip's first annotated frame.
        merge_objects: all that is annotated is one object, as in DAVIS-2016.
        object_folders: every object of a clip has a mask folder of its own, 000, 001, …, as in SA-V; masks may overlap.
        prompts: a manifest; None: the prompts are made from the annotated masks.
        prompt_from: what is made of a mask.
        fps: frames per second, which frame folders do not tell.
    """

    def __init__(
        self,
        root: Path,
        images: str,
        annotations: str,
        split: str | None = None,
        subset: str = "",
        meta: str | None = None,
        late_objects: bool = False,
        merge_objects: bool = False,
        object_folders: bool = False,
        prompts: Path | None = None,
        prompt_from: PromptKind = "mask",
        fps: Annotated[float, Gt(0)] = 24.0,
    ) -> None:
        self.root = root
        self._images = root / images.replace("{subset}", subset)
        self._annotations = root / annotations.replace("{subset}", subset)
        self._split = None if split is None else root / split.replace("{subset}", subset)
        self._meta_path = None if meta is None else root / meta.replace("{subset}", subset)
        self._late_objects = late_objects
        self._merge_objects = merge_objects
        self._object_folders = object_folders
        self.prompts = prompts
        self._prompt_from: PromptKind = prompt_from
        self._fps = fps

    def clips(self) -> list[Clip]:
        names = self._names()
        missing = [name for name in names if not os.path.isdir(self._images / name)]  # noqa: PTH112 (never raises)
        if missing:
            raise DatasetError(f"{self._split} lists {', '.join(missing[:5])}; no such folder in {self._images}")
        clips = [Clip(clip_id=name, source=self._images / name, fps=self._fps) for name in names]
        if self.prompts is not None:
            return assign_prompts(clips, self.prompts, root=self.root)
        meta = self._read_meta()
        return [
            Clip(clip_id=name, source=self._images / name, fps=self._fps, prompts=self._prompts(name, meta))
            for name in names
        ]

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        folder = self._annotations / clip_id
        if not folder.is_dir():
            return None
        if self._object_folders:
            frame_of = self._frame_of(clip_id)
            return ApartTruth(
                {
                    object_id: AnnotatedTruth(path, frame_of=frame_of, merge_objects=True)
                    for object_id, path in self._folders_of_objects(clip_id).items()
                }
            )
        truth = AnnotatedTruth(
            folder,
            frame_of=self._frame_of(clip_id),
            late_objects=self._late_objects,
            merge_objects=self._merge_objects,
        )
        # Splits whose truth is hidden hold the prompts alone: a picture only where an object is first seen.
        return None if truth.is_prompts_only else truth

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
        return list(dict.fromkeys(_clip_name(line) for line in lines if line.strip()))

    def _frame_of(self, clip_id: str) -> dict[str, int]:
        """Source frame of every frame's name without suffix; names count by fives in YouTube-VOS, from 1 in LVOS."""
        try:
            return {path.stem: frame for frame, path in enumerate(image_files(self._images / clip_id))}
        except (DecodeError, OSError) as exc:
            raise DatasetError(f"clip {clip_id!r}: {exc}") from exc

    def _prompts(self, clip_id: str, meta: _Meta) -> tuple[Prompt, ...]:
        """One prompt an object, on the frame that first shows it."""
        frame_of = self._frame_of(clip_id)
        if self._object_folders:
            prompts = [self._prompt_apart(i, path, frame_of) for i, path in self._folders_of_objects(clip_id).items()]
            return tuple(prompt for prompt in prompts if prompt is not None)
        pictures = numbered_pictures(self._annotations / clip_id, frame_of)
        listed = {} if self._merge_objects else meta.get(clip_id, {})
        frames = list(pictures) if self._late_objects else list(pictures)[:1]
        if self._late_objects and listed:
            frames = sorted(self._first_frame(clip_id, i, item, frame_of) for i, item in listed.items())
        found: dict[int, Prompt] = {}
        for frame in dict.fromkeys(frames):
            if frame not in pictures:
                raise DatasetError(
                    f"{self._meta_path} says that clip {clip_id!r} first shows an object on frame {frame}; "
                    f"no such picture in {self._annotations / clip_id}"
                )
            for object_id, file, mask in self._masks_in(pictures[frame]):
                name = listed[object_id].category if object_id in listed else ""
                found.setdefault(object_id, mask_prompt(object_id, frame, file, mask, self._prompt_from, name))
        absent = sorted(set(listed) - set(found)) if self._late_objects else []
        if absent:
            raise DatasetError(
                f"{self._meta_path} lists object {absent[0]} of clip {clip_id!r}; the pictures of the frames on which "
                f"objects are first seen do not show it"
            )
        return tuple(found[object_id] for object_id in sorted(found))

    def _masks_in(self, path: Path) -> list[tuple[int, MaskFile, BoolArray]]:
        values = _read(path)
        if self._merge_objects:
            return [(1, MaskFile(path), values != 0)] if values.any() else []
        present = [int(value) for value in np.unique(values) if value != 0]
        if present == [FOREGROUND_VALUE]:
            return [(1, MaskFile(path, FOREGROUND_VALUE), values == FOREGROUND_VALUE)]
        return [(value, MaskFile(path, value), values == value) for value in present if value != FOREGROUND_VALUE]

    def _folders_of_objects(self, clip_id: str) -> dict[int, Path]:
        """Object id → its mask folder; the folders count from 0, ids from 1."""
        folder = self._annotations / clip_id
        folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        strange = [path.name for path in folders if not path.name.isdecimal()]
        if strange or not folders:
            raise DatasetError(
                f"{folder}: found {', '.join(strange[:3]) or 'no folder'}; expected one folder an object: 000, 001, …"
            )
        return {int(path.name) + LOWEST_OBJECT_ID: path for path in folders}

    def _prompt_apart(self, object_id: int, folder: Path, frame_of: Mapping[str, int]) -> Prompt | None:
        """The first mask that shows anything; None where none does."""
        for frame, path in numbered_pictures(folder, frame_of).items():
            mask = _read(path) != 0
            if mask.any():
                name = f"object {folder.name}"
                return mask_prompt(object_id, frame, MaskFile(path), mask, self._prompt_from, name)
        return None

    def _read_meta(self) -> _Meta:
        """Empty without a file."""
        if self._meta_path is None:
            return {}
        try:
            videos = json.loads(self._meta_path.read_text(encoding="utf-8"))["videos"]
            return {
                name: {int(object_id): _Listed.of(entry) for object_id, entry in video["objects"].items()}
                for name, video in videos.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise DatasetError(
                f"dataset.meta={self._meta_path} cannot be used ({type(exc).__name__}: {exc}); expected JSON with "
                f'{{"videos": {{clip: {{"objects": {{id: …}}}}}}}}, or dataset.meta=null to read all masks instead'
            ) from exc

    def _first_frame(self, clip_id: str, object_id: int, listed: _Listed, frame_of: Mapping[str, int]) -> int:
        """Source frame on which the meta file says that an object is first seen."""
        if listed.first_frame not in frame_of:
            raise DatasetError(
                f"{self._meta_path}: object {object_id} of clip {clip_id!r} is first seen on {listed.first_frame!r}; "
                f"expected in frames or frame_range.start the name of a frame in {self._images / clip_id}"
            )
        return frame_of[listed.first_frame]


def _clip_name(line: str) -> str:
    """A split lists names; DAVIS-2016's lists pictures, `/JPEGImages/480p/bear/00000.jpg /Annotations/…`."""
    first = PurePosixPath(line.split()[0])
    return first.parent.name if first.suffix.lower() in IMAGE_SUFFIXES and len(first.parts) > 1 else line.strip()


def _read(path: Path) -> UInt8Array:
    try:
        return read_indices(path)
    except ValueError as exc:
        raise DatasetError(f"annotated mask {exc}") from exc
