"""Datasets with one folder of frames and one folder of masks per clip: DAVIS, YouTube-VOS, LVOS, MOSE, SA-V.

Frames and masks are in two parallel trees; a mask belongs to the frame with the same file name.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from annotated_types import Gt

from aot.datasets.annotations import AnnotatedTruth, PerObjectTruth, mask_files, read_mask
from aot.datasets.ground_truth import GroundTruth
from aot.datasets.published import contents_above, is_empty_folder, missing_dataset
from aot.errors import DatasetError, DecodeError
from aot.images.frames import IMAGE_SUFFIXES, image_files
from aot.images.mask_images import VOID
from aot.manifest.assign import assign_prompts
from aot.manifest.from_masks import PromptKind, mask_prompt
from aot.system.listing import composed, is_ignored, visible_entries
from aot.system.os_errors import os_problem
from aot.system.text_files import MalformedFile, about_file, read_json, read_text
from aot.types import LOWEST_OBJECT_ID, BoolArray, Clip, MaskFile, Prompt


@dataclass(frozen=True)
class _MetaObject:
    """One object in the meta file."""

    category: str
    frames: tuple[str, ...]
    """File names, without suffix, of frames that show the object, the first one among them; empty if there are none."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> _MetaObject:
        """Read an entry of YouTube-VOS (`frames`) or of LVOS (`frame_range`)."""
        frames = entry.get("frames") or [entry.get("frame_range", {}).get("start", "")]
        return cls(str(entry.get("category", "")), tuple(str(frame) for frame in frames))

    def first_frame(self, frame_of: Mapping[str, int]) -> str:
        """The frame that first shows the object, in the order of the clip's frames; of unknown names, one of them."""
        unknown = [name for name in self.frames if name not in frame_of]
        return unknown[0] if unknown else min(self.frames, key=lambda name: frame_of[name])


_Meta = Mapping[str, Mapping[int, _MetaObject]]
"""Clip name → object id → entry."""


class MaskFolders:
    """Clips whose frames and annotated masks are in two parallel trees.

    In `images`, `annotations`, `split` and `meta`, `{subset}` is replaced by `subset`.

    Args:
        root: top folder of the dataset; the following paths are relative to it.
        images: folder that contains one folder of frames per clip.
        annotations: folder that contains one folder of mask PNGs per clip; pixel values are object ids.
        split: text file with one clip name per line; None: every folder in `images` is a clip.
        subset: name of the part of the dataset, as in its folders or lists.
        meta: JSON file with the first frame and the category of each object; None: all masks are read to find the
            first frames (a few ms each).
        late_objects: objects may appear on later frames, and each is prompted on the frame that first shows it;
            False: all prompts are on the first annotated frame of the clip.
        merge_objects: all annotated objects of a clip are one object, as in DAVIS 2016.
        object_folders: each object of a clip has its own folder of masks, 000, 001, …, as in SA-V; masks may overlap.
        prompts: prompt manifest; None: the prompts are made from the annotated masks.
        prompt_from: kind of prompt that is made from a mask: mask, box or points.
        fps: frames per second, above 0; folders of frames do not contain it.
        pattern: of the names of the frames in folders with several kinds of images, such as `*_color.png`, as the
            message about such a folder lists them; None: all images are frames.
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
        pattern: str | None = None,
    ) -> None:
        self.root = root
        self._subset = subset
        templates = [template for template in (split, images) if template and "{subset}" in template]
        self._templates = [template for template in templates if not PurePosixPath(template).is_absolute()]
        self._images_name = images.replace("{subset}", subset)
        self._images = root / self._images_name
        self._annotations = root / annotations.replace("{subset}", subset)
        self._split = None if split is None else root / split.replace("{subset}", subset)
        self._meta_path = None if meta is None else root / meta.replace("{subset}", subset)
        self._late_objects = late_objects
        self._merge_objects = merge_objects
        self._object_folders = object_folders
        self.prompts = prompts
        self._prompt_from: PromptKind = prompt_from
        self._fps = fps
        self.unusable: Mapping[str, str] = {}
        self._pattern = pattern

    def clips(self) -> list[Clip]:
        names = self._names()
        missing = [name for name in names if not os.path.isdir(self._images / name)]  # noqa: PTH112 (never raises)
        if missing and self._split is not None:
            raise DatasetError(
                f"{self._split} lists {', '.join(missing[:5])}; no such folder in {self._images}: "
                f"check dataset.subset, or download the missing clips"
            )
        clips = [Clip(clip_id=name, source=self._images / name, fps=self._fps, pattern=self._pattern) for name in names]
        if self.prompts is not None:
            return assign_prompts(clips, self.prompts, root=self.root)
        prompts = self._usable_prompts(names)
        return [replace(clip, prompts=prompts.get(clip.clip_id, ())) for clip in clips]

    def _usable_prompts(self, names: Sequence[str]) -> dict[str, tuple[Prompt, ...]]:
        """Clip id → prompts, of the clips whose frames and masks can be read; the others are recorded as unusable.

        Raises:
            DatasetError: there are clips, and none of them is usable: the first reason.
        """
        meta = self._read_meta()
        found, unusable = {}, {}
        for name in names:
            try:
                found[name] = self._prompts(name, meta)
            except DatasetError as error:
                unusable[name] = str(error)
        if unusable and not found:
            raise DatasetError(next(iter(unusable.values())))
        self.unusable = unusable
        return found

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        folder = self._masks_of(clip_id)
        if not folder.is_dir():
            return None
        if self._object_folders:
            frame_of = self._frame_of(clip_id)
            return PerObjectTruth(
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
        # Test sets without public annotations contain only the prompts: one mask where an object first appears.
        return None if truth.is_prompts_only else truth

    def _names(self) -> list[str]:
        if not self._images.is_dir():
            if not self.root.is_dir() or is_empty_folder(self.root):
                self._refuse_root_of_no_subset()
                expected = f"the dataset's top folder, with the frames of each clip in {self._images_name}"
                raise missing_dataset("dataset.root", self.root, expected)
            self._refuse_unknown_subset()
            raise DatasetError(
                f"dataset.root={self.root}: no folder {self._images}; expected one folder of frames per clip in it: "
                f"check dataset.root and dataset.images; {contents_above(self._images)}"
            )
        if self.prompts is None and not self._annotations.is_dir():
            raise DatasetError(
                f"dataset.root={self.root}: no folder {self._annotations}; expected one folder of masks per clip in "
                f"it, or prompts from a manifest (dataset.prompts=FILE): check dataset.root and dataset.annotations; "
                f"{contents_above(self._annotations)}"
            )
        self._refuse_unknown_subset()
        if self._split is None:
            # A link that leads nowhere is a clip that cannot be read, not one that does not exist.
            entries = visible_entries(self._images)
            return [entry.name for entry in entries if entry.is_dir() or (entry.is_symlink() and not entry.exists())]
        hint = f"expected one clip name per line; dataset.split=null takes every folder in {self._images}"
        try:
            lines = [line for line in read_text(self._split).splitlines() if line.strip()]
        except MalformedFile as exc:
            raise DatasetError(f"{exc.about(f'dataset.split={self._split}')}; {hint}") from exc
        if not lines:
            raise DatasetError(f"dataset.split={self._split}: the file is empty; {hint}")
        listed = {composed(entry.name): entry.name for entry in visible_entries(self._images)}
        return [listed.get(composed(name), name) for name in dict.fromkeys(map(_clip_name, lines))]

    def _refuse_unknown_subset(self) -> None:
        """Raise if the dataset does not have the requested subset, but has other subsets."""
        for template in self._templates:
            if not (self.root / template.replace("{subset}", self._subset)).exists():
                found = _subsets(self.root, template)
                if found:
                    raise DatasetError(
                        f"dataset.subset={self._subset} does not exist in {self.root}; expected {_one_of(found)}"
                    )

    def _refuse_root_of_no_subset(self) -> None:
        """Raise if the name of the root contains the subset, and the folders of other subsets exist beside it."""
        name = self.root.name
        if not self._subset or self._subset not in name or self.root.exists():
            return
        found = _subsets(self.root.parent, name.replace(self._subset, "{subset}"))
        if found:
            raise DatasetError(
                f"dataset.subset={self._subset}: no folder {self.root}; expected {_one_of(found)} according to the "
                f"folders in {self.root.parent}, or another dataset.root"
            )

    def _frame_of(self, clip_id: str) -> dict[str, int]:
        """Frame name without suffix → source frame; names are multiples of 5 in YouTube-VOS and start at 1 in LVOS."""
        try:
            return {
                composed(path.stem): frame
                for frame, path in enumerate(image_files(self._images / clip_id, self._pattern))
            }
        except DecodeError as error:
            raise DatasetError(f"clip {clip_id!r}: {error}") from error
        except OSError as exc:
            raise DatasetError(f"clip {clip_id!r}: {self._images / clip_id} cannot be read: {os_problem(exc)}") from exc

    def _masks_of(self, clip_id: str) -> Path:
        """The folder of a clip's masks; its name may be written with other characters that look the same."""
        folder = self._annotations / clip_id
        if folder.exists() or not self._annotations.is_dir():
            return folder
        same = (path for path in visible_entries(self._annotations) if composed(path.name) == composed(clip_id))
        return next(same, folder)

    def _prompts(self, clip_id: str, meta: _Meta) -> tuple[Prompt, ...]:
        """One prompt per object, on the first frame that shows it, ordered by object id."""
        frame_of = self._frame_of(clip_id)
        if self._object_folders:
            prompts = [self._folder_prompt(i, path, frame_of) for i, path in self._folders_of_objects(clip_id).items()]
            return tuple(prompt for prompt in prompts if prompt is not None)
        files = mask_files(self._masks_of(clip_id), frame_of)
        objects = {} if self._merge_objects else meta.get(composed(clip_id), {})
        found: dict[int, Prompt] = {}
        for frame in self._prompt_frames(clip_id, files, objects, frame_of):
            for object_id, file, mask in self._masks_in(files[frame]):
                name = objects[object_id].category if object_id in objects else ""
                found.setdefault(object_id, mask_prompt(object_id, frame, file, mask, self._prompt_from, name))
        if files and not found and not self._late_objects:
            raise DatasetError(
                f"clip {clip_id!r}: no object in its first annotation {next(iter(files.values()))}; expected all "
                f"objects there: dataset.late_objects=true prompts each object on the frame that first shows it"
            )
        absent = sorted(set(objects) - set(found)) if self._late_objects else []
        if absent:
            raise DatasetError(
                f"{self._meta_path} lists object {absent[0]} of clip {clip_id!r}; expected it in the masks of the "
                f"frames on which objects first appear: check that annotations and meta file belong together"
            )
        return tuple(found[object_id] for object_id in sorted(found))

    def _prompt_frames(
        self,
        clip_id: str,
        files: Mapping[int, Path],
        objects: Mapping[int, _MetaObject],
        frame_of: Mapping[str, int],
    ) -> list[int]:
        """Annotated frames, ascending, whose masks are read to find where each object first appears."""
        if not self._late_objects:
            return list(files)[:1]
        if not objects:
            return list(files)
        frames = sorted({self._first_frame(clip_id, i, item, frame_of) for i, item in objects.items()})
        for frame in frames:
            if frame not in files:
                raise DatasetError(
                    f"{self._meta_path}: an object of clip {clip_id!r} first appears on frame {frame}; expected a mask "
                    f"of this frame in {self._masks_of(clip_id)}"
                )
        return frames

    def _masks_in(self, path: Path) -> list[tuple[int, MaskFile, BoolArray]]:
        """(object id, reference to its pixels in the file, (H, W) mask) of every object in an image."""
        image = read_mask(path)
        if self._merge_objects:
            return [(1, MaskFile(path, has_several_ids=True), image.any_object())] if image.ids else []
        if image.ids == (VOID,):
            return [(1, MaskFile(path, VOID), image.any_object())]
        return [(value, MaskFile(path, value), image.values == value) for value in image.ids]

    def _folders_of_objects(self, clip_id: str) -> dict[int, Path]:
        """Object id → its folder of masks; folder names start at 0, ids at 1."""
        folder = self._masks_of(clip_id)
        folders = [path for path in visible_entries(folder) if path.is_dir()] if folder.is_dir() else []
        unexpected = [path.name for path in folders if not path.name.isdecimal()]
        if unexpected or not folders:
            raise DatasetError(
                f"{folder}: found {', '.join(unexpected[:3]) or 'no folder'}; "
                f"expected one folder per object: 000, 001, …"
            )
        return {int(path.name) + LOWEST_OBJECT_ID: path for path in folders}

    def _folder_prompt(self, object_id: int, folder: Path, frame_of: Mapping[str, int]) -> Prompt | None:
        """Prompt from the first mask that is not empty; None: all are empty."""
        for frame, path in mask_files(folder, frame_of).items():
            mask = read_mask(path).any_object()
            if mask.any():
                name = f"object {folder.name}"
                return mask_prompt(
                    object_id, frame, MaskFile(path, has_several_ids=True), mask, self._prompt_from, name
                )
        return None

    def _read_meta(self) -> _Meta:
        """Read the meta file; empty if there is none."""
        if self._meta_path is None:
            return {}
        try:
            videos = read_json(self._meta_path)["videos"]
            return {
                composed(name): {
                    int(object_id): _MetaObject.from_json(entry) for object_id, entry in video["objects"].items()
                }
                for name, video in videos.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise DatasetError(
                f"{about_file(f'dataset.meta={self._meta_path}', exc)}; expected JSON with "
                f'{{"videos": {{clip: {{"objects": {{id: …}}}}}}}}, or dataset.meta=null to read all masks instead'
            ) from exc

    def _first_frame(self, clip_id: str, object_id: int, item: _MetaObject, frame_of: Mapping[str, int]) -> int:
        """Source frame on which an object first appears according to the meta file."""
        first = item.first_frame(frame_of)
        if first not in frame_of:
            raise DatasetError(
                f"{self._meta_path}: object {object_id} of clip {clip_id!r} first appears on {first!r}; "
                f"expected the name of a frame in {self._images / clip_id} (keys: frames, frame_range.start)"
            )
        return frame_of[first]


def _subsets(root: Path, template: str) -> list[str]:
    """The names for which the path of a template with {subset} exists."""
    pattern = "/".join("*" if "{subset}" in part else glob.escape(part) for part in PurePosixPath(template).parts)
    # A name that occurs several times must be the same everywhere.
    first, *others = re.escape(template).split(re.escape("{subset}"))
    named = re.compile(first + "(?P<subset>[^/]+)" + "(?P=subset)".join(others))
    matches = [named.fullmatch(path.relative_to(root).as_posix()) for path in root.glob(pattern)]
    return sorted({match["subset"] for match in matches if match and not is_ignored(match["subset"])})


def _one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _clip_name(line: str) -> str:
    """Clip name in a line of a split; DAVIS 2016 lists frames: `/JPEGImages/480p/bear/00000.jpg /Annotations/…`."""
    first = PurePosixPath(line.split()[0])
    if first.suffix.lower() in IMAGE_SUFFIXES and len(first.parts) > 1:
        return first.parent.name
    return str(PurePosixPath(line.strip()))
