"""Edit single entries of hand-written manifests: everything else is preserved byte for byte."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aot.errors import ConfigError
from aot.manifest.edit_file import ManifestConflict, ManifestFile, version_of
from aot.manifest.edit_text import ManifestText
from aot.manifest.read import load_manifest
from aot.manifest.schema import ClipEntry
from aot.system.yaml_files import SAFE_LOADER

HAND_WRITTEN = """\
# The kitchen, filmed in May.
clips:
  # day one
  teapot:                       # the blue one
    objects:
      # its body
      - id: 1
        name: teapot
        frame: 0                # the lid is still on
        box: [410, 348, 522, 420]
        points: [[462, 388], [445, 372]]  # handle and spout
        labels: [1, 1]
      - {id: 2, frame: 30, mask: masks/teapot_2.png}   # drawn by hand
  'day1/*':                     # a fixed camera
    objects: [{id: 1, box: [567.5, 405, 646, 496]}]

  gone:                         # no such video any more
    objects:
    - id: 7
      query_points: [[0, 600, 465]]
# the end
"""


def entry(*objects: dict[str, object]) -> ClipEntry:
    return ClipEntry.model_validate({"objects": objects})


NEW = entry({"id": 1, "name": "pan", "points": [[3, 4.5]], "labels": [1]})


def saved(path: Path, clip_id: str, wanted: ClipEntry | None) -> str:
    """Save one entry, check that the file holds it and the others, and return the text."""
    before = load_manifest(path).clips if path.exists() and path.read_bytes().strip() else {}
    ManifestFile(path).save(clip_id, wanted, version_of(before.get(clip_id)))
    expected = {key: other for key, other in before.items() if key != clip_id} | ({clip_id: wanted} if wanted else {})
    assert load_manifest(path).clips == expected
    return path.read_text()


def hand_written(tmp_path: Path, text: str = HAND_WRITTEN) -> Path:
    path = tmp_path / "prompts.yaml"
    path.write_text(text)
    return path


def removed_and_added(before: str, after: str) -> tuple[list[str], list[str]]:
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


class TestText:
    def test_a_new_clip_is_added_at_the_end(self, tmp_path: Path) -> None:
        after = saved(hand_written(tmp_path), "pan", NEW)
        head, _, tail = HAND_WRITTEN.partition("# the end")
        line = "      - {id: 1, name: pan, frame: 0, points: [[3, 4.5]], labels: [1]}\n"
        assert after == f"{head}  pan:\n    objects:\n{line}# the end{tail}"

    def test_a_changed_object_keeps_its_comments_and_style(self, tmp_path: Path) -> None:
        first = {"id": 1, "name": "teapot", "box": [410, 348, 522, 420], "points": [[462, 388], [9, 8]]}
        second = {"id": 2, "frame": 30, "mask": "masks/teapot_2.png"}
        after = saved(hand_written(tmp_path), "teapot", entry({**first, "labels": [1, 0]}, second))
        removed, added = removed_and_added(HAND_WRITTEN, after)
        assert [line.split("#")[0].strip() for line in removed] == [
            "points: [[462, 388], [445, 372]]",
            "labels: [1, 1]",
        ]
        assert [line.split("#")[0].strip() for line in added] == ["points: [[462, 388], [9, 8]]", "labels: [1, 0]"]
        assert "# handle and spout" in added[0]

    def test_an_object_is_removed_and_another_added(self, tmp_path: Path) -> None:
        wanted = entry({"id": 2, "frame": 30, "mask": "masks/teapot_2.png"}, {"id": 3, "frame": 4, "box": [1, 2, 3, 4]})
        after = saved(hand_written(tmp_path), "teapot", wanted)
        assert "- {id: 2, frame: 30, mask: masks/teapot_2.png}   # drawn by hand" in after
        assert "      - {id: 3, frame: 4, box: [1, 2, 3, 4]}\n  'day1/*':" in after
        for comment in ("# The kitchen", "# day one", "# the blue one", "# a fixed camera", "# the end"):
            assert comment in after

    def test_indentation_of_lists_is_preserved(self, tmp_path: Path) -> None:
        after = saved(
            hand_written(tmp_path),
            "gone",
            entry({"id": 7, "query_points": [[0, 601, 465]]}, {"id": 8, "box": [1, 2, 3, 4]}),
        )
        assert "    objects:\n    - id: 7\n      query_points: [[0, 601, 465]]\n    - {id: 8," in after

    def test_an_entry_is_removed_with_its_lines(self, tmp_path: Path) -> None:
        after = saved(hand_written(tmp_path), "gone", None)
        assert after == HAND_WRITTEN.replace(HAND_WRITTEN[HAND_WRITTEN.index("  gone:") :], "# the end\n")

    def test_removing_the_last_entry_leaves_no_clips(self, tmp_path: Path) -> None:
        path = hand_written(tmp_path, "# mine\nclips:\n  a: {objects: [{id: 1, box: [1, 2, 3, 4]}]}\n")
        assert saved(path, "a", None) == "# mine\nclips: {}\n"
        assert saved(path, "b", NEW).startswith("# mine\nclips:\n  b:\n    objects:\n      - {id: 1,")

    def test_new_file_begins_with_an_explanation(self, tmp_path: Path) -> None:
        after = saved(tmp_path / "new" / "prompts.yaml", "day1/cam 2/ep_003", NEW)
        assert after.startswith("# Which objects to track")
        assert "  day1/cam 2/ep_003:\n    objects:\n      - {id: 1, name: pan," in after

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "clips: {}",
            "{clips: {a: {objects: [{id: 1, box: [1, 2, 3, 4]}]}}}",
            "clips: {a: {objects: [{id: 1, box: [1, 2, 3, 4]}]}}  # short",
            "clips:\n      a:\n            objects:\n                  - id: 1\n                    box: [1, 2, 3, 4]",
            "clips:\n  a: &same\n    objects: [{id: 1, box: [1, 2, 3, 4]}]\n  b: *same\n",
            "clips:\n  a:\n    objects:\n      - id: 1\n        mask: |-\n          two\n\n          lines\n\n\n",
            "clips:\r\n  a:\r\n    objects:\r\n      - {id: 1, box: [1, 2, 3, 4]}\r\n"
            "  z:  # é\r\n    objects: [{id: 1, box: [1, 2, 3, 4]}]\r\n",
            "clips:\n  a:\n    objects: [{id: 1, box: [1, 2, 3, 4]}]\n...\n",
        ],
        ids=["empty", "no clips", "braces", "clips in braces", "deep", "anchors", "block text", "CRLF", "an end"],
    )
    def test_entries_are_edited_in_every_style_of_yaml(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "prompts.yaml"
        path.write_bytes(text.encode())
        saved(path, "new", NEW)
        saved(path, "a", entry({"id": 1, "box": [1, 2, 3, 5]}, {"id": 2, "points": [[1, 1]]}))
        saved(path, "new", None)
        assert (b"\r\n" in text.encode()) == (b"\r\n" in path.read_bytes())

    @pytest.mark.parametrize("loader", [yaml.SafeLoader, SAFE_LOADER], ids=["PyYAML", "libyaml"])
    @pytest.mark.parametrize(
        "last",
        ['name: "x\n        # y"', "name: >-\n          x\n          # y", "name: a *b", "name: é", "name: x  # z"],
        ids=["quoted", "block text", "an asterisk", "not ASCII", "a comment"],
    )
    def test_only_the_lines_of_an_entry_are_parsed(
        self, last: str, loader: type[yaml.SafeLoader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Comments and blank lines after it are preserved."""
        monkeypatch.setattr("aot.manifest.edit_text.SAFE_LOADER", loader)
        monkeypatch.setattr(ManifestText, "_replace_in_full_text", None)
        first = f"clips:\n  a:\n    objects:\n    - box: [1, 2, 3, 4]\n      id: 1\n      {last}\n"
        rest = "  # of b\n\n  b:\n    objects: [{id: 1, box: [1, 2, 3, 4]}]\n# the end\n...\n"
        path = hand_written(tmp_path, first + rest)
        name = load_manifest(path).clips["a"].objects[0].name
        after = saved(path, "a", entry({"id": 1, "name": name, "box": [1, 2, 3, 5]}))
        assert after.endswith(rest)
        assert saved(path, "a", None) == f"clips:\n{rest}"

    @pytest.mark.parametrize("name", ["no", "1e3", "12:30:00", "a: b", "- x", "é #1", "<b>&amp;", "'", "*", " "])
    def test_names_are_quoted_where_necessary(self, name: str, tmp_path: Path) -> None:
        saved(hand_written(tmp_path), "pan", entry({"id": 1, "name": name, "box": [1, 2, 3, 4]}))
        saved(hand_written(tmp_path), f"{name}/x", NEW)

    def test_a_clip_id_with_a_line_separator_is_quoted(self, tmp_path: Path) -> None:
        saved(hand_written(tmp_path), "\u2028/x", NEW)

    def test_masks_as_run_lengths_are_preserved(self, tmp_path: Path) -> None:
        rle = {"size": [4, 6], "counts": "52203"}
        path = hand_written(tmp_path)
        saved(path, "pan", entry({"id": 1, "mask": rle}))
        assert 'mask: {size: [4, 6], counts: "52203"}' in saved(path, "pot", entry({"id": 1, "mask": rle}))
        saved(path, "pan", entry({"id": 1, "mask": rle}, {"id": 2, "box": [1, 2, 3, 4]}))

    def test_json_stays_json(self, tmp_path: Path) -> None:
        path = tmp_path / "prompts.json"
        path.write_text(
            '{"clips": {"é": {"objects": [{"id": 1, "box": [1, 2, 3, 4]}]},'
            ' "b": {"objects": [{"id": 2, "box": [1, 2, 3, 4]}]}}}'
        )
        saved(path, "é", NEW)
        assert list(json.loads(path.read_text())["clips"]) == ["é", "b"]
        saved(path, "é", None)

    @given(data=st.data())
    @settings(
        max_examples=40,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_any_sequence_of_changes_is_saved(self, data: st.DataObject, tmp_path: Path) -> None:
        """The file holds exactly the saved entries, and all comments."""
        path = hand_written(tmp_path)
        file = ManifestFile(path)
        expected = dict(file.entries)
        numbers = st.floats(2, 999).map(lambda value: round(value, 1))
        points = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3)
        names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), max_size=6)
        for _ in range(data.draw(st.integers(1, 6))):
            clip_id = data.draw(st.sampled_from(["teapot", "gone", "new", "a b"]))
            frames = data.draw(st.lists(st.integers(0, 3), max_size=3, unique=True))
            name = data.draw(names)
            objects = [{"id": 1, "frame": frame, "name": name, "points": data.draw(points)} for frame in frames]
            wanted = entry(*objects) if objects else None
            file.save(clip_id, wanted, version_of(expected.pop(clip_id, None)))
            expected |= {clip_id: file.entries[clip_id]} if wanted else {}  # in the order of the file
            assert wanted is None or set(expected[clip_id].objects) == set(wanted.objects)
            assert load_manifest(path).clips == expected == file.entries
            assert all(comment in path.read_text() for comment in ("# The kitchen", "# a fixed camera", "# the end"))


class TestFile:
    def test_a_change_of_the_same_clip_on_disk_is_a_conflict(self, tmp_path: Path) -> None:
        path = hand_written(tmp_path)
        file = ManifestFile(path)
        version = version_of(file.entries["teapot"])
        path.write_text(HAND_WRITTEN.replace("[410, 348", "[400, 348"))
        with pytest.raises(ManifestConflict, match=r"'teapot'.*changed on disk") as caught:
            file.save("teapot", NEW, version)
        assert caught.value.theirs is not None
        assert caught.value.theirs.objects[0].box == (400, 348, 522, 420)
        assert "[400, 348" in path.read_text()
        file.save("teapot", NEW, version_of(caught.value.theirs))
        assert load_manifest(path).clips["teapot"] == NEW

    def test_a_change_of_another_clip_on_disk_is_kept(self, tmp_path: Path) -> None:
        path = hand_written(tmp_path)
        file = ManifestFile(path)
        path.write_text(HAND_WRITTEN.replace("id: 7", "id: 8").replace("# the end", "# the very end"))
        file.save("teapot", NEW, version_of(file.entries["teapot"]))
        assert load_manifest(path).clips["gone"].objects[0].id == 8
        assert "# the very end" in path.read_text()

    def test_a_deleted_entry_is_a_conflict(self, tmp_path: Path) -> None:
        path = hand_written(tmp_path)
        file = ManifestFile(path)
        version = version_of(file.entries["teapot"])
        path.unlink()
        with pytest.raises(ManifestConflict) as caught:
            file.save("teapot", NEW, version)
        assert caught.value.theirs is None
        assert not path.exists()

    def test_a_change_during_the_save_is_a_conflict(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = hand_written(tmp_path)
        file = ManifestFile(path)
        real = file._changed

        def meanwhile(clip_id: str, wanted: ClipEntry | None) -> bytes:
            path.write_text("clips: {}\n")
            return real(clip_id, wanted)

        monkeypatch.setattr(file, "_changed", meanwhile)
        with pytest.raises(ManifestConflict):
            file.save("pan", NEW, version_of(None))
        assert path.read_text() == "clips: {}\n"

    def test_an_invalid_manifest_is_not_overwritten(self, tmp_path: Path) -> None:
        path = hand_written(tmp_path)
        file = ManifestFile(path)
        path.write_text("clips: {teapot: {objects: [{id: 0}]}}")
        with pytest.raises(ConfigError, match="an integer ≥ 1"):
            file.save("pan", NEW, version_of(None))
        assert path.read_text() == "clips: {teapot: {objects: [{id: 0}]}}"
        assert "gone" in file.entries, "the entries read before are kept"
        with pytest.raises(ConfigError, match="error"):
            ManifestFile(path)

    def test_entry_that_cannot_be_edited_separately_is_refused(self, tmp_path: Path) -> None:
        text = "clips:\n  0o7: {objects: [{id: 1, box: [1, 2, 3, 4]}]}\n  b: {objects: [{id: 1, box: [1, 2, 3, 4]}]}\n"
        path = hand_written(tmp_path, text)
        with pytest.raises(ConfigError, match="'0o7': its entry cannot be edited without changing other entries"):
            saved(path, "0o7", NEW)
        assert path.read_text() == text

    def test_links_and_file_modes_are_kept(self, tmp_path: Path) -> None:
        path = hand_written(tmp_path)
        path.chmod(0o664)
        link = tmp_path / "link.yaml"
        link.symlink_to(path)
        saved(link, "pan", NEW)
        assert link.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o664
        assert sorted(file.name for file in tmp_path.iterdir()) == ["link.yaml", "prompts.yaml"]

    def test_readers_see_the_old_or_the_new_file(self, tmp_path: Path) -> None:
        path = hand_written(tmp_path)
        file, stop, seen = ManifestFile(path), threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                seen.append("teapot" in load_manifest(path).clips)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(20):
                before = file.entries.get("pan")
                file.save("pan", entry({"id": 1, "box": [0, 0, 1 + number, 9]}), version_of(before))
        finally:
            stop.set()
            reader.join()
        assert seen
        assert all(seen)


def test_texts_are_preserved_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    text = (
        "clips:\n  a:\n    objects:\n      - {id: 1, text: red mug, frames: [30, 0], count: all}   # the mugs\n"
        "      - {id: 30, text: hat, min_score: 0.2}\n"
    )
    path.write_text(text)
    mugs, hat = load_manifest(path).clips["a"].objects
    found = {"id": 30, "frame": 0, "text": "hat", "box": [1, 2, 30, 40], "score": 0.41, "model": "a/b"}
    changed = saved(path, "a", entry(mugs.model_dump(exclude_defaults=True), found))
    assert "- {id: 1, text: red mug, frames: [30, 0], count: all}   # the mugs" in changed
    assert load_manifest(path).clips["a"].objects[1].score == 0.41
    saved(path, "a", entry(mugs.model_dump(exclude_defaults=True), hat.model_dump(exclude_defaults=True)))
