"""Reading a manifest: accepted and refused content, and the messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aot.errors import ConfigError
from aot.manifest.read import load_manifest
from tests.manifest.samples import write


def test_json_and_yaml_are_equivalent(tmp_path: Path) -> None:
    entry = {"clips": {"a": {"objects": [{"id": 1, "points": [[1, 2]]}]}}}
    from_json = load_manifest(write(tmp_path, json.dumps(entry), "prompts.json"))
    from_yaml = load_manifest(write(tmp_path, "clips: {a: {objects: [{id: 1, points: [[1, 2]]}]}}"))
    assert from_json == from_yaml


def test_clip_ids_are_strings_as_written(tmp_path: Path) -> None:
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
    "id: 1, points: [[1, 2]], labels: [1, 1]": "object 1, labels: expected one per point (1), got 2",
    "id: 1, points: [[1, 2]], labels: [2]": "object 1, labels: expected one label per point, 1 object or 0 background",
    "id: 1, points: [[1, 2]], labels: [0]": "object 1: has only background points on its first frame; give at least",
    "id: 1, mask: a.png, box: [1, 2, 3, 4]": "object 1, mask: cannot be combined with a box or points",
    "id: 1, pionts: [[1, 2]]": "object 1, pionts: unknown key; did you mean points?",
    "id: 1, name: x": "object 1, box, points, mask, text or query_points: none given",
    "id: 1, frame: -1, box: [1, 2, 3, 4]": "object 1, frame: expected a source frame number ≥ 0, got -1",
    "id: 1, frame: 1.5, box: [1, 2, 3, 4]": "object 1, frame: expected a source frame number ≥ 0, got 1.5",
    "id: 0, box: [1, 2, 3, 4]": "object 0, id: expected an integer ≥ 1, got 0",
    "id: x, box: [1, 2, 3, 4]": "entry 1, id: expected an integer ≥ 1, got 'x'",
    "box: [1, 2, 3, 4]": "entry 1, id: expected an integer ≥ 1",
    "id: 1, query_points: [[1, 2]]": "object 1, query_points: expected [[source frame, x, y], …]",
    "id: 1, box: [0.1, 0.2, 0.5, 0.9]": "object 1, box: positions are pixels of the source video, got [0.1, 0.2, 0.5, "
    "0.9], all within 0 to 1; multiply fractions by the width and the height of the video",
    "id: 1, box: [0, 0, 1, 1]": "object 1, box: positions are pixels of the source video, got [0.0, 0.0, 1.0, 1.0]",
    "id: 1, box: [5, 5, 5.5, 9]": "object 1, box: [5.0, 5.0, 5.5, 9.0] is 0.5 x 4 px; expected at least 1 px on each",
    "id: 1, box: [5, 5, 9, 5.9]": "object 1, box: [5.0, 5.0, 9.0, 5.9] is 4 x 0.9 px; expected at least 1 px on each",
    "id: 1, points: [[0.4, 0.3], [1, 0]]": "object 1, points: positions are pixels of the source video, got [[0.4, 0.3",
    "id: 1, query_points: [[7, 0.4, 0.3]]": "object 1, query_points: positions are pixels of the source video, got [[7",
    'id: 1, name: "a\\u202Eb\\n", box: [1, 2, 3, 4]': r'object 1, name: "a\u202eb\n" contains invisible characters '
    "(U+202E RIGHT-TO-LEFT OVERRIDE, U+000A); expected text that is shown as it is written: remove them",
    'id: 1, text: "  "': "object 1, text: expected words that describe the object, at most 200 characters, got '  '",
    'id: 1, text: "a\u202Eb"': r'object 1, text: "a\u202eb" contains invisible characters',
    "id: 1, text: mug, count: 21": 'object 1, count: expected the number of objects to find by text, 1 to 20, or "all"',
    "id: 1, text: mug, count: some": 'object 1, count: expected the number of objects to find by text, 1 to 20,',
    "id: 1, text: mug, min_score: 30": "object 1, min_score: expected the lowest score of a box that shows the object",
    "id: 1, box: [1, 2, 3, 4], min_score: 0.3": "object 1, min_score: expected together with text; remove it otherwise",
    "id: 1, box: [1, 2, 3, 4], score: 0.3": "object 1, score: expected together with text; remove it otherwise",
    "id: 1, text: mug, box: [1, 2, 3, 4], count: 2": "object 1, count: the object of text is not looked for, because",
    "id: 1, text: mug, score: 0.4": "object 1, score: expected together with the box or mask that was found; remove it",
    "id: 1, text: mug, points: [[1, 2]]": "object 1, text: cannot be combined with points on the same frame",
    "id: 1, text: mug, frames: [30, 0, 30]": "object 1, frames: expected different frames, and no other frame beside",
    "id: 1, text: mug, frames: [30, 60], frame: 0": "object 1, frames: expected different frames, and no other frame",
    "id: 1, text: mug, frames: 30": "object 1, frames: expected [source frame, …], at most 100, in place of frame, got",
    "id: 1, text: mug, count: 2, query_points: [[0, 4, 5]]": "object 1, query_points: expected a single object, got",
    "id: 2147483647, text: mug, count: 2": "object 2147483647, id: expected an integer up to 2147483646 with this",
}  # fmt: skip


@pytest.mark.parametrize(("entry", "message"), MISTAKES.items())
def test_mistakes_name_clip_and_object(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.yaml: 1 error\n") as caught:
        load_manifest(write(tmp_path, f"clips: {{a: {{objects: [{{{entry}}}]}}}}"))
    assert f"  clip 'a', {message}" in str(caught.value)


def test_the_corner_pixels_and_boxes_of_one_pixel_are_positions(tmp_path: Path) -> None:
    objects = "[{id: 1, points: [[0, 1]]}, {id: 2, box: [0, 0, 1, 2]}, {id: 3, points: [[0.4, 0.3], [0.5, 1.5]]}]"
    assert len(load_manifest(write(tmp_path, f"clips: {{a: {{objects: {objects}}}}}")).clips["a"].objects) == 3


def test_names_in_any_script_are_accepted(tmp_path: Path) -> None:
    (item,) = (
        load_manifest(write(tmp_path, "clips: {a: {objects: [{id: 1, name: 茶壶 café, box: [1,2,3,4]}]}}"))
        .clips["a"]
        .objects
    )
    assert item.name == "茶壶 café"


def test_yaml_merge_keys_are_resolved(tmp_path: Path) -> None:
    """Merged keys behave like written ones: they are strings, the nearest wins, and repetition is refused."""
    shared = "{frame: 3, box: [1,2,3,4]}"
    text = (
        f"clips: {{a: {{objects: [{{<<: &shared {shared}, id: 1}}, {{id: 2, <<: *shared, frame: 5}}]}},\n"
        f"<<: {{007: {{objects: [{{id: 1, <<: *shared}}]}}}}}}"
    )
    entries = load_manifest(write(tmp_path, text)).clips
    assert [(item.id, item.frame) for item in entries["a"].objects] == [(1, 3), (2, 5)]
    assert [item.frame for item in entries["007"].objects] == [3]
    quoted = "{objects: [{id: 1, box: [1,2,3,4]}]}"
    with pytest.raises(ConfigError, match="'<<' is given twice"):
        load_manifest(write(tmp_path, f"clips: {{'<<': {quoted}, '<<': {quoted}}}"))
    with pytest.raises(ConfigError, match="'id' is given twice"):
        load_manifest(write(tmp_path, "clips: {a: {objects: [{<<: {id: 1, id: 2}, box: [1,2,3,4]}]}}"))


def test_nested_merge_keys_do_not_grow_exponentially(tmp_path: Path) -> None:
    lines = ["x0: &x0 {k: 1}", *(f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}], k{n}: 1}}" for n in range(1, 64))]
    with pytest.raises(ConfigError, match="x63: unknown key"):
        load_manifest(write(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "clips: {a: {objects: [{id: 1, box: [1,2,3,4]}]}, a: {objects: [{id: 2, box: [1,2,3,4]}]}}",
            "'a' is given twice",
        ),
        (
            "clips: {a: {objects: [{id: 1, box: [1,2,3,4]}, {id: 1, points: [[1,1]]}]}}",
            "object 1: has 2 entries on frame 0",
        ),
        (
            "clips: {a: {objects: [{id: 1, name: x, box: [1,2,3,4]}, {id: 1, name: y, frame: 3, points: [[1,1]]}]}}",
            "object 1: has the names x, y",
        ),
        (
            "clips: {? [1, 2] : {objects: []}}",
            "line 1, column 11: not valid YAML: a list or a mapping is used as a key",
        ),
        ("clips: [", r"line 1, column 8: not valid YAML: the \[ here is never closed; add the missing \]"),
        ("clips: [a, b]", r"clips: expected clip ids or patterns, each with its objects, got \['a', 'b'\]"),
        (
            "",
            r"is empty; expected the objects of each clip, such as clips: \{CLIP_ID.*`python -m aot.prompt` writes it",
        ),
        ("# nothing yet\n", "contains no entry; expected the objects of each clip"),
        ("a: {objects: [{id: 1, box: [1,2,3,4]}]}", "file: expected a mapping with the key clips"),
        ("clips: !!python/object/apply:os.system ['true']", "line 1, column 8: not valid YAML: the tag !!python"),
    ],
)
def test_invalid_manifests_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_manifest(write(tmp_path, text))


def test_a_repeated_key_in_json_is_refused_with_its_position(tmp_path: Path) -> None:
    text = '{"clips": {\n "b": {"objects": [{"id": 1, "name": "a\\"", "box": [1, 2, 3, 4]}]},\n "b": {}}}'
    with pytest.raises(
        ConfigError, match=r"prompts\.json, line 3, column 2: the key 'b' is given twice, first in line 2"
    ):
        load_manifest(write(tmp_path, text, "prompts.json"))


def test_a_file_that_cannot_be_read_is_described(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.yaml does not exist; expected a YAML or JSON file"):
        load_manifest(tmp_path / "prompts.yaml")
    with pytest.raises(ConfigError, match=f"^prompt manifest {tmp_path}: cannot be read: it is a folder, not a file; "):
        load_manifest(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("clips:\n  café: {}\n".encode("latin-1"))
    with pytest.raises(
        ConfigError, match=r"latin\.yaml, line 2, column 6: not text in UTF-8 \(byte 0xe9\); save it as"
    ):
        load_manifest(tmp_path / "latin.yaml")


CLASHES = {
    "{id: 1, text: mug, count: 3}, {id: 3, box: [1, 2, 3, 4]}": "object 1: count: 3 takes the ids 1 to 3, but object 3 "
    "has an entry of its own; expected other ids, such as id: 4",
    "{id: 5, text: mug, count: all}, {id: 24, text: hat}": "object 5: count: all takes the ids 5 to 24, but object 24",
    "{id: 1, text: mug, frames: [0, 40]}, {id: 1, frame: 40, points: [[3, 4]]}": "object 1: has 2 entries on frame 40",
    "{id: 1, text: mug}, {id: 1, frame: 9, text: mug}": "object 1: has 2 entries with a text to be looked for;",
}


@pytest.mark.parametrize(("entries", "message"), CLASHES.items())
def test_texts_that_contradict_other_entries(tmp_path: Path, entries: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_manifest(write(tmp_path, f"clips: {{a: {{objects: [{entries}]}}}}"))
    assert f"  clip 'a', {message}" in str(caught.value)


def test_texts_beside_other_entries(tmp_path: Path) -> None:
    entries = (
        "{id: 1, text: red mug, count: 2}, {id: 3, text: hat, frames: [30, 0]}, {id: 3, frame: 40, points: [[1, 2]], "
        "labels: [0]}, {id: 4, text: cup, frame: 7, box: [1, 2, 3, 4], score: 0.41, model: a/b}, "
        "{id: 5, text: all cups, count: all, min_score: 0.2}"
    )
    first, second, _, found, every = (
        load_manifest(write(tmp_path, f"clips: {{a: {{objects: [{entries}]}}}}")).clips["a"].objects
    )
    assert (first.text, first.count, first.frame, first.is_looked_for) == ("red mug", 2, 0, True)
    assert (second.frame, second.frames) == (30, (30, 0))
    assert (found.score, found.model, found.is_looked_for) == (0.41, "a/b", False)
    assert (every.count, every.min_score, every.max_objects) == ("all", 0.2, 20)
