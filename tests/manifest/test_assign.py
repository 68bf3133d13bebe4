"""Assigning the entries of a manifest to clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot.errors import ConfigError
from aot.manifest.assign import assign_prompts, check_manifest
from aot.types import Clip, Found, MaskFile, Words
from tests.manifest.samples import EVERY_KIND, clips, write


def test_entries_are_assigned_to_their_clips(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.new("L", (4, 4), 255).save(tmp_path / "masks" / "teapot_2.png")
    assigned = assign_prompts(clips("teapot", "day1/cam1/a", "day1/cam2/a", "day2/a"), write(tmp_path, EVERY_KIND))
    by_id = {clip.clip_id: clip for clip in assigned}
    first, correction, masked, queried = by_id["teapot"].prompts
    assert (first.object_id, first.frame, first.labels) == (1, 0, (1, 0))
    assert (correction.object_id, correction.frame, correction.name) == (1, 40, "teapot")
    assert masked.mask == MaskFile(tmp_path / "masks" / "teapot_2.png")
    assert queried.query_points == ((0, 600.0, 465.0), (12, 610.5, 470.0))
    assert by_id["teapot"].object_ids == (1, 2, 3)
    assert by_id["day1/cam1/a"].object_ids == (1,)
    assert by_id["day1/cam2/a"].object_ids == (7,), "the more specific pattern takes precedence"
    assert by_id["day2/a"].prompts == ()


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    """Invalid objects hide neither contradictions, nor unknown clips, nor missing files."""
    box = "box: [1, 2, 3, 4]"
    text = f"""
        clips:
          a:
            objects:
              - {{id: 0, {box}}}
              - {{id: 1, box: [4, 4, 1, 1]}}
              - {{id: 2, {box}}}
              - {{id: 2, points: [[1, 1]]}}
              - {{id: 3, mask: no.png}}
              - just text
          b: {{objects: []}}
          c: {{objekts: [{{id: 1, {box}}}]}}
          d: text
          unknown: {{objects: [{{id: 0, {box}}}]}}
        clisp: 3
    """
    with pytest.raises(ConfigError, match=r"prompts\.yaml: 12 errors\n") as caught:
        assign_prompts(clips("a", "b", "c", "d"), write(tmp_path, text))
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines()[1:] == [
        "  clip 'a', object 0, id: expected an integer ≥ 1, got 0",
        "  clip 'a', object 1, box: expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got [4.0, 4.0, 1.0, 1.0]",
        "  clip 'a', entry 6: expected a mapping such as {id: 1, box: [x0, y0, x1, y1]}, got 'just text'",
        "  clip 'b', objects: expected a list of objects, got []",
        "  clip 'c': expected a mapping with the key objects",
        "  clip 'c', objekts: unknown key; did you mean objects?",
        "  clip 'd': expected a mapping with the key objects, got 'text'",
        "  clip 'unknown', object 0, id: expected an integer ≥ 1, got 0",
        "  clisp: unknown key; did you mean clips?",
        "  clip 'a', object 2: has 2 entries on frame 0; merge them into one",
        "  clip 'unknown' is not in the dataset; it has 4 clips, such as a",
        "  clip 'a', object 3: mask no.png: no such file",
    ]


def test_unknown_clips_are_reported_with_similar_ids(tmp_path: Path) -> None:
    text = "clips: {teapto: {objects: [{id: 1, box: [1,2,3,4]}]}, 'x/*': {objects: [{id: 1, box: [1,2,3,4]}]}}"
    with pytest.raises(ConfigError, match=r"2 errors\n  .*did you mean teapot") as caught:
        assign_prompts(clips("teapot", "mug"), write(tmp_path, text))
    assert "pattern 'x/*' matches no clip of the dataset, which has 2 clips" in str(caught.value)


def test_missing_mask_files_and_ambiguous_patterns_are_reported(tmp_path: Path) -> None:
    long = "x" * 400
    text = (
        f"clips: {{'a*': {{objects: [{{id: 1, mask: no.png}}, {{id: 2, mask: {long}}}, {{id: 3, mask: /etc}}]}}, "
        f"'*b': {{objects: [{{id: 1, box: [1,2,3,4]}}]}}}}"
    )
    with pytest.raises(ConfigError, match=r"no\.png: no such file") as caught:
        assign_prompts(clips("ab"), write(tmp_path, text))
    assert "equally specific" in str(caught.value)
    assert f"{long}: no such file" in str(caught.value)
    assert "mask /etc: no such file" in str(caught.value)


def test_a_missing_manifest_is_reported_with_the_command_that_creates_it(tmp_path: Path) -> None:
    path = tmp_path / "my clips" / "prompts.yaml"
    command = f"python -m aot.prompt dataset=videos 'dataset.root=\"{path.parent}\"' 'dataset.prompts=\"{path}\"'"
    with pytest.raises(ConfigError, match="does not exist; click prompts with") as caught:
        assign_prompts(clips("a"), path, dataset="videos", root=path.parent)
    assert f"`{command}`, or name an existing manifest with dataset.prompts=FILE" in str(caught.value)


def test_mask_id_chooses_the_value_of_the_object(tmp_path: Path) -> None:
    manifest = tmp_path / "p.yaml"
    manifest.write_text("clips: {a: {objects: [{id: 1, mask: two.png, mask_id: 2}]}}")
    Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).save(tmp_path / "two.png")
    (clip,) = assign_prompts([Clip("a", tmp_path / "a.mp4")], manifest)
    assert clip.prompts[0].mask == MaskFile(tmp_path / "two.png", 2)
    manifest.write_text("clips: {a: {objects: [{id: 1, box: [0, 0, 9, 9], mask_id: 2}]}}")
    with pytest.raises(ConfigError, match="mask_id: expected a mask that is an image file"):
        check_manifest(manifest)


def test_check_reads_the_masks(tmp_path: Path) -> None:
    manifest = tmp_path / "p.yaml"
    manifest.write_text("clips: {a: {objects: [{id: 1, mask: one.png}, {id: 2, mask: two.png}]}}")
    Image.fromarray(np.full((4, 4), 255, dtype=np.uint8)).save(tmp_path / "one.png")
    Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).save(tmp_path / "two.png")
    with pytest.raises(ConfigError, match=r"clip 'a', object 2: mask .*two\.png: contains the values 1, 2; expected"):
        check_manifest(manifest)
    manifest.write_text("clips: {a: {objects: [{id: 1, mask: one.png}]}}")
    num_entries, (note,) = check_manifest(manifest)
    assert num_entries == 1
    assert note.startswith("clip 'a', object 1: its mask covers 100.0% of frame 0; check that it marks the object")


def test_texts_become_words_or_the_origin_of_a_box(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "clips: {a: {objects: [{id: 1, text: red mug, count: all, frames: [30, 0], min_score: 0.2}, "
        "{id: 30, name: cap, text: hat, box: [1, 2, 3, 4], score: 0.4, model: m}, {id: 31, text: cup}]}}",
    )
    mugs, hat, cup = assign_prompts([Clip("a", tmp_path)], path)[0].prompts
    assert (mugs.words, mugs.frame, mugs.name) == (Words("red mug", (30, 0), None, 0.2), 30, "red mug")
    assert (hat.words, hat.found, hat.name) == (None, Found("hat", 0.4, "m"), "cap")
    assert cup.words == Words("cup", (0,))
