"""The manifest: what is read, what is refused, and in which words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aot import prompts
from aot.errors import ConfigError, PromptError
from aot.prompts import assign_prompts, check_prompts, load_manifest, points_inside, prompts_digest, read_mask
from aot.types import Clip, MaskFile, Prompt

WHOLE = """
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


def test_whole_manifest_reaches_its_clips(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.new("L", (4, 4), 255).save(tmp_path / "masks" / "teapot_2.png")
    assigned = assign_prompts(clips("teapot", "day1/cam1/a", "day1/cam2/a", "day2/a"), write(tmp_path, WHOLE))
    by_id = {clip.clip_id: clip for clip in assigned}
    first, correction, masked, queried = by_id["teapot"].prompts
    assert (first.object_id, first.frame, first.labels) == (1, 0, (1, 0))
    assert (correction.object_id, correction.frame, correction.name) == (1, 40, "teapot")
    assert masked.mask == MaskFile(tmp_path / "masks" / "teapot_2.png")
    assert queried.query_points == ((0, 600.0, 465.0), (12, 610.5, 470.0))
    assert by_id["teapot"].object_ids == (1, 2, 3)
    assert by_id["day1/cam1/a"].object_ids == (1,)
    assert by_id["day1/cam2/a"].object_ids == (7,), "the more specific pattern wins"
    assert by_id["day2/a"].prompts == ()


def test_json_says_the_same_as_yaml(tmp_path: Path) -> None:
    entry = {"clips": {"a": {"objects": [{"id": 1, "points": [[1, 2]]}]}}}
    from_json = load_manifest(write(tmp_path, json.dumps(entry), "prompts.json"))
    from_yaml = load_manifest(write(tmp_path, "clips: {a: {objects: [{id: 1, points: [[1, 2]]}]}}"))
    assert from_json == from_yaml


def test_a_clip_is_called_as_it_is_written(tmp_path: Path) -> None:
    entry = "{objects: [{id: 1, box: [1, 2, 3, 4]}]}"
    ids = ["001", "2024-05-01", "1.50", "no", "null"]
    text = "clips:\n" + "".join(f"  {clip_id}: {entry}\n" for clip_id in ids)
    assert list(load_manifest(write(tmp_path, text)).clips) == ids
    shared = f"clips:\n  a: &entry {entry}\n  b: {{<<: *entry}}\n"
    assert list(load_manifest(write(tmp_path, shared)).clips) == ["a", "b"]


MISTAKES = {
    "id: 1, box: [5, 1, 3, 4]": "object 1, box: expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got",
    "id: 1, box: [1, 2, 3]": "object 1, box: expected [x0, y0, x1, y1], got [1, 2, 3]",
    "id: 1, box: [1, 2, 3, .nan]": "object 1, box: expected [x0, y0, x1, y1], got [1, 2, 3, nan]",
    "id: 1, points: [1, 2]": "object 1, points: expected [[x, y], …], got [1, 2]",
    "id: 1, points: [[1, 2]], labels: [1, 1]": "object 1, labels: expected one a point (1), got 2",
    "id: 1, points: [[1, 2]], labels: [2]": "object 1, labels: expected one a point, 1 object or 0 background",
    "id: 1, points: [[1, 2]], labels: [0]": "object 1: begins with background points alone; give one point the label 1",
    "id: 1, mask: a.png, box: [1, 2, 3, 4]": "object 1, mask: it stands alone",
    "id: 1, pionts: [[1, 2]]": "object 1, pionts: unknown key; did you mean points?",
    "id: 1, name: x": "object 1, box, points, mask or query_points: none is there",
    "id: 1, frame: -1, box: [1, 2, 3, 4]": "object 1, frame: expected a source frame number, from 0, got -1",
    "id: 1, frame: 1.5, box: [1, 2, 3, 4]": "object 1, frame: expected a source frame number, from 0, got 1.5",
    "id: 0, box: [1, 2, 3, 4]": "object 0, id: expected a whole number from 1, each object its own, got 0",
    "id: x, box: [1, 2, 3, 4]": "entry 1, id: expected a whole number from 1, each object its own, got 'x'",
    "box: [1, 2, 3, 4]": "entry 1, id: expected a whole number from 1",
    "id: 1, query_points: [[1, 2]]": "object 1, query_points: expected [[source frame, x, y], …]",
}  # fmt: skip


@pytest.mark.parametrize(("entry", "message"), MISTAKES.items())
def test_mistakes_are_named_with_clip_and_object(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(ConfigError, match="1 mistake") as caught:
        load_manifest(write(tmp_path, f"clips: {{a: {{objects: [{{{entry}}}]}}}}"))
    assert f"  clip 'a', {message}" in str(caught.value)


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    """What is wrong in itself hides neither what contradicts it, nor unknown clips, nor missing files."""
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
    with pytest.raises(ConfigError, match=r"prompts\.yaml: 12 mistake") as caught:
        assign_prompts(clips("a", "b", "c", "d"), write(tmp_path, text))
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines()[1:] == [
        "  clip 'a', object 0, id: expected a whole number from 1, each object its own, got 0",
        "  clip 'a', object 1, box: expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got [4.0, 4.0, 1.0, 1.0]",
        "  clip 'a', entry 6: expected a mapping such as {id: 1, box: [x0, y0, x1, y1]}, got 'just text'",
        "  clip 'b', objects: expected a list of objects, got []",
        "  clip 'c': expected a mapping with the key objects",
        "  clip 'c', objekts: unknown key; did you mean objects?",
        "  clip 'd': expected a mapping with the key objects, got 'text'",
        "  clip 'unknown', object 0, id: expected a whole number from 1, each object its own, got 0",
        "  clisp: unknown key; did you mean clips?",
        "  clip 'a', object 2: has 2 entries on frame 0; write them as one",
        "  clip 'unknown' is not in the dataset; it has 4 clips, such as a",
        "  clip 'a', object 3: mask no.png: there is no such file",
    ]


def test_yaml_merges(tmp_path: Path) -> None:
    """What `<<` brings in counts as if it were written there: keys are text, the nearest wins, none may come twice."""
    shared = "{frame: 3, box: [1,2,3,4]}"
    text = (
        f"clips: {{a: {{objects: [{{<<: &shared {shared}, id: 1}}, {{id: 2, <<: *shared, frame: 5}}]}},\n"
        f"<<: {{007: {{objects: [{{id: 1, <<: *shared}}]}}}}}}"
    )
    entries = load_manifest(write(tmp_path, text)).clips
    assert [(item.id, item.frame) for item in entries["a"].objects] == [(1, 3), (2, 5)]
    assert [item.frame for item in entries["007"].objects] == [3]
    quoted = "{objects: [{id: 1, box: [1,2,3,4]}]}"
    with pytest.raises(ConfigError, match="'<<' stands twice"):
        load_manifest(write(tmp_path, f"clips: {{'<<': {quoted}, '<<': {quoted}}}"))
    with pytest.raises(ConfigError, match="'id' stands twice"):
        load_manifest(write(tmp_path, "clips: {a: {objects: [{<<: {id: 1, id: 2}, box: [1,2,3,4]}]}}"))


def test_merges_of_merges_do_not_grow(tmp_path: Path) -> None:
    lines = ["x0: &x0 {k: 1}", *(f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}], k{n}: 1}}" for n in range(1, 64))]
    with pytest.raises(ConfigError, match="x63: unknown key"):
        load_manifest(write(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "clips: {a: {objects: [{id: 1, box: [1,2,3,4]}]}, a: {objects: [{id: 2, box: [1,2,3,4]}]}}",
            "'a' stands twice",
        ),
        (
            "clips: {a: {objects: [{id: 1, box: [1,2,3,4]}, {id: 1, points: [[1,1]]}]}}",
            "object 1: has 2 entries on frame 0",
        ),
        (
            "clips: {a: {objects: [{id: 1, name: x, box: [1,2,3,4]}, {id: 1, name: y, frame: 3, points: [[1,1]]}]}}",
            "object 1: has the names x, y",
        ),
        ("clips: {? [1, 2] : {objects: []}}", "not valid YAML"),
        ("clips: [", "not valid YAML"),
        ("clips: [a, b]", r"clips: expected clip ids or patterns, each with its objects, got \['a', 'b'\]"),
        ("", "file: expected a mapping with the key clips, got None"),
        ("a: {objects: [{id: 1, box: [1,2,3,4]}]}", "file: expected a mapping with the key clips"),
        ("clips: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_broken_manifests(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_manifest(write(tmp_path, text))


def test_unknown_clips_are_named_with_the_nearest(tmp_path: Path) -> None:
    text = "clips: {teapto: {objects: [{id: 1, box: [1,2,3,4]}]}, 'x/*': {objects: [{id: 1, box: [1,2,3,4]}]}}"
    with pytest.raises(ConfigError, match="did you mean teapot") as caught:
        assign_prompts(clips("teapot", "mug"), write(tmp_path, text))
    assert "pattern 'x/*' matches none" in str(caught.value)


def test_missing_mask_file_and_ambiguous_patterns(tmp_path: Path) -> None:
    long = "x" * 400
    text = (
        f"clips: {{'a*': {{objects: [{{id: 1, mask: no.png}}, {{id: 2, mask: {long}}}, {{id: 3, mask: /etc}}]}}, "
        f"'*b': {{objects: [{{id: 1, box: [1,2,3,4]}}]}}}}"
    )
    with pytest.raises(ConfigError, match=r"no\.png: there is no such file") as caught:
        assign_prompts(clips("ab"), write(tmp_path, text))
    assert "equally specific" in str(caught.value)
    assert f"{long}: there is no such file" in str(caught.value)
    assert "mask /etc: there is no such file" in str(caught.value)


def fit(prompt: Prompt, **changes: object) -> tuple[list[Prompt], dict[int, PromptError]]:
    video = {"width": 20, "height": 10, "frames": list(range(5)), "num_source_frames": 8} | changes
    return check_prompts([prompt], **video)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(object_id=1, frame=8, box=(0, 0, 5, 5)), "frame 8 is beyond the end; the video has 8 frames, 0 to 7"),
        (Prompt(object_id=1, frame=6, box=(0, 0, 5, 5)), "outside the time range; .* leave the frames 0 to 4"),
        (
            Prompt(object_id=1, frame=0, points=((20, 5),), labels=(1,)),
            r"the point \(20, 5\) is outside the frame of 20x10",
        ),
        (Prompt(object_id=1, frame=0, box=(0, 0, 21, 5)), r"the box corner \(21, 5\) is outside the frame"),
        (Prompt(object_id=1, frame=0, query_points=((9, 1, 1),)), "frame 9 is beyond the end"),
        (Prompt(object_id=1, frame=0, query_points=((0, 1, -1),)), r"the query point \(1, -1\) is outside the frame"),
    ],
)
def test_prompts_that_do_not_fit_their_video(prompt: Prompt, message: str) -> None:
    fitting, errors = fit(prompt)
    assert fitting == []
    assert re.search(message, str(errors[1]))


def test_a_box_may_end_on_the_far_edge() -> None:
    fitting, errors = fit(Prompt(object_id=1, frame=4, box=(0, 0, 20, 10)))
    assert len(fitting) == 1
    assert not errors


def test_one_object_fails_alone() -> None:
    good, bad = Prompt(object_id=1, frame=0, box=(0, 0, 5, 5)), Prompt(object_id=2, frame=9, box=(0, 0, 5, 5))
    fitting, errors = check_prompts([good, bad], width=20, height=10, frames=range(5), num_source_frames=5)
    assert fitting == [good]
    assert list(errors) == [2]


def test_mask_files_are_read_by_value_and_checked(tmp_path: Path) -> None:
    values = np.zeros((10, 20), dtype=np.uint8)
    values[2:4, 3:6], values[7, 7] = 2, 5
    image = Image.fromarray(values).convert("P")
    image.putpalette([channel for value in range(256) for channel in (value, 0, 255 - value)])
    image.putdata(values.reshape(-1).tolist())
    image.save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(MaskFile(tmp_path / "palette.png", 2)), values == 2)
    assert np.array_equal(read_mask(MaskFile(tmp_path / "palette.png")), values != 0)
    (fitted,), _ = fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "palette.png", 5)))
    assert isinstance(fitted.mask, np.ndarray)
    assert fitted.mask.sum() == 1
    assert "is empty" in str(fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "palette.png", 9)))[1][1])
    assert "expected 30x10" in str(
        fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "palette.png")), width=30)[1][1]
    )
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "not a readable picture" in str(
        fit(Prompt(object_id=1, frame=0, mask=MaskFile(tmp_path / "broken.png")))[1][1]
    )


def test_digest_tells_what_prompts_say_not_where_masks_lie(tmp_path: Path) -> None:
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


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=7))
def test_points_lie_inside_their_mask(rows: list[list[bool]]) -> None:
    mask = np.array(rows, dtype=np.bool_)
    if mask.any():
        points = points_inside(mask)
        assert 1 <= len(points) <= 3
        assert all(mask[int(y), int(x)] for x, y in points)


def test_schema_and_check_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["$defs"]["ObjectEntry"]["properties"]) == {
        "id", "name", "frame", "box", "points", "labels", "mask", "query_points",
    }  # fmt: skip
    assert prompts.main(["check", str(write(tmp_path, WHOLE))]) == 2
    assert "object 2: mask" in capsys.readouterr().err
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "teapot_2.png").touch()
    assert prompts.main(["check", str(write(tmp_path, WHOLE))]) == 0
    assert prompts.main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
