"""Datasets of files: folders of videos, folders of frames and masks, single videos; and the selection of clips."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot.datasets.base import check_clip_ids, read_clips, select_clips, skipped_paths
from aot.datasets.ground_truth import FOREGROUND
from aot.datasets.mask_folders import MaskFolders
from aot.datasets.single_video import SingleVideo
from aot.datasets.videos import Videos
from aot.errors import ConfigError, DatasetError
from aot.manifest.from_masks import PromptKind
from aot.types import Clip, MaskFile, Words

MANIFEST = "clips: {'*': {objects: [{id: 1, box: [0, 0, 2, 2]}]}}"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def videos(root: Path, **options: Path) -> Videos:
    (root / "prompts.yaml").write_text(MANIFEST)
    return Videos(root, root / "prompts.yaml", **options)


class TestVideos:
    def test_ids_are_paths_without_suffix(self, tmp_path: Path) -> None:
        names = ["b.MP4", "a b/-x.mkv", "a b/ü/ep.003.webm", "notes.txt", ".hidden.mp4", ".cache/x.mp4", "z/frame.png"]
        touch(tmp_path, *names)
        assert [clip.clip_id for clip in videos(tmp_path).clips()] == ["a b/-x", "a b/ü/ep.003", "b"]

    def test_the_video_stream_can_be_chosen(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.mp4", "day/b.mp4")
        assert [clip.stream for clip in videos(tmp_path).clips()] == [None, None]
        chosen = Videos(tmp_path, tmp_path / "prompts.yaml", stream=1).clips()
        assert [(clip.stream, len(clip.prompts)) for clip in chosen] == [(1, 1), (1, 1)]
        (clip,) = SingleVideo(tmp_path / "a.mp4", box=[0, 0, 2, 2], stream=0).clips()
        assert clip.stream == 0

    def test_linked_folders_are_followed_without_cycles(self, tmp_path: Path) -> None:
        touch(tmp_path, "root/a.mp4", "elsewhere/b.mp4")
        (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
        assert [clip.clip_id for clip in videos(tmp_path / "root").clips()] == ["a", "link/b"]

    def test_what_cannot_be_read_is_named_and_the_others_are_clips(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.mp4", "b.m2ts", "day/c.mxf")
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "missing_day").symlink_to("/nowhere/day")
        (tmp_path / "gone.mp4").symlink_to("/nowhere/gone.mp4")
        dataset = videos(tmp_path)
        assert [clip.clip_id for clip in read_clips(dataset)] == ["a", "b", "day/c", "gone"]
        assert skipped_paths(dataset) == (
            f"{tmp_path}/loop (its symbolic links form a loop)",
            f"{tmp_path}/missing_day (a link to something that does not exist)",
        )

    def test_prompted_file_of_another_kind_is_explained(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.mp4", "b.xyz")
        (tmp_path / "p.yaml").write_text("clips: {b: {objects: [{id: 1, box: [0, 0, 2, 2]}]}}")
        with pytest.raises(
            ConfigError, match=r"clip 'b' is not in the dataset: .*b\.xyz is no video according to its suff"
        ):
            Videos(tmp_path, tmp_path / "p.yaml").clips()

    @pytest.mark.parametrize("key", ["caf\u00e9", "caf\u00e9*"])
    def test_names_that_look_the_same_match(self, tmp_path: Path, key: str) -> None:
        """macOS stores é as two characters."""
        touch(tmp_path, "cafe\u0301.mp4", "a.mp4")
        (tmp_path / "p.yaml").write_text(f"clips: {{'{key}': {{objects: [{{id: 1, box: [0, 0, 2, 2]}}]}}}}")
        clips = Videos(tmp_path, tmp_path / "p.yaml").clips()
        assert [clip.clip_id for clip in clips if clip.prompts] == ["cafe\u0301"]
        chosen = select_clips(clips, include=[key], exclude=[], limit=None, start_seconds=None, end_seconds=None)
        assert [clip.clip_id for clip in chosen] == ["cafe\u0301"]

    def test_missing_manifest_gives_the_command_that_creates_it(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.mp4")
        with pytest.raises(ConfigError, match=r"click prompts with `python -m aot\.prompt dataset=videos") as caught:
            Videos(tmp_path, tmp_path / "prompts.yaml").clips()
        assert f"dataset.root={tmp_path}" in str(caught.value)
        assert f"dataset.prompts={tmp_path}/prompts.yaml" in str(caught.value)

    def test_truth_is_found_by_pattern(self, tmp_path: Path) -> None:
        touch(tmp_path, "day/a.mp4")
        (tmp_path / "day" / "Annotations").mkdir()
        Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "day" / "Annotations" / "00000.png")
        found = videos(tmp_path, masks_pattern=tmp_path / "{folder}" / "Annotations").ground_truth("day/a")
        assert found is not None
        assert found.mask(0) is not None
        assert videos(tmp_path, masks_pattern=Path("truth/{clip_id}")).ground_truth("day/a") is None
        with pytest.raises(ConfigError, match=r"masks_pattern=\{nonsense\}"):
            videos(tmp_path, masks_pattern=Path("{nonsense}"))


def save_mask(path: Path, values: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, dtype=np.uint8)).convert("P")
    image.putdata([value for row in values for value in row])
    image.save(path)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """A small DAVIS 2017: one clip with two objects (255 is void), one with one binary object."""
    touch(
        tmp_path, *(f"JPEGImages/480p/{clip}/{frame:05d}.jpg" for clip in ("two", "one", "other") for frame in range(2))
    )
    save_mask(tmp_path / "Annotations/480p/two/00000.png", [[0, 1, 1, 1], [2, 1, 1, 1], [255, 1, 1, 1]])
    save_mask(tmp_path / "Annotations/480p/one/00000.png", [[0, 255, 255], [0, 255, 255]])
    save_mask(tmp_path / "Annotations/480p/two/00001.png", [[0, 0, 1, 1], [2, 2, 1, 1], [0, 0, 1, 1]])
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/val.txt").write_text("two\none\n\n")
    return tmp_path


def tree(root: Path, **options: object) -> MaskFolders:
    layout = {
        "images": "JPEGImages/480p", "annotations": "Annotations/480p", "split": "ImageSets/2017/{subset}.txt",
        "subset": "val",
    }  # fmt: skip
    return MaskFolders(root, **layout | options)  # type: ignore[arg-type]


class TestMaskFolders:
    def test_first_annotation_becomes_the_prompt(self, davis: Path) -> None:
        two, one = tree(davis).clips()
        path = davis / "Annotations/480p/two/00000.png"
        assert [(prompt.object_id, prompt.mask) for prompt in two.prompts] == [
            (1, MaskFile(path, 1)),
            (2, MaskFile(path, 2)),
        ]
        assert [(prompt.object_id, prompt.mask) for prompt in one.prompts] == [
            (1, MaskFile(davis / "Annotations/480p/one/00000.png", 255))
        ]
        assert (two.fps, two.source) == (24.0, davis / "JPEGImages/480p/two")

    def test_prompts_from_boxes_and_points(self, davis: Path) -> None:
        boxes = tree(davis, prompt_from="box").clips()[0].prompts
        assert [prompt.box for prompt in boxes] == [(1, 0, 4, 3), (0, 1, 1, 2)]
        points = tree(davis, prompt_from="points").clips()[0].prompts
        assert points[1].points == ((0.0, 1.0),)
        assert all(0 < x < 4 for x, _ in points[0].points)

    def test_missing_manifest_gives_the_command_that_creates_it(self, davis: Path) -> None:
        with pytest.raises(ConfigError, match=r"click prompts with `python -m aot\.prompt dataset=DATASET"):
            tree(davis, prompts=davis / "p.yaml").clips()

    def test_manifest_replaces_annotations(self, davis: Path) -> None:
        (davis / "p.yaml").write_text(MANIFEST)
        assert all(clip.prompts[0].box == (0, 0, 2, 2) for clip in tree(davis, prompts=davis / "p.yaml").clips())

    @pytest.mark.parametrize("content", ["\ufefftwo\r\none\r\n", "two/\n./one/\n"])
    def test_split_of_other_editors(self, davis: Path, content: str) -> None:
        (davis / "ImageSets/2017/val.txt").write_bytes(content.encode())
        assert [clip.clip_id for clip in tree(davis).clips()] == ["two", "one"]

    def test_split_and_masks_match_names_that_look_the_same(self, davis: Path) -> None:
        (davis / "JPEGImages/480p/two").rename(davis / "JPEGImages/480p/e\u0301")
        (davis / "Annotations/480p/two").rename(davis / "Annotations/480p/\u00e9")
        (davis / "ImageSets/2017/val.txt").write_text("\u00e9\n")
        (clip,) = tree(davis).clips()
        assert (clip.clip_id, len(clip.prompts)) == ("e\u0301", 2)
        assert tree(davis).ground_truth("e\u0301") is not None

    def test_files_of_systems_and_tools_are_ignored(self, davis: Path) -> None:
        touch(davis, "JPEGImages/480p/.ipynb_checkpoints/0.jpg", "JPEGImages/480p/@eaDir/0.jpg")
        touch(
            davis,
            "JPEGImages/480p/two/._00000.jpg",
            "Annotations/480p/two/._00000.png",
            "JPEGImages/480p/two/Thumbs.db",
        )
        (davis / "JPEGImages/480p/other").rename(davis / "JPEGImages/480p/lost+found")
        assert [clip.clip_id for clip in tree(davis, split=None).clips()] == ["one", "two"]

    def test_without_a_split_every_folder_is_a_clip(self, davis: Path) -> None:
        dataset = tree(davis, split=None)
        assert {clip.clip_id: bool(clip.prompts) for clip in dataset.clips()} == {
            "one": True, "other": False, "two": True,
        }  # fmt: skip
        assert list(dataset.unusable) == ["other"]
        assert "480p/other: no such folder; expected the annotated masks" in dataset.unusable["other"]

    def test_links_that_lead_nowhere_make_only_their_clips_unusable(self, davis: Path) -> None:
        for name, target in (("gone", "/nowhere"), ("loop", "loop")):
            (davis / "JPEGImages/480p" / name).symlink_to(target)
        dataset = tree(davis, split=None)
        assert [clip.clip_id for clip in dataset.clips() if clip.prompts] == ["one", "two"]
        assert {"gone", "loop"} <= set(dataset.unusable)
        assert "480p/gone cannot be read: no such file or folder" in dataset.unusable["gone"]
        assert "480p/loop cannot be read: its symbolic links form a loop" in dataset.unusable["loop"]

    def test_empty_folders_make_only_their_clips_unusable(self, davis: Path) -> None:
        touch(davis, *(f"JPEGImages/480p/{clip}/00000.jpg" for clip in ("no_masks", "fine")))
        save_mask(davis / "Annotations/480p/fine/00000.png", [[0, 1]])
        (davis / "JPEGImages/480p/no_frames").mkdir()
        for name in ("no_masks", "no_frames"):
            (davis / "Annotations/480p" / name).mkdir()
        (davis / "ImageSets/2017/val.txt").write_text("no_frames\nfine\nno_masks\n")
        dataset = tree(davis)
        assert [bool(clip.prompts) for clip in dataset.clips()] == [False, True, False]
        assert "no_frames" in dataset.unusable["no_frames"]
        assert "no_masks: found no PNG, expected PNGs named" in dataset.unusable["no_masks"]
        (davis / "ImageSets/2017/val.txt").write_text("no_masks\nno_frames\n")
        with pytest.raises(DatasetError, match="no_masks: found no PNG"):
            tree(davis).clips()

    def test_missing_and_broken_files_are_reported(self, davis: Path) -> None:
        with pytest.raises(
            DatasetError, match=r"dataset\.split=.*val2\.txt: cannot be read: no such file or folder; expected one"
        ):
            tree(davis, split="ImageSets/2017/val2.txt").clips()
        with pytest.raises(DatasetError, match=r"no folder .*1080p"):
            tree(davis, images="JPEGImages/1080p").clips()
        (davis / "ImageSets/2017/val.txt").write_text("\n")
        with pytest.raises(DatasetError, match=r"dataset\.split=.*val\.txt: the file is empty; expected one clip name"):
            tree(davis).clips()
        (davis / "ImageSets/2017/val.txt").write_text("gone\n")
        with pytest.raises(DatasetError, match=r"lists gone; no such folder"):
            tree(davis).clips()
        (davis / "ImageSets/2017/val.txt").write_text("two\n")
        (davis / "Annotations/480p/two/00000.png").write_text("not an image")
        with pytest.raises(
            DatasetError, match=r"00000\.png: not a readable image: it is not an image, or its beginning"
        ):
            tree(davis).clips()

    def test_truth_is_made_from_the_annotations(self, davis: Path) -> None:
        truth = tree(davis).ground_truth("two")
        assert truth is not None
        assert truth.object_ids == (1, 2)
        assert tree(davis).ground_truth("other") is None


class TestYoutubeVos:
    """Frame names are multiples of 5, object 2 appears on the third frame; `valid` has only the masks of prompts."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        names = [f"{number:05d}" for number in range(0, 25, 5)]
        objects = {
            "1": {"category": "penguin", "frames": names},
            "2": {"category": "sign", "frames": names[2:]},
        }
        for subset in ("train", "valid"):
            touch(tmp_path / subset, *(f"JPEGImages/0a/{name}.jpg" for name in names))
            (tmp_path / subset / "meta.json").write_text(json.dumps({"videos": {"0a": {"objects": objects}}}))
        for number, name in enumerate(names):
            both = [[1, 1, 0, 2 if number >= 2 else 0]]
            save_mask(tmp_path / f"train/Annotations/0a/{name}.png", both)
        save_mask(tmp_path / "valid/Annotations/0a/00000.png", [[1, 1, 0, 0]])
        save_mask(tmp_path / "valid/Annotations/0a/00010.png", [[0, 0, 0, 2]])
        return tmp_path

    @pytest.mark.parametrize("meta", ["{subset}/meta.json", None])
    @pytest.mark.parametrize("subset", ["train", "valid"])
    def test_each_object_is_prompted_on_its_first_frame(self, root: Path, subset: str, meta: str | None) -> None:
        (clip,) = self.tree(root, subset=subset, meta=meta).clips()
        assert [(prompt.object_id, prompt.frame) for prompt in clip.prompts] == [(1, 0), (2, 2)]
        assert clip.prompts[1].mask == MaskFile(root / subset / "Annotations/0a/00010.png", 2)
        assert clip.prompts[1].name == ("" if meta is None else "sign")

    def test_truth_uses_frame_numbers_not_names(self, root: Path) -> None:
        truth = self.tree(root, subset="train").ground_truth("0a")
        assert truth is not None
        assert truth.mask_frames.tolist() == [0, 1, 2, 3, 4]
        before, after = truth.mask(1), truth.mask(2)
        assert before is not None
        assert after is not None
        assert (sorted(before), sorted(after)) == ([1], [1, 2]), "an object is not annotated before its first frame"

    def test_merged_objects_are_prompted_on_the_first_frame(self, root: Path) -> None:
        (clip,) = self.tree(root, subset="train", merge_objects=True).clips()
        assert [(prompt.object_id, prompt.frame) for prompt in clip.prompts] == [(1, 0)]

    def test_an_empty_merged_mask_is_not_a_prompt(self, root: Path) -> None:
        for path in (root / "train/Annotations/0a").glob("*.png"):
            save_mask(path, [[0, 0, 0, 0]])
        (clip,) = self.tree(root, subset="train", merge_objects=True, late_objects=True).clips()
        assert clip.prompts == ()

    @pytest.mark.parametrize("merge", [True, False])
    def test_an_empty_first_annotation_names_the_option(self, root: Path, merge: bool) -> None:
        save_mask(root / "train/Annotations/0a/00000.png", [[0, 0, 0, 0]])
        options = {"subset": "train", "merge_objects": merge, "meta": None}
        with pytest.raises(
            DatasetError, match=r"first annotation .*00000\.png; .* dataset\.late_objects=true prompts each"
        ):
            self.tree(root, **options, late_objects=False).clips()
        (clip,) = self.tree(root, **options, late_objects=True).clips()
        assert min(prompt.frame for prompt in clip.prompts) == 1

    def test_first_frame_of_a_meta_file_is_by_number(self, root: Path) -> None:
        frames = {"5": [[0, 1]], "10": [[0, 1]], "100": [[0, 0]]}
        for name, values in frames.items():
            touch(root / "train", f"JPEGImages/b/{name}.jpg")
            save_mask(root / f"train/Annotations/b/{name}.png", values)
        objects = {"1": {"category": "cat", "frames": ["10", "5"]}}
        (root / "train/meta.json").write_text(
            json.dumps({"videos": {"b": {"objects": objects}, "0a": {"objects": {}}}})
        )
        clips = {clip.clip_id: clip for clip in self.tree(root, subset="train").clips()}
        assert [(prompt.frame, prompt.name) for prompt in clips["b"].prompts] == [(0, "cat")]

    def test_without_late_objects_only_the_first_mask_is_read(self, root: Path) -> None:
        for name in ("00005", "00010"):
            (root / f"train/Annotations/0a/{name}.png").write_text("not an image")
        (clip,) = self.tree(root, subset="train", late_objects=False, meta=None).clips()
        assert [(prompt.object_id, prompt.frame) for prompt in clip.prompts] == [(1, 0)]

    def test_objects_of_the_meta_file_are_read_in_the_order_of_their_frames(self, tmp_path: Path) -> None:
        """Object 1 appears on frame 8, where object 2 is still visible: object 2 is prompted before, on frame 1."""
        names = [f"{number:05d}" for number in range(9)]
        touch(tmp_path / "train", *(f"JPEGImages/0a/{name}.jpg" for name in names))
        for name in names:
            save_mask(
                tmp_path / f"train/Annotations/0a/{name}.png", [[int(name == names[8]), 2 * int(name > names[0])]]
            )
        objects = {"1": {"frames": names[:7:-1]}, "2": {"frames": names[:0:-1]}}
        (tmp_path / "train/meta.json").write_text(json.dumps({"videos": {"0a": {"objects": objects}}}))
        (clip,) = self.tree(tmp_path, subset="train").clips()
        assert [(prompt.object_id, prompt.frame) for prompt in clip.prompts] == [(1, 8), (2, 1)]

    def test_masks_of_prompts_are_not_truth(self, root: Path) -> None:
        assert self.tree(root, subset="valid").ground_truth("0a") is None

    def test_contradictions_of_meta_file_and_masks_are_reported(self, root: Path) -> None:
        save_mask(root / "valid/Annotations/0a/00010.png", [[0, 0, 0, 3]])
        with pytest.raises(DatasetError, match=r"meta\.json lists object 2 of clip '0a'"):
            self.tree(root, subset="valid").clips()
        (root / "valid/Annotations/0a/00010.png").unlink()
        with pytest.raises(DatasetError, match=r"first appears on frame 2; expected a mask"):
            self.tree(root, subset="valid").clips()
        (root / "train/Annotations/0a/00005.png").rename(root / "train/Annotations/0a/00006.png")
        with pytest.raises(DatasetError, match=r"found 00006\.png, expected PNGs named like the clip's frames"):
            self.tree(root, subset="train").clips()
        (root / "valid/meta.json").write_text("[]")
        with pytest.raises(DatasetError, match=r"dataset\.meta=.*meta\.json.*; expected JSON with"):
            self.tree(root, subset="valid").clips()

    def test_meta_file_of_lvos_has_frame_ranges(self, tmp_path: Path) -> None:
        names = [f"{number:08d}" for number in (1, 6, 11)]
        touch(tmp_path / "valid", *(f"JPEGImages/x/{name}.jpg" for name in names))
        for name in names:
            save_mask(tmp_path / f"valid/Annotations/x/{name}.png", [[1, 0 if name == names[0] else 2]])
        ranges = {"1": {"frame_range": {"start": names[0], "end": names[2], "frame_nums": 3}}}
        ranges["2"] = {"frame_range": {"start": names[1], "end": names[2], "frame_nums": 2}}
        (tmp_path / "valid/valid_meta.json").write_text(json.dumps({"videos": {"x": {"objects": ranges}}}))
        (clip,) = self.tree(tmp_path, subset="valid", meta="{subset}/{subset}_meta.json").clips()
        assert [(prompt.object_id, prompt.frame) for prompt in clip.prompts] == [(1, 0), (2, 1)]
        ranges["2"]["frame_range"]["start"] = "00000002"
        (tmp_path / "valid/valid_meta.json").write_text(json.dumps({"videos": {"x": {"objects": ranges}}}))
        with pytest.raises(DatasetError, match="object 2 of clip 'x' first appears on '00000002'"):
            self.tree(tmp_path, subset="valid", meta="{subset}/{subset}_meta.json").clips()

    @staticmethod
    def tree(root: Path, **options: object) -> MaskFolders:
        layout = {
            "images": "{subset}/JPEGImages", "annotations": "{subset}/Annotations", "meta": "{subset}/meta.json",
            "late_objects": True,
        }  # fmt: skip
        return MaskFolders(root, **layout | options)  # type: ignore[arg-type]


class TestDavis2016:
    """One foreground object, from binary masks or from masks of several objects; splits list image files."""

    def test_all_objects_are_merged(self, davis: Path) -> None:
        (davis / "ImageSets/480p").mkdir(parents=True)
        lines = [f"/JPEGImages/480p/{clip}/{n:05d}.jpg /Annotations/480p/{clip}/{n:05d}.png" for clip in ("two", "one")
                 for n in range(2)]  # fmt: skip
        (davis / "ImageSets/480p/val.txt").write_text("\n".join(lines))
        dataset = tree(davis, split="ImageSets/480p/val.txt", merge_objects=True)
        two, one = dataset.clips()
        assert (two.clip_id, one.clip_id) == ("two", "one")
        assert [(prompt.object_id, prompt.mask) for prompt in two.prompts] == [
            (1, MaskFile(davis / "Annotations/480p/two/00000.png", has_several_ids=True))
        ]
        truth = dataset.ground_truth("two")
        assert truth is not None
        assert truth.object_ids == (FOREGROUND,)
        mask = truth.mask(1)
        assert mask is not None
        assert mask[FOREGROUND].tolist() == [[False, False, True, True], [True] * 4, [False, False, True, True]]


class TestSaVFrames:
    """Validation set of SA-V: one folder of masks per object, on every fourth frame; the objects overlap."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        touch(tmp_path, *(f"JPEGImages_24fps/sav_1/{number:05d}.jpg" for number in range(9)))
        for number in (0, 4, 8):
            save_mask(tmp_path / f"Annotations_6fps/sav_1/000/{number:05d}.png", [[1, 1, 1, 0]])
            save_mask(tmp_path / f"Annotations_6fps/sav_1/001/{number:05d}.png", [[0, 0, int(number > 0), 0]])
        (tmp_path / "sav_val.txt").write_text("sav_1\n")
        return tmp_path

    def tree(self, root: Path, prompt_from: PromptKind = "mask") -> MaskFolders:
        return MaskFolders(
            root, "JPEGImages_24fps", "Annotations_6fps", "sav_{subset}.txt", "val", late_objects=True,
            object_folders=True, prompt_from=prompt_from,
        )  # fmt: skip

    def test_prompts_and_truth(self, root: Path) -> None:
        (clip,) = self.tree(root).clips()
        assert [(prompt.object_id, prompt.name, prompt.frame) for prompt in clip.prompts] == [
            (1, "object 000", 0), (2, "object 001", 4),
        ]  # fmt: skip
        truth = self.tree(root).ground_truth("sav_1")
        assert truth is not None
        assert (truth.object_ids, truth.mask_frames.tolist()) == ((1, 2), [0, 4, 8])
        masks = truth.mask(8)
        assert masks is not None
        assert masks[1].tolist() == [[True, True, True, False]]
        assert masks[2].tolist() == [[False, False, True, False]], "overlaps are kept"
        assert truth.mask(1) is None

    @pytest.mark.parametrize("value", [1, 2, 255])
    def test_any_value_but_zero_is_the_object(self, root: Path, value: int) -> None:
        for number in (0, 4, 8):
            save_mask(root / f"Annotations_6fps/sav_1/001/{number:05d}.png", [[0, value * int(number > 0), 0, 0]])
        dataset = self.tree(root, prompt_from="box")
        (clip,) = dataset.clips()
        assert [(prompt.object_id, prompt.frame, prompt.box) for prompt in clip.prompts] == [
            (1, 0, (0, 0, 3, 1)), (2, 4, (1, 0, 2, 1)),
        ]  # fmt: skip
        truth = dataset.ground_truth("sav_1")
        assert truth is not None
        masks = truth.mask(4)
        assert masks is not None
        assert masks[2].tolist() == [[False, True, False, False]]

    def test_an_object_that_no_mask_shows_has_no_prompt(self, root: Path) -> None:
        for number in (0, 4, 8):
            save_mask(root / f"Annotations_6fps/sav_1/000/{number:05d}.png", [[0, 0, 0, 0]])
        (clip,) = self.tree(root).clips()
        assert [(prompt.object_id, prompt.frame) for prompt in clip.prompts] == [(2, 4)]

    def test_unexpected_folders_are_reported(self, root: Path) -> None:
        (root / "Annotations_6fps/sav_1/person").mkdir()
        with pytest.raises(DatasetError, match=r"found person; expected one folder per object: 000"):
            self.tree(root).clips()


class TestSingleVideo:
    def test_prompt_from_arguments(self, tmp_path: Path) -> None:
        touch(tmp_path, "a b.mp4")
        (clip,) = SingleVideo(tmp_path / "a b.mp4", frame=4, points=[[1, 2], [3, 4]], labels=[1, 0]).clips()
        assert clip.clip_id == "a b"
        assert (clip.prompts[0].frame, clip.prompts[0].labels) == (4, (1, 0))

    def test_words_from_arguments(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.mp4")
        ((prompt,),) = (clip.prompts for clip in SingleVideo(tmp_path / "a.mp4", frame=4, text="red mug").clips())
        assert (prompt.name, prompt.words) == ("red mug", Words("red mug", (4,)))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, r"dataset\.box, dataset\.points and dataset\.mask are missing"),
            (
                {"box": [3, 3, 1, 1]},
                r"^dataset\.box: expected \[x0, y0, x1, y1\] with x0 < x1 .*\[3\.0, 3\.0, 1\.0, 1\.0\]$",
            ),
            ({"box": [3, 3, 1]}, r"^dataset\.box: expected \[x0, y0, x1, y1\], got \[3, 3, 1\]$"),
            ({"points": [[1, 2]], "labels": [1, 1]}, r"^dataset\.labels: expected one per point \(1\), got 2$"),
            ({"points": [[1, 2]], "labels": [0]}, r"^dataset\.labels: .* give at least one point the label 1$"),
            ({"mask": Path("m.png"), "box": [0, 0, 2, 2]}, r"^dataset\.mask: cannot be combined with a box or points"),
            ({"box": [3, 3, 1], "frame": -1}, r"^dataset\.frame: .*\ndataset\.box: "),
            ({"box": [0, 0, 2, 2], "text": "mug"}, r"^dataset\.text: expected without dataset\.box"),
            ({"text": " "}, r"^dataset\.text: expected words that describe the object"),
        ],
    )
    def test_wrong_prompts_are_refused(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            SingleVideo(Path("a.mp4"), **options)  # type: ignore[arg-type]

    def test_missing_video_is_reported(self) -> None:
        with pytest.raises(DatasetError, match=r"dataset.path=none\.mp4 does not exist"):
            SingleVideo(Path("none.mp4"), box=[0, 0, 2, 2]).clips()

    def test_a_pipe_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.mp4")
        with pytest.raises(DatasetError, match=r"a\.mp4 is a pipe or a device; expected a video file or a folder"):
            SingleVideo(tmp_path / "a.mp4", box=[0, 0, 2, 2]).clips()

    def test_missing_mask_is_reported(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.mp4")
        with pytest.raises(DatasetError, match=r"dataset.mask=none\.png does not exist"):
            SingleVideo(tmp_path / "a.mp4", mask=Path("none.png")).clips()


def clips(*ids: str) -> list[Clip]:
    return [Clip(clip_id, Path(f"{clip_id}.mp4")) for clip_id in ids]


def chosen(found: list[Clip], **options: object) -> list[str]:
    defaults = {"include": (), "exclude": (), "limit": None, "start_seconds": None, "end_seconds": None}
    return [clip.clip_id for clip in select_clips(found, **defaults | options)]  # type: ignore[arg-type]


class TestSelection:
    found = clips("b", "a", "day1/x", "day1/y", "[odd] *")

    def test_patterns_ids_and_limit(self) -> None:
        assert chosen(self.found) == ["[odd] *", "a", "b", "day1/x", "day1/y"]
        assert chosen(self.found, include=["day1/*", "a"]) == ["a", "day1/x", "day1/y"]
        assert chosen(self.found, include=["[odd] *"]) == ["[odd] *"], "an exact id has precedence over a pattern"
        assert chosen(self.found, exclude=["day1/*"], limit=2) == ["[odd] *", "a"]

    def test_time_range_is_set_in_the_clips(self) -> None:
        (clip,) = select_clips(clips("a"), include=(), exclude=(), limit=None, start_seconds=1.0, end_seconds=2.0)
        assert (clip.start_seconds, clip.end_seconds) == (1.0, 2.0)

    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [((None, None), (10.0, 14.0)), ((1.0, 2.0), (11.0, 12.0)), ((None, 9.0), (10.0, 14.0))],
    )
    def test_time_range_counts_from_the_start_of_the_clip(
        self, chosen: tuple[float | None, float | None], expected: tuple[float, float]
    ) -> None:
        part = Clip("a", Path("a.mp4"), start_seconds=10.0, end_seconds=14.0)
        (clip,) = select_clips(
            [part], include=(), exclude=(), limit=None, start_seconds=chosen[0], end_seconds=chosen[1]
        )
        assert (clip.start_seconds, clip.end_seconds) == expected

    def test_unknown_names_are_refused(self) -> None:
        with pytest.raises(DatasetError, match=r"'day1/z' matches no clip .* did you mean day1/"):
            chosen(self.found, include=["day1/z"])
        with pytest.raises(DatasetError, match=r"include: 'c' .*\n.*exclude: 'day2/\*' matches no clip"):
            chosen(self.found, include=["c", "a"], exclude=["day2/*", "b"])

    @pytest.mark.parametrize("clip_id", ["../a", "/a", "a/../../b", "", "a\0b", ".", "./a", "a//b", "a/"])
    def test_ids_outside_the_output_folder_are_refused(self, clip_id: str) -> None:
        with pytest.raises(DatasetError, match="expected a relative path"):
            check_clip_ids([Clip(clip_id, Path("a.mp4"))])

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            (["caf\udce9"], "is not UTF-8"),
            (["esc\x1b[31mred"], "contains control characters"),
            (["new\nline"], "contains control characters"),
            (["day/" + "ü" * 126], "is 252 bytes long"),
            (["a", "a.h5/b"], r"'a\.h5/b' is in a folder with the same name as the \.h5 file of the clip 'a'"),
            (["x/a.json/b/c", "x/a"], r"as the \.json file of the clip 'x/a'"),
        ],
    )
    def test_ids_that_cannot_name_files_are_refused(self, ids: list[str], message: str) -> None:
        with pytest.raises(DatasetError, match=message):
            check_clip_ids([Clip(clip_id, Path(f"{clip_id}.mp4")) for clip_id in ids])

    def test_similar_ids_are_accepted(self) -> None:
        check_clip_ids(
            [Clip(clip_id, Path("x.mp4")) for clip_id in ["a", "a/b", "b.h5/c", "a.h5", "ü" * 125, "a\u202fb"]]
        )
