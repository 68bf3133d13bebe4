"""Finding objects by words beforehand: the boxes are written to the manifest, for review on the prompt page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aot.decoding import open_source
from aot.decoding.base import Decoder
from aot.detection.base import Detector
from aot.detection.words import find_words
from aot.errors import AotError, ConfigError, error_context
from aot.images.masks import encode_rle
from aot.manifest.assign import best_pattern
from aot.manifest.edit_file import ManifestFile, version_of
from aot.manifest.fit import check_prompts
from aot.manifest.schema import ClipEntry, ObjectEntry
from aot.types import Clip, Prompt, Words


@dataclass(frozen=True)
class DetectedClip:
    """What was found in one clip."""

    clip_id: str
    added: tuple[ObjectEntry, ...]
    """The new entries."""
    kept: tuple[str, ...]
    """Descriptions that the clip has objects of already."""
    errors: tuple[str, ...]
    """What was not found, or why the clip cannot be read."""


def detect_into_manifest(
    clips: Sequence[Clip], manifest: Path, words: Sequence[Words], detector: Detector, decoder: Decoder
) -> Iterator[DetectedClip]:
    """Find objects in every clip, and add them to the manifest, which is written after each clip.

    Existing entries are kept: new objects get ids after theirs, and descriptions that a clip has already are not looked
    for again. A clip that has had its prompts from a pattern gets an entry of its own, with the objects of the pattern.

    Args:
        clips: of the dataset.
        manifest: YAML or JSON; need not exist.
        words: what to find in every clip.
        detector, decoder: that find it.
    Raises:
        ConfigError: the manifest is not valid, or the detector cannot be loaded.
        WriteError: the manifest cannot be written.
    """
    file = ManifestFile(manifest)
    ids = {clip.clip_id for clip in clips}
    for clip in clips:
        patterns = [key for key in file.entries if key not in ids]
        current = file.entries.get(clip.clip_id)
        pattern = best_pattern(clip.clip_id, patterns) if current is None else None
        base = file.entries[pattern] if pattern else current
        objects = base.objects if base else ()
        known = {item.text for item in objects if item.text}
        wanted = [each for each in words if each.text not in known]
        kept = tuple(each.text for each in words if each.text in known)
        added, errors = _detect(clip, wanted, next_id(objects), detector, decoder) if wanted else ((), ())
        if added:
            file.save(clip.clip_id, ClipEntry(objects=(*objects, *added)), version_of(current))
        yield DetectedClip(clip.clip_id, added, kept, errors)


def next_id(objects: Sequence[ObjectEntry]) -> int:
    """The first id after those that the objects of a clip have or may get."""
    return max((item.id + item.max_objects for item in objects), default=1)


def _detect(
    clip: Clip, wanted: Sequence[Words], first_id: int, detector: Detector, decoder: Decoder
) -> tuple[tuple[ObjectEntry, ...], tuple[str, ...]]:
    added: list[ObjectEntry] = []
    errors: list[str] = []
    try:
        with error_context(clip_id=clip.clip_id, stage="detect"), open_source(clip, decoder) as frames:
            size = {"width": frames.width, "height": frames.height}
            # The manifest counts the frames of an episode in a longer video from its first one.
            first = clip.manifest_frame_0
            for words in wanted:
                shifted = replace(words, frames=tuple(frame + first for frame in words.frames))
                prompt = Prompt(first_id + len(added), shifted.frames[0], words=shifted)
                fitting, unfit = check_prompts(
                    [prompt], **size, frames=frames.index.tolist(), num_source_frames=frames.num_source_frames
                )
                looked_up = find_words(fitting, frames, detector)
                errors += [str(error) for error in (*unfit.values(), *looked_up.errors.values())]
                found = [prompt for prompt in looked_up.prompts if prompt.words is None]
                added += [as_entry(replace(prompt, frame=prompt.frame - first)) for prompt in found]
    except ConfigError:  # of the detector, and so of every clip
        raise
    except AotError as error:
        errors.append(str(error))
    return tuple(added), tuple(errors)


def as_entry(prompt: Prompt) -> ObjectEntry:
    """The entry in a manifest of a prompt that a detector has found."""
    fields: dict[str, Any] = {"id": prompt.object_id, "frame": prompt.frame, "box": prompt.box}
    if isinstance(prompt.mask, np.ndarray):
        mask = encode_rle(prompt.mask)
        fields["mask"] = {"size": [mask.height, mask.width], "counts": mask.counts}
    if prompt.found is not None:
        fields |= {"text": prompt.found.text, "score": prompt.found.score, "model": prompt.found.model}
    return ObjectEntry.model_validate(fields)
