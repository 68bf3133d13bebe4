"""A manifest with every kind of entry, and helpers."""

from __future__ import annotations

from pathlib import Path

from aot.types import Clip

EVERY_KIND = """
clips:
  teapot:
    objects:
      - id: 1
        name: teapot
        box: [410, 348, 522, 420]
        points: [[462, 388], [445, 372]]
        labels: [1, 0]
      - {id: 2, frame: 30, mask: masks/teapot_2.png}
      - {id: 3, box: [567, 405, 646, 496], query_points: [[0, 600, 465], [12, 610.5, 470]]}
      - {id: 1, frame: 40, points: [[455, 380]], labels: [0]}
  "day1/*":
    objects: [{id: 1, box: [1, 2, 3, 4]}]
  "day1/cam2/*":
    objects: [{id: 7, box: [1, 2, 3, 4]}]
"""


def clips(*ids: str) -> list[Clip]:
    return [Clip(clip_id=clip_id, source=Path(f"{clip_id}.mp4")) for clip_id in ids]


def write(folder: Path, text: str, name: str = "prompts.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
