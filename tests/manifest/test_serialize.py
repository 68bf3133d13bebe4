"""The digest of prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from aot.errors import PromptError
from aot.manifest.serialize import prompts_as_json, prompts_digest
from aot.types import Found, MaskFile, Prompt, Words


def test_digest_covers_the_content_of_mask_files_and_not_their_paths(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4), 255).save(tmp_path / name)
    Image.new("L", (4, 4), 0).save(tmp_path / "c.png")
    digest = {
        name: prompts_digest([Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / name))])
        for name in ("a.png", "b.png", "c.png")
    }
    assert digest["a.png"] == digest["b.png"] != digest["c.png"]
    assert prompts_digest([Prompt(object_id=1, frame=0, box=(0, 0, 1, 1))]) != prompts_digest(
        [Prompt(object_id=1, frame=1, box=(0, 0, 1, 1))]
    )
    with pytest.raises(PromptError, match=r"d\.png cannot be read"):
        prompts_digest([Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "d.png"))])


def test_words_and_their_origin_are_written_as_in_a_manifest() -> None:
    words = Prompt(object_id=1, frame=30, words=Words("red mug", (30, 0), None, 0.2))
    found = Prompt(object_id=2, frame=0, box=(0, 0, 1, 1), found=Found("hat", 0.5, "a/b"))
    assert prompts_as_json([words, found]) == [
        {
            "id": 1, "name": "", "frame": 30, "text": "red mug", "count": "all", "min_score": 0.2, "frames": [30, 0],
        },
        {"id": 2, "name": "", "frame": 0, "box": [0, 0, 1, 1], "text": "hat", "score": 0.5, "model": "a/b"},
    ]  # fmt: skip
    assert prompts_digest([words]) != prompts_digest([Prompt(object_id=1, frame=30, words=Words("red mug", (30, 0)))])


def test_names_count_in_a_clip_with_words() -> None:
    words = Prompt(object_id=2, frame=0, name="mug", words=Words("mug", (0,)))
    boxes = [Prompt(object_id=1, frame=0, name=name, box=(0, 0, 1, 1)) for name in ("cup", "can")]
    single = {prompts_digest([box], with_names=False) for box in boxes}
    beside_words = {prompts_digest([box, words], with_names=False) for box in boxes}
    assert (len(single), len(beside_words)) == (1, 2)
