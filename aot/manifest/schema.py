"""The schema of a prompt manifest, and checks for contradictions between the prompts of one clip.

Error messages quote a field's description up to the first semicolon: "expected ⟨description⟩, got …".
"""

from __future__ import annotations

import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from aot.errors import printable, unprintable_characters
from aot.types import MAX_FOUND

_MAX_OBJECT_ID = 2**31 - 1

_MAX_TEXT = 200
"""Characters of a description: detectors read some tens of words."""

Score = Annotated[FiniteFloat, Field(ge=0, le=1)]

ObjectId = Annotated[
    int, Field(ge=1, le=_MAX_OBJECT_ID, strict=True, description="an integer ≥ 1; unique for each object of a clip")
]

SourceFrame = Annotated[int, Field(ge=0, strict=True, description="a source frame number ≥ 0")]

Coordinate = Annotated[FiniteFloat, Field(description="px of the source video, pixel centres at integers")]

MIN_BOX_PX = 1
"""Minimum width and height of a box."""


def _is_shown_as_written(value: str, info: ValidationInfo) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{info.field_name}: expected Unicode text, got a lone surrogate, which UTF-8 cannot encode"
        ) from None
    if found := unprintable_characters(value):
        named = ", ".join(f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip() for char in found)
        raise ValueError(
            f'{info.field_name}: "{printable(value, keep="")}" contains invisible characters ({named}); expected text '
            f"that is shown as it is written: remove them"
        )
    return value


def _not_pixels(got: object) -> str:
    return (
        f"positions are pixels of the source video, got {reprlib.repr(got)}, all within 0 to 1; "
        f"multiply fractions by the width and the height of the video"
    )


def _are_fractions(values: Iterable[float]) -> bool:
    return all(0 <= value <= 1 for value in values)


class RleEntry(BaseModel):
    """A mask as compressed COCO run lengths."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(description="[height, width] px")
    counts: str = Field(pattern=r"^[0-o]*$", description="the runs as pycocotools encodes them")


class ObjectEntry(BaseModel):
    """One prompt of one object, on one frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: ObjectId
    name: Annotated[str, AfterValidator(_is_shown_as_written)] = Field(
        "", description="text; shown in overlays and reports"
    )
    frame: SourceFrame = 0
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = Field(None, description="[x0, y0, x1, y1]")
    points: tuple[tuple[Coordinate, Coordinate], ...] = Field((), description="[[x, y], …]")
    labels: tuple[Literal[0, 1], ...] = Field(
        (), description="one label per point, 1 object or 0 background; default: all 1"
    )
    mask: str | RleEntry | None = Field(
        None,
        description="an image file relative to the manifest, or COCO run lengths {size, counts}; pixels other than 0 "
        "are the object, and mask_id chooses one of several values",
    )
    mask_id: Annotated[int, Field(ge=1, le=255, strict=True)] | None = Field(
        None,
        description="the pixel value of the object in a mask image with several, from 1 to 255; 255 is void beside "
        "other values",
    )
    query_points: tuple[tuple[SourceFrame, Coordinate, Coordinate], ...] = Field(
        (),
        description="[[source frame, x, y], …]; these points are tracked for this object and replace the points that "
        "query_points would sample from its masks",
    )
    text: Annotated[str, AfterValidator(_is_shown_as_written)] | None = Field(
        None,
        min_length=1,
        max_length=_MAX_TEXT,
        pattern=r"\S",
        description=f"words that describe the object, at most {_MAX_TEXT} characters; a detector finds it at the start "
        "of the clip, unless a box or mask is given, which it then has found",
    )
    count: Annotated[int, Field(ge=1, le=MAX_FOUND, strict=True)] | Literal["all"] | None = Field(
        None,
        description=f'the number of objects to find by text, 1 to {MAX_FOUND}, or "all"; they get ids from id on, in '
        "order of their scores; default: 1",
    )
    min_score: Score | None = Field(
        None, description="the lowest score of a box that shows the object, 0 to 1; default: detector.min_score"
    )
    frames: tuple[SourceFrame, ...] = Field(
        (),
        max_length=100,
        description="[source frame, …], at most 100, in place of frame; they are looked at in this order until the "
        "objects of text are found",
    )
    score: Score | None = Field(
        None, description="the score, 0 to 1, with which a detector has found the box or mask by text"
    )
    model: Annotated[str, AfterValidator(_is_shown_as_written)] = Field(
        "", description="text; the model that has found the box or mask by text"
    )

    @model_validator(mode="before")
    @classmethod
    def _first_of_frames(cls, given: Any) -> Any:
        frames = given.get("frames") if isinstance(given, dict) and "frame" not in given else None
        return {**given, "frame": frames[0]} if isinstance(frames, list | tuple) and frames else given

    @field_validator("box")
    @classmethod
    def _ordered(cls, box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"box: expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got {list(box)}")
        if box is not None and _are_fractions(box):
            raise ValueError(f"box: {_not_pixels(list(box))}")
        if box is not None and min(box[2] - box[0], box[3] - box[1]) < MIN_BOX_PX:
            raise ValueError(
                f"box: {list(box)} is {box[2] - box[0]:g} x {box[3] - box[1]:g} px; expected at least {MIN_BOX_PX} px "
                f"on each side: positions are pixels of the source video"
            )
        return box

    @field_validator("points", "query_points")
    @classmethod
    def _in_pixels(cls, points: tuple[tuple[float, ...], ...], info: ValidationInfo) -> tuple[tuple[float, ...], ...]:
        values = [value for point in points for value in point[-2:]]
        # (0, 0) and (1, 1) are pixels; people and annotation tools give fractions of pixels only as decimals.
        if values and _are_fractions(values) and not all(value.is_integer() for value in values):
            raise ValueError(f"{info.field_name}: {_not_pixels([list(point) for point in points])}")
        return points

    @model_validator(mode="after")
    def _complete(self) -> ObjectEntry:
        if self.labels and len(self.labels) != len(self.points):
            raise ValueError(f"labels: expected one per point ({len(self.points)}), got {len(self.labels)}")
        if self.mask is not None and (self.box is not None or self.points):
            raise ValueError("mask: cannot be combined with a box or points on the same frame; remove one of the two")
        if self.mask_id is not None and not isinstance(self.mask, str):
            raise ValueError("mask_id: expected a mask that is an image file; remove it otherwise")
        self._check_words()
        if not self.is_visual and not self.query_points and self.text is None:
            raise ValueError("box, points, mask, text or query_points: none given; expected at least one")
        return self

    def _check_words(self) -> None:
        """Check the fields of objects that a detector finds or has found."""
        names = ("count", "min_score", "frames", "score", "model")
        given = [name for name in names if getattr(self, name) not in (None, (), "")]
        if given and self.text is None:
            raise ValueError(f"{given[0]}: expected together with text; remove it otherwise")
        is_found = self.box is not None or self.mask is not None
        unused = [name for name in given if (name in ("score", "model")) != is_found]
        if unused and is_found:
            raise ValueError(
                f"{unused[0]}: the object of text is not looked for, because its box or mask is given; remove "
                f"{unused[0]}, or remove the box or mask"
            )
        if unused:
            raise ValueError(f"{unused[0]}: expected together with the box or mask that was found; remove it otherwise")
        if self.text is not None and self.points and not is_found:
            raise ValueError("text: cannot be combined with points on the same frame; remove one of the two")
        if self.frames and (self.frame != self.frames[0] or len(set(self.frames)) < len(self.frames)):
            raise ValueError(
                f"frames: expected different frames, and no other frame beside them, got {list(self.frames)} and "
                f"frame {self.frame}"
            )
        if self.max_objects > 1 and self.query_points:
            raise ValueError(f"query_points: expected a single object, got count: {self.count}")
        if self.id + self.max_objects - 1 > _MAX_OBJECT_ID:
            raise ValueError(f"id: expected an integer up to {_MAX_OBJECT_ID - self.max_objects + 1} with this count")

    @property
    def is_visual(self) -> bool:
        """Whether the entry locates the object by itself."""
        return self.box is not None or bool(self.points) or self.mask is not None

    @property
    def is_looked_for(self) -> bool:
        """Whether a detector has to find the object."""
        return self.text is not None and not self.is_visual

    @property
    def max_objects(self) -> int:
        """The number of ids that the entry may take."""
        if not self.is_looked_for:
            return 1
        return MAX_FOUND if self.count == "all" else self.count or 1

    @property
    def all_frames(self) -> tuple[int, ...]:
        """The frames that the prompt may be on."""
        return self.frames or (self.frame,)


class ClipEntry(BaseModel):
    """The objects of one clip, or of all clips that a pattern matches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objects: tuple[ObjectEntry, ...] = Field(
        min_length=1, description="prompts; an object may have several, each on another frame"
    )

    @field_validator("objects")
    @classmethod
    def _consistent(cls, objects: tuple[ObjectEntry, ...]) -> tuple[ObjectEntry, ...]:
        if errors := contradictions(objects):
            raise ValueError("; ".join(errors))
        return objects


class Manifest(BaseModel):
    """Prompts of a dataset: clip ids or patterns (`day1/*`; `*` also matches `/`), each with its objects."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="aot prompt manifest")

    clips: dict[str, ClipEntry]


def contradictions(objects: Sequence[ObjectEntry]) -> list[str]:
    """Contradictions between the prompts of one clip, as messages."""
    counts = Counter((entry.id, frame) for entry in objects for frame in entry.all_frames)
    errors = [
        f"object {object_id}: has {count} entries on frame {frame}; merge them into one"
        for (object_id, frame), count in counts.items()
        if count > 1
    ]
    for object_id in sorted({entry.id for entry in objects}):
        own = sorted((entry for entry in objects if entry.id == object_id), key=lambda entry: entry.frame)
        errors += [f"object {object_id}: {error}" for error in _object_contradictions(own)]
    return errors + _clashes(objects)


def _clashes(objects: Sequence[ObjectEntry]) -> list[str]:
    """The entries whose number of objects takes the ids of other entries."""
    errors = []
    for entry in objects:
        last = entry.id + entry.max_objects - 1
        others = sorted({other.id for other in objects if other is not entry and entry.id <= other.id <= last})
        if entry.max_objects > 1 and others:
            errors.append(
                f"object {entry.id}: count: {entry.count} takes the ids {entry.id} to {last}, but object {others[0]} "
                f"has an entry of its own; expected other ids, such as id: {max(other.id for other in objects) + 1}"
            )
    return errors


def _object_contradictions(entries: Sequence[ObjectEntry]) -> list[str]:
    """Contradictions between the prompts of one object, which are ordered by frame."""
    errors = []
    names = sorted({entry.name for entry in entries if entry.name})
    if len(names) > 1:
        errors.append(f"has the names {', '.join(names)}; expected a single name")
    num_texts = sum(entry.is_looked_for for entry in entries)
    if num_texts > 1:
        errors.append(
            f"has {num_texts} entries with a text to be looked for; expected one: its frames: [0, 30] are looked at "
            f"in order, its count: 3 finds several objects"
        )
    first = next((entry for entry in entries if entry.is_visual or entry.is_looked_for), None)
    if first and first.points and not first.box and first.labels and 1 not in first.labels:
        errors.append("has only background points on its first frame; give at least one point the label 1")
    return errors
