"""The prompt manifest: what to follow in which clip, written by people, checked here.

`python -m aot.prompts schema` prints the JSON schema; `python -m aot.prompts check FILE` checks a manifest.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from aot.errors import ConfigError, PromptError
from aot.mask_images import read_indices
from aot.types import BoolArray, Clip, MaskFile, Prompt

ObjectId = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True, description="the object; the same in all its entries")]
SourceFrame = Annotated[int, Field(ge=0, strict=True, description="source frame number, from 0")]
Coordinate = Annotated[FiniteFloat, Field(description="px of the source video, pixel centres at integers")]

# Looking for near names takes a moment each in a large dataset, and nobody reads thousands of lines.
_MOST_MISTAKES = 20


class ObjectEntry(BaseModel):
    """One prompt of one object, on one frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: ObjectId
    name: str = ""
    frame: SourceFrame = 0
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = Field(None, description="[x0, y0, x1, y1]")
    points: tuple[tuple[Coordinate, Coordinate], ...] = Field((), description="[[x, y], …]")
    labels: tuple[Literal[0, 1], ...] = Field((), description="one a point: 1 object, 0 background; default all 1")
    mask: str | None = Field(None, description="image file, relative to the manifest; not 0 = object")
    query_points: tuple[tuple[SourceFrame, Coordinate, Coordinate], ...] = Field(
        (), description="[[source frame, x, y], …]: track these in place of sampled points"
    )

    @field_validator("box")
    @classmethod
    def _ordered(cls, box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got {list(box)}")
        return box

    @model_validator(mode="after")
    def _complete(self) -> ObjectEntry:
        if self.labels and len(self.labels) != len(self.points):
            raise ValueError(f"labels: expected one a point ({len(self.points)}), got {len(self.labels)}")
        if self.mask is not None and (self.box is not None or self.points):
            raise ValueError("a mask stands alone: leave out the box and the points of this frame")
        if self.box is None and not self.points and self.mask is None and not self.query_points:
            raise ValueError("nothing says where the object is: expected box, points, mask or query_points")
        return self


class ClipEntry(BaseModel):
    """The objects of one clip, or of all clips that a pattern matches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objects: tuple[ObjectEntry, ...] = Field(description="prompts; an object may have several, each on its own frame")

    @field_validator("objects")
    @classmethod
    def _consistent(cls, objects: tuple[ObjectEntry, ...]) -> tuple[ObjectEntry, ...]:
        mistakes = [] if objects else ["expected at least one object"]
        for (object_id, frame), count in Counter((entry.id, entry.frame) for entry in objects).items():
            if count > 1:
                mistakes.append(f"object {object_id} has {count} entries on frame {frame}; write them as one")
        for object_id in sorted({entry.id for entry in objects}):
            entries = sorted((entry for entry in objects if entry.id == object_id), key=lambda entry: entry.frame)
            names = sorted({entry.name for entry in entries if entry.name})
            if len(names) > 1:
                mistakes.append(f"object {object_id} has the names {', '.join(names)}; expected one")
            first = next((entry for entry in entries if entry.box or entry.points or entry.mask), None)
            if first and first.points and not first.box and first.labels and 1 not in first.labels:
                mistakes.append(f"object {object_id} begins with background points alone; give one point the label 1")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return objects


class Manifest(BaseModel):
    """Prompts of a dataset: clip ids or patterns (`day1/*`; `*` crosses folders too), each with its objects."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="aot prompt manifest")

    clips: dict[str, ClipEntry]


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest, YAML or JSON.

    Raises:
        ConfigError: with all mistakes at once, each with its clip, object and reason.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"prompt manifest {path}: cannot be read ({exc}); write one (the README shows its form) "
            f"or name another with dataset.prompts=FILE"
        ) from exc
    return parse_manifest(text, path)


def parse_manifest(text: str, path: Path) -> Manifest:
    """Check a manifest's text, JSON where `path` ends in .json, else YAML.

    Raises:
        ConfigError: as `load_manifest`.
    """
    try:
        content = json.loads(text, object_pairs_hook=_no_repeats) if path.suffix == ".json" else _load_yaml(text)
    except (ValueError, yaml.YAMLError, RecursionError) as exc:
        raise ConfigError(f"prompt manifest {path}: not valid {path.suffix.lstrip('.') or 'YAML'}: {exc}") from exc
    try:
        return Manifest.model_validate(content)
    except ValidationError as exc:
        mistakes = "\n  ".join(_describe(error, content) for error in exc.errors())
        raise ConfigError(f"prompt manifest {path}: {exc.error_count()} mistake(s)\n  {mistakes}") from exc


def check_entry(clip_id: str, objects: Any) -> ClipEntry:
    """Check one clip's objects, as a manifest would hold them.

    Raises:
        PromptError: with all mistakes at once.
    """
    content = {"clips": {clip_id: {"objects": objects}}}
    try:
        return Manifest.model_validate(content).clips[clip_id]
    except ValidationError as exc:
        raise PromptError("; ".join(_describe(error, content) for error in exc.errors())) from exc


def assign_prompts(clips: Sequence[Clip], manifest_path: Path) -> list[Clip]:
    """Give every clip its prompts; a clip that no entry matches keeps none.

    Raises:
        ConfigError: the manifest is wrong, names an unknown clip, or lacks a mask file; all mistakes at once.
    """
    manifest = load_manifest(manifest_path)
    clip_ids = {clip.clip_id for clip in clips}
    patterns = [key for key in manifest.clips if key not in clip_ids]
    unknown = [key for key in patterns if not fnmatch.filter(clip_ids, key)]
    mistakes = [_unknown_clip(key, clip_ids) for key in unknown[:_MOST_MISTAKES]]
    if len(unknown) > _MOST_MISTAKES:
        mistakes.append(f"and {len(unknown) - _MOST_MISTAKES} more entries that are not in the dataset")
    prompts = {key: entry_prompts(entry, manifest_path.parent) for key, entry in manifest.clips.items()}
    for key, found in prompts.items():
        missing = [prompt.mask.path for prompt in found if isinstance(prompt.mask, MaskFile)]
        mistakes += [f"clip {key!r}: mask file {path} does not exist" for path in missing if not path.is_file()]
    assigned = []
    for clip in clips:
        try:
            entry_key = clip.clip_id if clip.clip_id in prompts else best_pattern(clip.clip_id, patterns)
            assigned.append(clip if entry_key is None else replace(clip, prompts=prompts[entry_key]))
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        lines = "\n  ".join(mistakes)
        raise ConfigError(f"prompt manifest {manifest_path}: {len(mistakes)} mistake(s)\n  {lines}")
    return assigned


def entry_prompts(entry: ClipEntry, folder: Path) -> tuple[Prompt, ...]:
    """The prompts of one manifest entry, ordered by object and frame; mask files are looked for in `folder`."""
    names: dict[int, str] = {item.id: item.name for item in entry.objects if item.name}
    prompts = [
        Prompt(
            object_id=item.id,
            frame=item.frame,
            name=names.get(item.id, ""),
            box=item.box,
            points=item.points,
            labels=item.labels or (1,) * len(item.points),
            mask=None if item.mask is None else MaskFile(folder / item.mask),
            query_points=item.query_points,
        )
        for item in entry.objects
    ]
    return tuple(sorted(prompts, key=lambda prompt: (prompt.object_id, prompt.frame)))


def check_prompts(
    prompts: Iterable[Prompt], *, width: int, height: int, frames: Sequence[int], num_source_frames: int
) -> tuple[list[Prompt], dict[int, PromptError]]:
    """Fit prompts to the video they are for, now that it is open.

    Args:
        prompts: of one clip.
        width, height: of the video, px.
        frames: source frames inside the clip's time range.
        num_source_frames: number of frames that the video holds.
    Returns:
        The prompts of the objects that fit, mask files read; and the error of every other object.
    """
    available = set(frames)
    fitting: list[Prompt] = []
    errors: dict[int, PromptError] = {}
    for prompt in prompts:
        try:
            fitting.append(_fit(prompt, width, height, available, num_source_frames))
        except PromptError as error:
            errors.setdefault(prompt.object_id, error)
    return [prompt for prompt in fitting if prompt.object_id not in errors], errors


def prompts_as_json(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """The prompts in the manifest's words, for results and for telling whether they have changed."""
    return [_as_json(prompt) for prompt in prompts]


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """SHA-256 over what the prompts say, the bytes of mask files included, their paths not."""
    digest = hashlib.sha256()
    for prompt in prompts:
        written = _as_json(prompt)
        written.pop("mask", None)
        digest.update(json.dumps(written, sort_keys=True).encode())
        if isinstance(prompt.mask, MaskFile):
            digest.update(hashlib.sha256(prompt.mask.path.read_bytes()).digest())
    return digest.hexdigest()


def read_mask(file: MaskFile) -> BoolArray:
    """Read a mask picture as (H, W) bool.

    Raises:
        PromptError: the file is not a readable mask picture.
    """
    try:
        values = read_indices(file.path)
    except ValueError as exc:
        raise PromptError(f"mask {exc}") from exc
    return np.asarray(values != 0 if file.value is None else values == file.value, dtype=np.bool_)


def points_inside(mask: BoolArray, max_points: int = 3) -> tuple[tuple[float, float], ...]:
    """A few points deep inside a mask, as a person would click them: the deepest, then the deepest far from it.

    Args:
        mask: (H, W) bool with at least one pixel set.
    Returns:
        1 to `max_points` points (x, y) px.
    """
    import cv2

    left = np.pad(mask.astype(np.uint8), 1)
    points: list[tuple[float, float]] = []
    while len(points) < max_points and left.any():
        depth = cv2.distanceTransform(left, cv2.DIST_L2, 5)
        y, x = np.unravel_index(np.argmax(depth), depth.shape)
        points.append((float(x - 1), float(y - 1)))
        radius = 1.5 * float(depth[y, x]) + 1
        rows, columns = np.ogrid[: left.shape[0], : left.shape[1]]
        left[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 0
    return tuple(points)


def _fit(prompt: Prompt, width: int, height: int, available: set[int], num_source_frames: int) -> Prompt:
    label = f"object {prompt.object_id}, frame {prompt.frame}"
    frames = [prompt.frame] if prompt.is_visual else []
    for frame in [*frames, *(int(query[0]) for query in prompt.query_points)]:
        if frame >= num_source_frames:
            raise PromptError(f"{label}: frame {frame} is beyond the end; the video has {num_source_frames} frames")
        if frame not in available:
            raise PromptError(
                f"{label}: frame {frame} lies outside the time range that dataset.start_seconds and end_seconds leave"
            )
    # A box may end on the far edge of the last pixel: people and detectors write x1 = width.
    corners = [] if prompt.box is None else [(*prompt.box[:2], 0.5), (*prompt.box[2:], 0.5)]
    points = [(x, y, 0.0) for x, y in [*prompt.points, *(query[1:] for query in prompt.query_points)]]
    for x, y, slack in [*corners, *points]:
        if not (-0.5 <= x <= width - 0.5 + slack and -0.5 <= y <= height - 0.5 + slack):
            raise PromptError(f"{label}: ({x:g}, {y:g}) is outside the frame of {width}x{height} px")
    if not isinstance(prompt.mask, MaskFile):
        return prompt
    mask = read_mask(prompt.mask)
    if mask.shape != (height, width):
        raise PromptError(
            f"{label}: mask {prompt.mask.path} is {mask.shape[1]}x{mask.shape[0]} px, expected {width}x{height}"
        )
    if not mask.any():
        raise PromptError(f"{label}: mask {prompt.mask.path} is empty; expected pixels that are not 0")
    return replace(prompt, mask=mask)


def _as_json(prompt: Prompt) -> dict[str, Any]:
    written: dict[str, Any] = {"id": prompt.object_id, "name": prompt.name, "frame": prompt.frame}
    if prompt.box is not None:
        written["box"] = list(prompt.box)
    if prompt.points:
        written["points"] = [list(point) for point in prompt.points]
        written["labels"] = list(prompt.labels)
    if isinstance(prompt.mask, MaskFile):
        written["mask"] = str(prompt.mask.path)
        if prompt.mask.value is not None:
            written["mask_value"] = prompt.mask.value
    if prompt.query_points:
        written["query_points"] = [list(query) for query in prompt.query_points]
    return written


def best_pattern(clip_id: str, patterns: Sequence[str]) -> str | None:
    """The matching pattern with the most literal characters; None where none matches.

    Raises:
        ConfigError: several are equally specific.
    """
    matching = [pattern for pattern in patterns if fnmatch.fnmatchcase(clip_id, pattern)]
    if not matching:
        return None
    weight = {pattern: sum(char not in "*?[]" for char in pattern) for pattern in matching}
    best = [pattern for pattern in matching if weight[pattern] == max(weight.values())]
    if len(best) > 1:
        raise ConfigError(
            f"clip {clip_id!r}: the patterns {', '.join(best)} are equally specific; name the clip itself"
        )
    return best[0]


def _unknown_clip(key: str, clip_ids: set[str]) -> str:
    if any(char in key for char in "*?["):
        return f"pattern {key!r} matches none of the {len(clip_ids)} clips"
    near = get_close_matches(key, clip_ids, n=3)
    return f"clip {key!r} is not in the dataset; " + (
        f"did you mean {', '.join(near)}?"
        if near
        else f"it has {len(clip_ids)} clips, such as {min(clip_ids, default='')}"
    )


def _describe(error: Any, content: Any) -> str:
    """One pydantic error in the manifest's words: clip, object, field, reason, value."""
    where = list(error["loc"])
    words = []
    if where[:1] == ["clips"] and len(where) > 1:
        words.append(f"clip {where[1]!r}")
    if where[2:3] == ["objects"] and len(where) > 3:
        # pydantic writes keys as text, those that YAML read as numbers or null too
        entries = {str(clip): entry for clip, entry in content["clips"].items()}
        entry = entries[str(where[1])]["objects"][where[3]]
        named = entry.get("id") if isinstance(entry, dict) else None
        words.append(f"object {named}" if isinstance(named, int) else f"entry {where[3] + 1}")
    fields = where[4:] if len(words) == 2 else where[len(words) + 1 :] if words else where
    if fields:
        words.append(".".join(map(str, fields)))
    if error["type"] == "extra_forbidden":
        levels: dict[int, type[BaseModel]] = {1: Manifest, 3: ClipEntry}
        level = levels.get(len(where), ObjectEntry)
        known = list(level.model_fields)
        near = get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        reason = f"unknown key; {hint}"
    else:
        reason = error["msg"].removeprefix("Value error, ")
        if not isinstance(error["input"], dict | list | tuple | BaseModel):
            reason += f", got {error['input']!r}"
    return f"{', '.join(words) or 'file'}: {reason}"


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} stands twice; the second would silently win")
    return dict(pairs)


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML's safe loader, which refuses repeated keys; libyaml's where it is there (ten times as fast)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
        repeated = [key for key, count in keys.items() if count > 1]
        if repeated:
            line = node.start_mark.line + 1
            raise ValueError(f"the key {repeated[0]!r} stands twice below line {line}; the second would silently win")
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a safe loader's subclass)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m aot.prompts", description="Prompt manifests: schema and check.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("schema", help="print the JSON schema of a manifest")
    check = commands.add_parser("check", help="check a manifest without its videos")
    check.add_argument("manifest", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "schema":
        print(json.dumps(Manifest.model_json_schema(), indent=2))
        return 0
    try:
        manifest = load_manifest(options.manifest)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.manifest}: {len(manifest.clips)} entries, all well formed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
