"""Folders with one image file per frame: which file is which source frame."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from aot.errors import DecodeError
from aot.system.listing import visible_entries
from aot.system.text import counted, override_text

# What cv2.imread reads and datasets use for frames.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

# A sign belongs to the number at the start of a name or after another separator: -1, frame_-1; not in frame-1, 05-12.
_NUMBER = re.compile(r"(?:(?<![^\W_])[+-])?[0-9]+(?:[.,][0-9]+)?")
_INTEGER = re.compile(r"(?:(?<![^\W_])[+-])?[0-9]+")
_SAME_FORMAT = {".jpeg": ".jpg", ".tiff": ".tif"}
_MAX_PATTERNS = 6


def image_files(folder: Path, pattern: str | None = None) -> list[Path]:
    """The image files of a folder, ordered by the numbers in their names: file i is source frame i.

    The pattern of a name is the name without its last number, with its sign and decimals; numbers at the end that all
    names share, as in `0001_640x480.png`, are not it. A folder contains the frames of one video if all names have the
    same pattern, or none has a number.

    Args:
        folder: other files in it are ignored, and so are hidden ones.
        pattern: of the names of the frames, as a message lists it or with wildcards: `*_color.png`; None: all images.
    Raises:
        DecodeError: the folder has no such image, images with several patterns, or two images with the same number.
        OSError: the folder cannot be listed.
    """
    files = [file for file in visible_entries(folder) if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise DecodeError(
            f"{folder}: contains no image; expected one file per frame ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    names = _named(files)
    if pattern is not None:
        names = _chosen(folder, names, pattern)
    if pattern is None:
        _refuse_several_patterns(folder, names)
    names.sort(key=_FrameName.order)
    for one, other in pairwise(names):
        if one.order() == other.order():
            raise DecodeError(
                f"{folder}: {one.file.name} and {other.file.name} have the same frame number; expected one file per "
                f"frame: move the other image to another folder"
            )
    return [name.file for name in names]


@dataclass(frozen=True)
class _FrameName:
    """The name of an image, divided at its number."""

    file: Path
    before: str
    number: Decimal | None
    """None: the name contains no number."""
    after: str

    @property
    def pattern(self) -> str:
        suffix = self.file.suffix.lower()
        number = "" if self.number is None else "*"
        return f"{self.before}{number}{self.after}{_SAME_FORMAT.get(suffix, suffix)}"

    def order(self) -> tuple[object, ...]:
        """The key of the natural order: clip2_9 comes before clip2_10, and that before clip10_1."""
        number = (0, Decimal(0)) if self.number is None else (1, self.number)
        return _natural(self.before), number, _natural(self.after), self.file.suffix if self.number is None else ""


def _natural(text: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _named(files: Sequence[Path]) -> list[_FrameName]:
    """The names of a folder's images, with the number that tells their order."""
    with_decimals = _divided(files, _NUMBER)
    without = _divided(files, _INTEGER)
    return without if _is_counter_after_dot(with_decimals, without) else with_decimals


def _is_counter_after_dot(decimals: Sequence[_FrameName], counters: Sequence[_FrameName]) -> bool:
    """Whether 1.9 and 1.10 are images 9 and 10 of shot 1, and not 1.9 s and 1.1 s."""
    numbers = [name.number for name in decimals if name.number is not None]
    if len(set(numbers)) < len(numbers):
        return True
    by_shot: dict[str, list[_FrameName]] = {}
    for name in counters:
        by_shot.setdefault(name.before, []).append(name)
    steps = [_steps(shot) for shot in by_shot.values()]
    is_counted = len(steps[0]) == 1 if len(steps) == 1 else set().union(*steps) == {Decimal(1)}
    return is_counted and len(_steps(decimals)) > 1


def _steps(names: Sequence[_FrameName]) -> set[Decimal]:
    """The different steps from one number to the next."""
    numbers = sorted(name.number for name in names if name.number is not None)
    return {after - before for before, after in pairwise(numbers)}


def _divided(files: Sequence[Path], number: re.Pattern[str]) -> list[_FrameName]:
    """Divide every name at its last number that is not part of an ending that all names share."""
    found = {file: list(number.finditer(file.stem)) for file in files}
    from_end = 1
    if len(files) > 1:
        while _is_shared_ending(found, from_end):
            from_end += 1
    if any(0 < len(matches) < from_end for matches in found.values()):
        from_end = 1
    names = []
    for file, matches in found.items():
        if matches:
            last = matches[-from_end]
            names.append(
                _FrameName(file, file.stem[: last.start()], Decimal(last[0].replace(",", ".")), file.stem[last.end() :])
            )
        else:
            names.append(_FrameName(file, file.stem, None, ""))
    return names


def _is_shared_ending(found: dict[Path, list[re.Match[str]]], from_end: int) -> bool:
    """Whether all names end in the same text from their n-th last number on."""
    if any(len(matches) < from_end for matches in found.values()):
        return False
    return len({file.stem[matches[-from_end].start() :] for file, matches in found.items()}) == 1


def _chosen(folder: Path, names: Sequence[_FrameName], pattern: str) -> list[_FrameName]:
    """The names of a pattern: those of exactly this one if there are some, else those that it matches as wildcards."""
    chosen = [name for name in names if name.pattern == pattern]
    chosen = chosen or [name for name in names if fnmatch.fnmatchcase(name.file.name, pattern)]
    if not chosen:
        raise DecodeError(f"{folder}: no image has a name like dataset.pattern={pattern}; found {_found(names)}")
    return chosen


def _refuse_several_patterns(folder: Path, names: Sequence[_FrameName]) -> None:
    patterns = _patterns(names)
    if len(patterns) > 1 and any(name.number is not None for name in names):
        raise DecodeError(
            f"{folder}: its images have names of {len(patterns)} patterns: {_found(names)}; expected the frames of one "
            f"video: choose them with {override_text('dataset.pattern', next(iter(patterns)))}, or move the other "
            f"images to another folder; {override_text('dataset.pattern', '*')} takes all"
        )


def _patterns(names: Sequence[_FrameName]) -> dict[str, int]:
    """Pattern → number of images, the most frequent first."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name.pattern] = counts.get(name.pattern, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _found(names: Sequence[_FrameName]) -> str:
    patterns = _patterns(names)
    shown = [f"{pattern} ({counted(count, 'image')})" for pattern, count in list(patterns.items())[:_MAX_PATTERNS]]
    more = len(patterns) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
