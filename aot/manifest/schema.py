"""The form of a prompt manifest: entries, their types, and what contradicts what in the entries of one clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

# Mistakes are told in these words too: "expected ⟨description⟩, got …".
ObjectId = Annotated[
    int, Field(ge=1, le=2**31 - 1, strict=True, description="a whole number from 1, each object its own")
]

SourceFrame = Annotated[int, Field(ge=0, strict=True, description="a source frame number, from 0")]

Coordinate = Annotated[FiniteFloat, Field(description="px of the source video, pixel centres at integers")]


def _is_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate), which no file in UTF-8 can hold") from None
    return value


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
