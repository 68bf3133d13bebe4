"""The prompt manifest: what to follow in which clip, written by people, checked here.

`python -m aot.prompts schema` prints the JSON schema, `check FILE` checks a manifest, and `import --format coco FILE`
(or mot) makes one of the boxes of a detector or another tracker.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from aot.errors import AotError, ConfigError, PromptError
from aot.images.masks import decode_rle, read_indices
from aot.system.cli import run_command
from aot.types import BoolArray, Clip, MaskFile, Prompt, RleMask

# Mistakes are told in these words too: "expected ⟨description⟩, got …".
ObjectId = Annotated[
    int, Field(ge=1, le=2**31 - 1, strict=True, description="a whole number from 1, each object its own")
]
SourceFrame = Annotated[int, Field(ge=0, strict=True, description="a source frame number, from 0")]
PromptKind = Literal["mask", "box", "points"]
"""What is made of an annotated mask."""

Coordinate = Annotated[FiniteFloat, Field(description="px of the source video, pixel centres at integers")]


def _is_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate), which no file in UTF-8 can hold") from None
    return value


# Looking for near names takes a moment each in a large dataset, and nobody reads thousands of lines.
_MAX_MISTAKES = 20


class RleEntry(BaseModel):
    """A mask in COCO's compressed run lengths."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(description="[height, width] px")
    counts: str = Field(pattern=r"^[0-o]*$", description="as pycocotools writes them")


class ObjectEntry(BaseModel):
    """One prompt of one object, on one frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: ObjectId
    name: Annotated[str, AfterValidator(_is_text)] = Field("", description="what people call the object")
    frame: SourceFrame = 0
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = Field(None, description="[x0, y0, x1, y1]")
    points: tuple[tuple[Coordinate, Coordinate], ...] = Field((), description="[[x, y], …]")
    labels: tuple[Literal[0, 1], ...] = Field((), description="one a point, 1 object or 0 background; default all 1")
    mask: str | RleEntry | None = Field(
        None, description="image file, relative to the manifest, not 0 = object; or COCO run lengths {size, counts}"
    )
    query_points: tuple[tuple[SourceFrame, Coordinate, Coordinate], ...] = Field(
        (), description="[[source frame, x, y], …], tracked in place of sampled points"
    )

    @field_validator("box")
    @classmethod
    def _ordered(cls, box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"box: expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got {list(box)}")
        return box

    @model_validator(mode="after")
    def _complete(self) -> ObjectEntry:
        if self.labels and len(self.labels) != len(self.points):
            raise ValueError(f"labels: expected one a point ({len(self.points)}), got {len(self.labels)}")
        if self.mask is not None and (self.box is not None or self.points):
            raise ValueError("mask: it stands alone; leave out the box and the points of this frame")
        if self.box is None and not self.points and self.mask is None and not self.query_points:
            raise ValueError("box, points, mask or query_points: none is there; expected what says where the object is")
        return self


class ClipEntry(BaseModel):
    """The objects of one clip, or of all clips that a pattern matches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objects: tuple[ObjectEntry, ...] = Field(
        min_length=1, description="prompts; an object may have several, each on its own frame"
    )

    @field_validator("objects")
    @classmethod
    def _consistent(cls, objects: tuple[ObjectEntry, ...]) -> tuple[ObjectEntry, ...]:
        if mistakes := contradictions(objects):
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
    return parse_manifest(_read_text(path), path)


def parse_manifest(text: str, path: Path) -> Manifest:
    """Check a manifest's text, JSON where `path` ends in .json, else YAML.

    Raises:
        ConfigError: as `load_manifest`.
    """
    entries, mistakes = _entries(text, path)
    _refuse(path, mistakes)
    return Manifest(clips=entries)


def check_entry(clip_id: str, objects: Any) -> ClipEntry:
    """Check one clip's objects, as a manifest would hold them.

    Raises:
        PromptError: with all mistakes at once.
    """
    entries, mistakes = _checked({"clips": {clip_id: {"objects": objects}}})
    if mistakes:
        raise PromptError("; ".join(mistakes))
    return entries[clip_id]


def assign_prompts(clips: Sequence[Clip], manifest_path: Path) -> list[Clip]:
    """Give every clip its prompts; a clip that no entry matches keeps none.

    Raises:
        ConfigError: the manifest is wrong, names an unknown clip, or lacks a mask file; all mistakes at once.
    """
    entries, mistakes = _entries(_read_text(manifest_path), manifest_path)
    clip_ids = {clip.clip_id for clip in clips}
    patterns = [key for key in entries if key not in clip_ids]
    unknown = [key for key in patterns if not fnmatch.filter(clip_ids, key)]
    mistakes += [_unknown_clip(key, clip_ids) for key in unknown[:_MAX_MISTAKES]]
    if len(unknown) > _MAX_MISTAKES:
        mistakes.append(f"and {len(unknown) - _MAX_MISTAKES} more entries that are not in the dataset")
    prompts = {key: entry_prompts(entry, manifest_path.parent) for key, entry in entries.items()}
    mistakes += _missing_masks(prompts)
    assigned = []
    for clip in clips:
        try:
            entry_key = clip.clip_id if clip.clip_id in entries else best_pattern(clip.clip_id, patterns)
            assigned.append(clip if entry_key is None else replace(clip, prompts=prompts[entry_key]))
        except ConfigError as error:
            mistakes.append(str(error))
    _refuse(manifest_path, mistakes)
    return assigned


def contradictions(objects: Sequence[ObjectEntry]) -> list[str]:
    """What is wrong with the entries of one clip taken together."""
    mistakes = []
    for (object_id, frame), count in Counter((entry.id, entry.frame) for entry in objects).items():
        if count > 1:
            mistakes.append(f"object {object_id}: has {count} entries on frame {frame}; write them as one")
    for object_id in sorted({entry.id for entry in objects}):
        entries = sorted((entry for entry in objects if entry.id == object_id), key=lambda entry: entry.frame)
        names = sorted({entry.name for entry in entries if entry.name})
        if len(names) > 1:
            mistakes.append(f"object {object_id}: has the names {', '.join(names)}; expected one")
        first = next((entry for entry in entries if entry.box or entry.points or entry.mask), None)
        if first and first.points and not first.box and first.labels and 1 not in first.labels:
            mistakes.append(f"object {object_id}: begins with background points alone; give one point the label 1")
    return mistakes


def object_mistakes(error: ValidationError, given: Mapping[str, Any]) -> list[str]:
    """What pydantic found wrong with one object's entry, as `field: reason`, a line a field."""
    return list(dict.fromkeys(_describe_field(detail, given) for detail in error.errors()))


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
            mask=_as_mask(item.mask, folder),
            query_points=item.query_points,
        )
        for item in entry.objects
    ]
    return tuple(sorted(prompts, key=lambda prompt: (prompt.object_id, prompt.frame)))


def _as_mask(entry: str | RleEntry | None, folder: Path) -> MaskFile | RleMask | None:
    if isinstance(entry, RleEntry):
        return RleMask(height=entry.size[0], width=entry.size[1], counts=entry.counts)
    return None if entry is None else MaskFile(folder / entry)


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
    """SHA-256 over what the prompts say, the bytes of mask files included, their paths not.

    Raises:
        PromptError: a mask file cannot be read.
    """
    digest = hashlib.sha256()
    for prompt in prompts:
        written = _as_json(prompt)
        if isinstance(prompt.mask, MaskFile):
            written.pop("mask")
        digest.update(json.dumps(written, sort_keys=True).encode())
        if isinstance(prompt.mask, MaskFile):
            digest.update(hashlib.sha256(_mask_bytes(prompt.mask.path)).digest())
    return digest.hexdigest()


def read_mask(file: MaskFile | RleMask) -> BoolArray:
    """Read a mask picture, or unpack run lengths, as (H, W) bool.

    Raises:
        PromptError: the file is not a readable mask picture, or the runs do not add up.
    """
    try:
        if isinstance(file, RleMask):
            return decode_rle(file)
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


def mask_prompt(
    object_id: int, frame: int, file: MaskFile | RleMask, mask: BoolArray, kind: PromptKind, name: str = ""
) -> Prompt:
    """Make a prompt of an annotated mask: the mask itself, its box, or a few points deep inside it.

    Args:
        file: what stands for the mask itself; read again when it is needed.
        mask: (H, W) bool, not empty.
    """
    if kind == "mask":
        return Prompt(object_id=object_id, frame=frame, name=name, mask=file)
    if kind == "points":
        points = points_inside(mask)
        return Prompt(object_id=object_id, frame=frame, name=name, points=points, labels=(1,) * len(points))
    ys, xs = np.nonzero(mask)
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    return Prompt(object_id=object_id, frame=frame, name=name, box=box)


def _fit(prompt: Prompt, width: int, height: int, available: set[int], num_source_frames: int) -> Prompt:
    label = f"object {prompt.object_id}, frame {prompt.frame}"
    frames = [prompt.frame] if prompt.is_visual else []
    for frame in [*frames, *(int(query[0]) for query in prompt.query_points)]:
        if frame >= num_source_frames:
            raise PromptError(
                f"{label}: frame {frame} is beyond the end; the video has {num_source_frames} frames, "
                f"0 to {num_source_frames - 1}"
            )
        if frame not in available:
            raise PromptError(
                f"{label}: frame {frame} lies outside the time range; dataset.start_seconds and end_seconds leave the "
                f"frames {min(available)} to {max(available)}: give a prompt on one of them, or widen the range"
            )
    # A box may end on the far edge of the last pixel: people and detectors write x1 = width.
    corners = [] if prompt.box is None else [("box corner", *prompt.box[:2], 0.5), ("box corner", *prompt.box[2:], 0.5)]
    points = [("point", x, y, 0.0) for x, y in prompt.points]
    queries = [("query point", x, y, 0.0) for _, x, y in prompt.query_points]
    for what, x, y, slack in [*corners, *points, *queries]:
        if not (-0.5 <= x <= width - 0.5 + slack and -0.5 <= y <= height - 0.5 + slack):
            raise PromptError(
                f"{label}: the {what} ({x:g}, {y:g}) is outside the frame of {width}x{height} px; expected pixels of "
                f"the source video, (0, 0) to ({width - 1}, {height - 1})"
            )
    if not isinstance(prompt.mask, MaskFile | RleMask):
        return prompt
    mask = read_mask(prompt.mask)
    named = f"mask {prompt.mask.path}" if isinstance(prompt.mask, MaskFile) else "its mask"
    if mask.shape != (height, width):
        raise PromptError(f"{label}: {named} is {mask.shape[1]}x{mask.shape[0]} px, expected {width}x{height}")
    if not mask.any():
        raise PromptError(f"{label}: {named} is empty; expected pixels that are not 0")
    return replace(prompt, mask=mask)


def _as_json(prompt: Prompt) -> dict[str, Any]:
    written: dict[str, Any] = {"id": prompt.object_id, "name": prompt.name, "frame": prompt.frame}
    if prompt.box is not None:
        written["box"] = list(prompt.box)
    if prompt.points:
        written["points"] = [list(point) for point in prompt.points]
        written["labels"] = list(prompt.labels)
    if isinstance(prompt.mask, MaskFile):
        written["mask"] = str(prompt.mask.path.absolute())
        if prompt.mask.value is not None:
            written["mask_value"] = prompt.mask.value
    if isinstance(prompt.mask, RleMask):
        written["mask"] = {"size": [prompt.mask.height, prompt.mask.width], "counts": prompt.mask.counts}
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


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"prompt manifest {path}: cannot be read ({exc}); write one (the README shows its form) "
            f"or name another with dataset.prompts=FILE"
        ) from exc


def _entries(text: str, path: Path) -> tuple[dict[str, ClipEntry], list[str]]:
    """Every entry by its key, of a wrong one what is right in it; and all mistakes."""
    try:
        content = json.loads(text, object_pairs_hook=_no_repeats) if path.suffix == ".json" else _load_yaml(text)
    except (ValueError, yaml.YAMLError, RecursionError) as exc:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise ConfigError(f"prompt manifest {path}: not valid {kind}: {exc}") from exc
    return _checked(content)


def _checked(content: Any) -> tuple[dict[str, ClipEntry], list[str]]:
    """As `_entries`, of what the text says."""
    try:
        return dict(Manifest.model_validate(content).clips), []
    except ValidationError as exc:
        errors = [error for error in exc.errors() if not _is_told_otherwise(error)]
    clips = content.get("clips") if isinstance(content, dict) else None
    given: dict[str, Any] = clips if isinstance(clips, dict) else {}
    mistakes = [_describe(error, given) for error in errors]
    # pydantic looks for contradictions only where everything else is right; and a wrong entry is an entry all the same.
    entries = {key: ClipEntry.model_construct(objects=tuple(_sound_objects(entry))) for key, entry in given.items()}
    for key, entry in entries.items():
        mistakes += [f"clip {key!r}, {mistake}" for mistake in contradictions(entry.objects)]
    return entries, list(dict.fromkeys(mistakes))


def _sound_objects(entry: Any) -> Iterator[ObjectEntry]:
    """The objects of an entry that are right in themselves."""
    objects = entry.get("objects") if isinstance(entry, dict) else None
    for item in objects if isinstance(objects, list) else []:
        with suppress(ValidationError):
            yield ObjectEntry.model_validate(item)


def _is_told_otherwise(error: Any) -> bool:
    """Whether it is a contradiction, told one by one, or follows from others: to pydantic a wrong object is none."""
    is_contradiction = error["type"] == "value_error" and len(error["loc"]) == len(("clips", "a clip", "objects"))
    return is_contradiction or (error["type"] == "too_short" and len(error["input"]) > 0)


def _missing_masks(prompts: Mapping[str, Sequence[Prompt]]) -> list[str]:
    return [
        f"clip {key!r}, object {prompt.object_id}: mask {prompt.mask.path}: there is no such file"
        for key, found in prompts.items()
        for prompt in found
        if isinstance(prompt.mask, MaskFile) and not _is_file(prompt.mask.path)
    ]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no file can have such a name
        return False


def _refuse(path: Path, mistakes: Sequence[str]) -> None:
    if mistakes:
        lines = "\n  ".join(mistakes)
        raise ConfigError(f"prompt manifest {path}: {len(mistakes)} mistake(s)\n  {lines}")


def _mask_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise PromptError(f"mask {path} cannot be read: {exc}; check that it is there and readable") from exc


# What is expected at each depth of a manifest, down to an object's entry.
_EXPECTED = (
    "a mapping with the key clips",
    "clip ids or patterns, each with its objects",
    "a mapping with the key objects",
    "a list of objects",
    "a mapping such as {id: 1, box: [x0, y0, x1, y1]}",
)


def _describe(error: Any, given: Mapping[str, Any]) -> str:
    """One pydantic error in the manifest's words: clip, object, field, reason, value."""
    where = list(error["loc"])
    words = []
    if where[:1] == ["clips"] and len(where) > 1:
        words.append(f"clip {where[1]!r}")
    if where[2:3] == ["objects"] and len(where) > 3:
        entry = given[where[1]]["objects"][where[3]]
        named = entry.get("id") if isinstance(entry, dict) else None
        words.append(f"object {named}" if isinstance(named, int) else f"entry {where[3] + 1}")
        if isinstance(entry, dict):
            return ", ".join([*words, _describe_field({**error, "loc": where[4:]}, entry)])
    if error["type"] == "extra_forbidden":
        words.append(str(where[-1]))
        reason = _unknown_key(words[-1], Manifest if len(where) == 1 else ClipEntry)
    elif error["type"] == "missing":
        reason = f"expected {_EXPECTED[len(where) - 1]}"
    else:
        words += where[-1:] if len(where) in (1, 3) else []
        reason = f"expected {_EXPECTED[len(where)]}, got {reprlib.repr(error['input'])}"
    return f"{', '.join(words) or 'file'}: {reason}"


def _describe_field(error: Any, entry: Mapping[str, Any]) -> str:
    """One pydantic error in an object's entry: field, reason, value."""
    if error["type"] == "value_error":  # ours, which names the field
        return str(error["msg"]).removeprefix("Value error, ")
    field = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{field}: {_unknown_key(field, ObjectEntry)}"
    expected = f"expected {ObjectEntry.model_fields[field].description}"
    return f"{field}: {expected}, got {reprlib.repr(entry[field])}" if field in entry else f"{field}: {expected}"


def _unknown_key(key: str, model: type[BaseModel]) -> str:
    near = get_close_matches(key, model.model_fields, n=1)
    return (
        f"unknown key; did you mean {near[0]}?" if near else f"unknown key; there are {', '.join(model.model_fields)}"
    )


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} stands twice; the second would silently win")
    return dict(pairs)


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML's safe loader (libyaml's where it is there: ten times as fast) with two differences.

    Repeated keys are refused; and keys are text as written: a clip called 001 or 2024-05-01 is no number and no date.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take in what `<<` brings; a key stands once then, so that merges of merges do not grow without limit."""
        scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        own = Counter(key.value for key in scalars if key.tag != "tag:yaml.org,2002:merge")
        repeated = [key for key, count in own.items() if count > 1]
        if repeated:
            line = node.start_mark.line + 1
            raise ValueError(f"the key {repeated[0]!r} stands twice below line {line}; the second would silently win")
        super().flatten_mapping(node)
        last: dict[Hashable, Any] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
            last[key.value if isinstance(key, yaml.ScalarNode) else id(key)] = key, value
        node.value = list(last.values())


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a safe loader's subclass)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m aot.prompts", description="Prompt manifests: schema, check, and import of others' boxes."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("schema", help="print the JSON schema of a manifest")
    check = commands.add_parser("check", help="check a manifest without its videos")
    check.add_argument("manifest", type=Path)
    importing = commands.add_parser("import", help="make a manifest of the boxes of a detector or another tracker")
    importing.add_argument(
        "files", type=Path, nargs="+", help="COCO's JSON; MOTChallenge's det.txt, gt.txt or NAME.txt"
    )
    importing.add_argument("--format", choices=("coco", "mot"), required=True)
    importing.add_argument("--out", type=Path, required=True, help="the manifest, YAML or JSON by its suffix")
    importing.add_argument("--min-score", type=float, default=0.0, help="leave out boxes below this score")
    importing.add_argument("--images", type=Path, help="coco: the file that lists the images of a list of results")
    importing.add_argument(
        "--frames", type=Path, help="coco: the folder of the clips' frame folders, to count frames in"
    )
    importing.add_argument("--masks", action="store_true", help="coco: segmentations as mask prompts in place of boxes")
    importing.add_argument("--clip", help="mot: the clip's id, if it is not the sequence's name (one file)")
    importing.add_argument("--size", help="mot: WIDTHxHEIGHT of the video, where there is no seqinfo.ini")
    options = parser.parse_args(arguments)
    if options.command == "schema":
        print(json.dumps(Manifest.model_json_schema(), indent=2))
        return 0
    try:
        if options.command == "import":
            _import(options)
            return 0
        entries, mistakes = _entries(_read_text(options.manifest), options.manifest)
        prompts = {key: entry_prompts(entry, options.manifest.parent) for key, entry in entries.items()}
        _refuse(options.manifest, [*mistakes, *_missing_masks(prompts)])
    except AotError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.manifest}: {len(entries)} entries, all well formed")
    return 0


def _import(options: argparse.Namespace) -> None:
    from aot.manifest.converters import manifest_of, read_coco, read_mot, write_manifest

    if options.clip and len(options.files) > 1:
        raise ConfigError(f"--clip {options.clip}: names one clip, got {len(options.files)} files")
    size = re.fullmatch(r"([0-9]+)x([0-9]+)", options.size or "")
    if options.size and not size:
        raise ConfigError(f"--size {options.size}: expected WIDTHxHEIGHT, such as 1920x1080")
    found = []
    for path in options.files:
        if options.format == "coco":
            found += read_coco(path, images=options.images, frames=options.frames, masks=options.masks)
        else:
            limits = (int(size[1]), int(size[2])) if size else None
            found += read_mot(path, clip_id=options.clip, size=limits)
    write_manifest(options.out, manifest_of(found, min_score=options.min_score))
    manifest = load_manifest(options.out)
    num_objects = sum(len({entry.id for entry in clip.objects}) for clip in manifest.clips.values())
    print(f"{options.out}: {len(manifest.clips)} clips, {num_objects} objects")


if __name__ == "__main__":
    sys.exit(run_command(main))
