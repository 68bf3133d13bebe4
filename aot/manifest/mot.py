"""Boxes in the text format of MOTChallenge."""

from __future__ import annotations

import configparser
import reprlib
from collections.abc import Sequence
from pathlib import Path

from aot.errors import ConfigError
from aot.manifest.converters import Detection, Imported, inside_frame, source_frame
from aot.system.text import counted
from aot.system.text_files import MalformedFile, read_text

_EXPECTED_MOT = "expected lines of MOTChallenge text: frame, id, left, top, width, height, score"
# The columns after the box: the score (in ground truth: whether to consider the box) and the class.
_SCORE, _CLASS = 6, 7
_UNKNOWN = -1.0


def read_mot(
    path: Path, *, clip_id: str | None = None, size: tuple[int, int] | None = None, first_frame: int | None = None
) -> Imported:
    """Read a MOTChallenge sequence: `frame, id, left, top, width, height, score, class, …`.

    Where the seventh column is 0 or 1 in all lines it is the ground truth's flag "consider", and boxes with 0 are left
    out. Columns may also be separated by spaces.

    Args:
        path: `SEQUENCE/det/det.txt`, `SEQUENCE/gt/gt.txt`, or a tracker's `SEQUENCE.txt`.
        clip_id: None: the name of the sequence.
        size: width and height in px, to which boxes are cropped; None: those of `SEQUENCE/seqinfo.ini`, if it exists.
        first_frame: number of the first frame; pixels are counted from the same number, up to 1. None: 1, as in
            MOTChallenge.
    Raises:
        ConfigError: the file cannot be read; the message names the invalid line.
    """
    sequence = path.parent.parent if path.stem in ("det", "gt") and path.parent.name == path.stem else None
    name = clip_id or (sequence.name if sequence else path.stem)
    size = size or (_sequence_size(sequence / "seqinfo.ini") if sequence else None)
    rows = _rows(path)
    if first_frame is None and (zero := next((number for number, row in rows if row[0] == 0), None)):
        raise ConfigError(
            f"{path}, line {zero}: frame 0, but MOTChallenge counts frames and pixels from 1; give --first-frame 0 if "
            f"this file counts both from 0"
        )
    is_flagged = {row[_SCORE] for _, row in rows if len(row) > _SCORE} == {0.0, 1.0}
    is_all_zero = all(len(row) > _SCORE and row[_SCORE] == 0 for _, row in rows)
    if is_all_zero:
        raise ConfigError(
            f"{path}: the seventh column is 0 in all lines: a score of 0, or boxes that are not to be considered; set "
            f"it to 1 for the boxes to import"
        )
    has_classes = all(len(row) > _CLASS and row[_CLASS] >= 0 and row[_CLASS].is_integer() for _, row in rows)
    considered = [(number, row) for number, row in rows if not (is_flagged and row[_SCORE] == 0)]
    detections = []
    for number, row in considered:
        try:
            frame = source_frame(int(row[0]), 1 if first_frame is None else first_frame)
        except MalformedFile as exc:
            raise ConfigError(exc.about(f"{path}, line {number}")) from exc
        left, top, width, height = row[2:6]
        origin = 1 if first_frame is None else min(first_frame, 1)
        box = inside_frame(
            (left - origin, top - origin, left - origin + width, top - origin + height), *(size or (None, None))
        )
        score = row[_SCORE] if len(row) > _SCORE and row[_SCORE] != _UNKNOWN else 1.0
        category = int(row[_CLASS]) if has_classes else None
        detections.append(Detection(name, frame, int(row[1]) if row[1] >= 0 else None, box, score, category=category))
    num_ignored = len(rows) - len(considered)
    ignored = f"{path}: left out: {counted(num_ignored, 'box', 'boxes')} not to be considered (0 in column 7)"
    return Imported(tuple(detections), (ignored,) if num_ignored else ())


def _rows(path: Path) -> list[tuple[int, list[float]]]:
    """The lines that are not empty: number of the line, from 1, and its columns."""
    try:
        text = read_text(path)
    except MalformedFile as exc:
        raise ConfigError(f"{exc.about(path)}; {_EXPECTED_MOT}") from exc
    if not text.strip():
        raise ConfigError(f"{path}: the file is empty; {_EXPECTED_MOT}")
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append((number, _columns(line.split(",") if "," in line else line.split())))
            except (ValueError, IndexError, OverflowError) as exc:
                raise ConfigError(
                    f"{path}, line {number}: {reprlib.repr(line)}; expected frame, id, left, top, width, height, score"
                ) from exc
    return rows


def _columns(cells: Sequence[str]) -> list[float]:
    """The columns of a line; those after the class are not read.

    Raises:
        ValueError, IndexError, OverflowError: the line is not valid.
    """
    columns = [float(cell) for cell in cells[:_SCORE]]
    if not all(int(value) == value for value in columns[:2]) or len(columns) < _SCORE:
        raise ValueError(cells)
    for cell in cells[_SCORE : _CLASS + 1]:
        columns.append(float(cell) if cell.strip() else _UNKNOWN)
    return columns


def _sequence_size(path: Path) -> tuple[int, int] | None:
    """Width and height in px according to a seqinfo.ini; None if the file does not exist, or has no such section."""
    if not path.is_file():
        return None
    info = configparser.ConfigParser(interpolation=None)
    expected = "expected a section [Sequence] with the integers imWidth and imHeight; or give --size WIDTHxHEIGHT"
    try:
        info.read_string(read_text(path))
        if "Sequence" not in info:
            return None
        return info.getint("Sequence", "imWidth"), info.getint("Sequence", "imHeight")
    except MalformedFile as exc:
        raise ConfigError(f"{exc.about(path)}; {expected}") from exc
    except (configparser.Error, ValueError) as exc:
        raise ConfigError(f"{path}: not valid; {expected}") from exc
