"""Assign the entries of a manifest to the clips of a dataset."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aot.errors import ConfigError, PromptError
from aot.manifest.fit import covering_masks, read_mask
from aot.manifest.read import MissingManifest, read_entries, refuse
from aot.manifest.schema import ClipEntry, ObjectEntry, RleEntry
from aot.system.listing import composed
from aot.system.nearest import suggestion
from aot.system.text import counted, override_text
from aot.types import Clip, Found, MaskFile, Prompt, RleMask, Words

# In a large dataset, the search for similar ids takes noticeable time per unknown clip.
_MAX_ERRORS = 20


def assign_prompts(
    clips: Sequence[Clip],
    manifest_path: Path,
    *,
    dataset: str = "DATASET",
    root: Path | None = None,
    not_clips: Mapping[str, str] | None = None,
) -> list[Clip]:
    """Assign the prompts of a manifest to the clips that its entries name or match.

    Args:
        clips: clips of the dataset, without prompts.
        manifest_path: the manifest, YAML or JSON.
        dataset: name of the dataset option; with `root`, for the command that creates a missing manifest.
        root: folder of the dataset; None: the message names no command.
        not_clips: name that looks like a clip id → why there is no such clip; None: nothing is known about others.
    Returns:
        The clips in the same order; a clip that no entry matches stays without prompts.
    Raises:
        ConfigError: the manifest does not exist, is not valid, names an unknown clip, or lacks a mask file; lists all
            errors.
    """
    try:
        entries, errors = read_entries(manifest_path)
    except MissingManifest as exc:
        if root is None:
            raise
        settings = [override_text("dataset.root", root), override_text("dataset.prompts", manifest_path)]
        command = " ".join(["python -m aot.prompt", f"dataset={dataset}", *settings])
        raise MissingManifest(
            f"prompt manifest {manifest_path} does not exist; click prompts with `{command}`, "
            f"or name an existing manifest with dataset.prompts=FILE"
        ) from exc
    assigned, more = assign_entries(clips, entries, manifest_path.parent, not_clips or {})
    refuse(manifest_path, [*errors, *more])
    return assigned


def assign_entries(
    clips: Sequence[Clip], entries: Mapping[str, ClipEntry], folder: Path, not_clips: Mapping[str, str] | None = None
) -> tuple[list[Clip], list[str]]:
    """As `assign_prompts`, for the entries of a manifest in a folder.

    Returns:
        The clips in the same order, with the prompts that could be assigned; and all errors.
    """
    errors: list[str] = []
    clip_ids = {clip.clip_id for clip in clips}
    entries = _with_ids_as_named(entries, clip_ids)
    patterns = [key for key in entries if key not in clip_ids]
    names = {composed(clip_id) for clip_id in clip_ids}
    unknown = [key for key in patterns if not fnmatch.filter(names, key)]
    errors += [_unknown_clip(key, clip_ids, not_clips or {}) for key in unknown[:_MAX_ERRORS]]
    if len(unknown) > _MAX_ERRORS:
        errors.append(
            f"and {counted(len(unknown) - _MAX_ERRORS, 'more entry', 'more entries')} without a clip in the dataset"
        )
    prompts = {key: entry_prompts(entry, folder) for key, entry in entries.items()}
    errors += _missing_masks(prompts)
    assigned = []
    for clip in clips:
        try:
            entry_key = clip.clip_id if clip.clip_id in entries else best_pattern(composed(clip.clip_id), patterns)
            assigned.append(clip if entry_key is None else replace(clip, prompts=prompts[entry_key]))
        except ConfigError as error:
            errors.append(str(error))
    return assigned, errors


def check_manifest(path: Path) -> tuple[int, list[str]]:
    """Check a manifest without its dataset.

    Returns:
        The number of entries, and notes about masks that cover nearly the whole frame.
    Raises:
        ConfigError: the manifest is not valid, or a mask file is missing or not a mask; lists all errors.
    """
    entries, errors = read_entries(path)
    prompts = {key: entry_prompts(entry, path.parent) for key, entry in entries.items()}
    errors += _missing_masks(prompts)
    notes = []
    for key, found in prompts.items():
        for prompt in found:
            if isinstance(prompt.mask, RleMask) or (isinstance(prompt.mask, MaskFile) and _is_file(prompt.mask.path)):
                try:
                    read = replace(prompt, mask=read_mask(prompt.mask))
                except PromptError as error:
                    errors.append(f"clip {key!r}, object {prompt.object_id}: {error}")
                    continue
                notes += [f"clip {key!r}, {note}" for note in covering_masks([read])]
    refuse(path, errors)
    return len(entries), notes


def entry_prompts(entry: ClipEntry, folder: Path) -> tuple[Prompt, ...]:
    """The prompts of one entry, ordered by object and frame.

    Args:
        entry: the entry of one clip.
        folder: the folder of the manifest; the paths of mask files are relative to it.
    """
    # Words are the name of an object without another.
    names: dict[int, str] = {item.id: item.text for item in entry.objects if item.text}
    names |= {item.id: item.name for item in entry.objects if item.name}
    prompts = [
        Prompt(
            object_id=item.id,
            frame=item.frame,
            name=names.get(item.id, ""),
            box=item.box,
            points=item.points,
            labels=item.labels or (1,) * len(item.points),
            mask=_as_mask(item, folder),
            query_points=item.query_points,
            words=_as_words(item),
            found=None if item.text is None or item.is_looked_for else Found(item.text, item.score, item.model),
        )
        for item in entry.objects
    ]
    return tuple(sorted(prompts, key=lambda prompt: (prompt.object_id, prompt.frame)))


def best_pattern(clip_id: str, patterns: Sequence[str]) -> str | None:
    """The matching pattern with the most literal characters; None if no pattern matches.

    Raises:
        ConfigError: several patterns are equally specific.
    """
    matching = [pattern for pattern in patterns if fnmatch.fnmatchcase(clip_id, pattern)]
    if not matching:
        return None
    weight = {pattern: sum(char not in "*?[]" for char in pattern) for pattern in matching}
    best = [pattern for pattern in matching if weight[pattern] == max(weight.values())]
    if len(best) > 1:
        raise ConfigError(
            f"clip {clip_id!r}: the patterns {', '.join(best)} are equally specific; add an entry for the clip itself"
        )
    return best[0]


def _as_words(item: ObjectEntry) -> Words | None:
    if item.text is None or not item.is_looked_for:
        return None
    return Words(item.text, item.all_frames, None if item.count == "all" else item.count or 1, item.min_score)


def _as_mask(item: ObjectEntry, folder: Path) -> MaskFile | RleMask | None:
    if isinstance(item.mask, RleEntry):
        return RleMask(height=item.mask.size[0], width=item.mask.size[1], counts=item.mask.counts)
    return None if item.mask is None else MaskFile(folder / item.mask, item.mask_id)


def _with_ids_as_named(entries: Mapping[str, ClipEntry], clip_ids: set[str]) -> dict[str, ClipEntry]:
    """The entries under the ids of their clips, of which names that look the same may have other characters."""
    id_of = {composed(clip_id): clip_id for clip_id in clip_ids}
    named = {}
    for key, entry in entries.items():
        clip_id = key if key in clip_ids else id_of.get(composed(key), composed(key))
        named[key if clip_id in entries else clip_id] = entry
    return named


def _unknown_clip(key: str, clip_ids: set[str], not_clips: Mapping[str, str]) -> str:
    if key in not_clips:
        return f"clip {key!r} is not in the dataset: {not_clips[key]}"
    if any(char in key for char in "*?["):
        return f"pattern {key!r} matches no clip of the dataset, which has {counted(len(clip_ids), 'clip')}"
    such_as = f"it has {counted(len(clip_ids), 'clip')}, such as {min(clip_ids, default='')}"
    return f"clip {key!r} is not in the dataset; {suggestion(key, clip_ids, otherwise=such_as)}"


def lacks_mask(prompt: Prompt) -> bool:
    """Whether the mask file of a prompt does not exist."""
    return isinstance(prompt.mask, MaskFile) and not _is_file(prompt.mask.path)


def _missing_masks(prompts: Mapping[str, Sequence[Prompt]]) -> list[str]:
    return [
        f"clip {key!r}, object {prompt.object_id}: mask {prompt.mask.path}: no such file"
        for key, found in prompts.items()
        for prompt in found
        if isinstance(prompt.mask, MaskFile) and lacks_mask(prompt)
    ]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # not a valid file name
        return False
