"""The schema of a prompt manifest, and checks for contradictions between the prompts of one clip.

Error messages quote a field's description up to the first semicolon: "expected ⟨description⟩, got …".
"""

from __future__ import annotations

import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

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

ObjectId = Annotated[
    int, Field(ge=1, le=2**31 - 1, strict=True, description="an integer ≥ 1; unique for each object of a clip")
]

SourceFrame = Annotated[int, Field(ge=0, strict=True, description="a source frame number ≥ 0")]

Coordinate = Annotated[FiniteFloat, Field(description="px of the source video, pixel centres at integers")]

MIN_BOX_PX = 1
"""Minimum width and height of a box."""


def _is_shown_as_written(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("name: expected Unicode text, got a lone surrogate, which UTF-8 cannot encode") from None
    if found := unprintable_characters(value):
        named = ", ".join(f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip() for char in found)
        raise ValueError(
            f'name: "{printable(value, keep="")}" contains invisible characters ({named}); expected text that is shown '
            f"as it is written: remove them"
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
        if self.box is None and not self.points and self.mask is None and not self.query_points:
            raise ValueError("box, points, mask or query_points: none given; expected at least one")
        return self


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
    counts = Counter((entry.id, entry.frame) for entry in objects)
    errors = [
        f"object {object_id}: has {count} entries on frame {frame}; merge them into one"
        for (object_id, frame), count in counts.items()
        if count > 1
    ]
    for object_id in sorted({entry.id for entry in objects}):
        own = sorted((entry for entry in objects if entry.id == object_id), key=lambda entry: entry.frame)
        errors += [f"object {object_id}: {error}" for error in _object_contradictions(own)]
    return errors


def _object_contradictions(entries: Sequence[ObjectEntry]) -> list[str]:
    """Contradictions between the prompts of one object, which are ordered by frame."""
    errors = []
    names = sorted({entry.name for entry in entries if entry.name})
    if len(names) > 1:
        errors.append(f"has the names {', '.join(names)}; expected a single name")
    first = next((entry for entry in entries if entry.box or entry.points or entry.mask), None)
    if first and first.points and not first.box and first.labels and 1 not in first.labels:
        errors.append("has only background points on its first frame; give at least one point the label 1")
    return errors
