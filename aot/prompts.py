"""The command `python -m aot.prompts`: check a manifest, print its JSON schema, import boxes of other tools, or find
objects by words."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aot.errors import AotError, ConfigError
from aot.manifest.assign import assign_entries, check_manifest, lacks_mask
from aot.manifest.read import check_entry, load_manifest, read_entries, refuse
from aot.manifest.schema import Manifest
from aot.system.cli import EXIT_DONE, EXIT_SOME_FAILED, check_output, prints_errors, run_command
from aot.system.command_parser import CommandParser
from aot.system.text import counted
from aot.types import MAX_FOUND, Clip, Words

if TYPE_CHECKING:
    from aot.manifest.converters import Imported

_DETECTOR = "grounding_dino"
"""The detector unless a command names another one."""

_PATTERN_HELP = "which images are frames, if a folder of frames has several kinds, such as '*_color.png'; default: all"


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = CommandParser(
        prog="python -m aot.prompts",
        description="Check a prompt manifest, print its JSON schema, import the boxes of other tools, or find objects "
        "by words.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("schema", help="print the JSON schema of a manifest")
    check = commands.add_parser("check", help="check a manifest, with --root also against its videos")
    check.add_argument("manifest", type=Path, help="YAML or JSON")
    check.add_argument(
        "--root",
        type=Path,
        help="folder of the videos, or of folders of frames: compares clip ids, frames, positions and sizes of masks "
        "with them",
    )
    check.add_argument(
        "--stream",
        type=_number,
        metavar="N",
        help="which video stream, of files with several; default: as the ffmpeg command chooses",
    )
    check.add_argument("--pattern", help=_PATTERN_HELP)
    _add_import(commands.add_parser("import", help="convert the boxes of a detector or another tracker to a manifest"))
    _add_detect(commands.add_parser("detect", help="find objects by words, and add their boxes to a manifest"))
    options, rest = parser.parse_known_args(arguments)
    if options.command == "detect":
        # argparse takes those before the first option only.
        options.overrides += [text for text in rest if "=" in text and not text.startswith("-")]
        rest = [text for text in rest if text not in options.overrides]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "detect":
        return _detect(options)
    if options.command == "schema":
        print(json.dumps(Manifest.model_json_schema(), indent=2))
    elif options.command == "import":
        _import(options)
    elif options.root is None:
        num_entries, notes = check_manifest(options.manifest)
        print("\n".join([f"{options.manifest}: {counted(num_entries, 'entry', 'entries')}, no errors", *notes]))
        print("clip ids, frame numbers and coordinates were not compared with the videos; --root FOLDER does this")
    else:
        _check_with_videos(options.manifest, options.root, options.stream, options.pattern)
    return EXIT_DONE


def _check_with_videos(path: Path, root: Path, stream: int | None, pattern: str | None) -> None:
    """Check a manifest against the videos below a folder, or its folders of frames, and print what was compared.

    Raises:
        ConfigError: lists all errors.
    """
    found = _clips_below(root, stream, pattern)
    kinds = ("folder of frames", "folders of frames") if found[0].source.is_dir() else ("video", "videos")
    entries, errors = read_entries(path)
    clips, more = assign_entries(found, entries, path.parent)
    prompted = [clip for clip in clips if clip.prompts]
    errors += [*more, *(f"clip {clip.clip_id!r}: {error}" for clip in prompted for error in _errors_with_video(clip))]
    refuse(path, errors)
    _, notes = check_manifest(path)
    print("\n".join([f"{path}: {counted(len(entries), 'entry', 'entries')}, no errors", *notes]))
    print(
        f"compared with {counted(len(prompted), *kinds)} below {root}: clip ids, frame numbers, positions and sizes "
        f"of masks; {counted(len(clips) - len(prompted), *kinds)} without a prompt"
    )
    print(
        "not checked: whether the videos can be decoded to their end, whether a prompt marks the object that is meant, "
        "and the time range of a run (dataset.start_seconds, dataset.end_seconds)"
    )


def _clips_below(root: Path, stream: int | None, pattern: str | None) -> list[Clip]:
    """The videos below a folder; if there are none, its folders of frames.

    Raises:
        ConfigError: there is neither.
    """
    from aot.datasets.videos import list_videos
    from aot.images.frames import IMAGE_SUFFIXES
    from aot.system.listing import list_tree

    if not root.is_dir():
        raise ConfigError(f"--root {root} is not a folder; expected the folder of the videos")
    if videos := list_videos(root, stream):
        return videos
    images = [file for file in list_tree(root).files if file.suffix.lower() in IMAGE_SUFFIXES]
    folders = sorted({file.parent for file in images} - {root})
    if not folders:
        raise ConfigError(f"--root {root} contains no video and no folder of frames; expected the folder above them")
    return [Clip(folder.relative_to(root).as_posix(), folder, pattern=pattern) for folder in folders]


def _errors_with_video(clip: Clip) -> list[str]:
    """The errors of a clip's prompts in its video, which is opened but not decoded; missing masks are skipped."""
    from aot.decoding import open_source
    from aot.manifest.fit import check_prompts

    try:
        with open_source(clip) as frames:
            size = {"width": frames.width, "height": frames.height}
            numbers = frames.index.tolist()
            # One at a time, so that every error is found and only one mask is in memory.
            found = [
                check_prompts([prompt], **size, frames=numbers, num_source_frames=frames.num_source_frames)[1]
                for prompt in clip.prompts
                if not lacks_mask(prompt)
            ]
    except AotError as error:
        return [str(error)]
    return [str(error) for errors in found for error in errors.values()]


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", help="COCO JSON; MOTChallenge det.txt, gt.txt or NAME.txt")
    parser.add_argument("--format", choices=("coco", "mot"), required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="manifest to write; JSON if the name ends in .json, otherwise YAML"
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--merge", action="store_true", help="add the objects to an existing manifest, and keep what is in it"
    )
    existing.add_argument("--force", action="store_true", help="replace an existing manifest")
    parser.add_argument(
        "--min-score", type=float, default=0.0, help="skip boxes below this score; default: %(default)s"
    )
    parser.add_argument(
        "--first-frame",
        type=_number,
        metavar="N",
        help="number of the first frame of every clip, usually 0 or 1; default: mot 1, coco 0 if there is a frame 0",
    )
    parser.add_argument(
        "--track-ids",
        choices=("unique", "per-class"),
        help="whether a track id is one object whatever its class, or each class counts its own; default: per-class "
        "if a track id has several classes on one frame",
    )
    parser.add_argument(
        "--images",
        type=Path,
        help="coco: annotation file that lists the images, for a file that is only a list of results",
    )
    parser.add_argument(
        "--frames",
        type=Path,
        help="coco: folder with one folder of frames per clip; frame numbers are then positions in these folders",
    )
    parser.add_argument("--pattern", help=f"coco, with --frames: {_PATTERN_HELP}")
    parser.add_argument(
        "--masks", action="store_true", help="coco: import segmentations as mask prompts instead of boxes"
    )
    parser.add_argument(
        "--clip", help="clip id, for a single file; default: name of the sequence (mot), of the video or folder (coco)"
    )
    parser.add_argument("--size", help="mot: size of the video as WIDTHxHEIGHT, if there is no seqinfo.ini")


def _add_detect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="KEY=VALUE",
        help="the dataset, as for aot.run: dataset=videos dataset.root=FOLDER; detector=NAME (default: "
        f"{_DETECTOR}) and its options",
    )
    parser.add_argument(
        "--text", action="append", required=True, help='words that describe an object, such as "red mug"; repeatable'
    )
    parser.add_argument("--out", type=Path, help="manifest to add the boxes to, YAML or JSON; default: dataset.prompts")
    parser.add_argument(
        "--frames",
        type=_number,
        nargs="+",
        default=[0],
        metavar="N",
        help="source frames, looked at in this order until the objects are found; default: 0",
    )
    parser.add_argument(
        "--count",
        type=_count,
        default=1,
        metavar="N",
        help=f"objects to find by each text: a number up to {MAX_FOUND}, or all; default: 1",
    )
    parser.add_argument("--min-score", type=_score, help="lowest score of a box; default: detector.min_score")
    parser.add_argument("--config-dir", help="folder with options of your own, as for aot.run")


def _detect(options: argparse.Namespace) -> int:
    """Find objects in every clip and print what was found; returns the exit code."""
    from aot.arguments import parse_command
    from aot.compose import compose_jobs
    from aot.config import check_config
    from aot.prompt.clips import list_clips
    from aot.prompt.detect import detect_into_manifest
    from aot.system.text import override_text

    overrides = list(options.overrides)
    review = shlex.join(overrides)
    if not any(override.startswith("detector=") for override in overrides):
        overrides.append(f"detector={_DETECTOR}")
    if options.out is not None:
        setting = override_text("dataset.prompts", options.out)
        overrides += shlex.split(setting)
        review += f" {setting}"
    folder = [] if options.config_dir is None else ["--config-dir", options.config_dir]
    jobs, errors = compose_jobs(parse_command([*overrides, *folder]))
    if errors:
        raise ConfigError("\n".join(errors))
    config = check_config(jobs[0].values, jobs[0].choices)
    if not config.has_detector:
        raise ConfigError(f"detector=none finds nothing; write detector={_DETECTOR}, or leave it out")
    detector = config.detector.build()
    clips, manifest = list_clips(config)
    check_output("--out" if options.out else "dataset.prompts", manifest, is_file=True)
    words = [Words(text, tuple(options.frames), options.count, options.min_score) for text in options.text]
    _check_words(words)
    num_found = num_failed = 0
    for clip in detect_into_manifest(clips, manifest, words, detector, config.decoder.build()):
        boxes = [f'{item.id} "{item.text}" {item.score:.2f} (frame {item.frame})' for item in clip.added]
        kept = [f'"{text}" is in the manifest already' for text in clip.kept]
        print(f"{clip.clip_id}: {'; '.join([*boxes, *kept, *clip.errors])}", flush=True)
        num_found += len(clip.added)
        num_failed += bool(clip.errors)
    failed = f"; in {counted(num_failed, 'clip')} not everything was found" if num_failed else ""
    print(f"{manifest}: {counted(num_found, 'object')} added in {counted(len(clips), 'clip')}{failed}")
    print(f"review them: python -m aot.prompt {review}")
    return EXIT_SOME_FAILED if num_failed else EXIT_DONE


def _check_words(words: Sequence[Words]) -> None:
    """Check texts and frames as those of a manifest."""
    errors = []
    for each in words:
        entry = {"id": 1, "text": each.text, "frames": list(each.frames)}
        try:
            check_entry("--text", [entry])
        except AotError as error:
            errors.append(str(error).replace("clip '--text', object 1, ", "--"))
    if len({each.text for each in words}) < len(words):
        errors.append("--text: expected different texts")
    if errors:
        raise ConfigError("\n".join(errors))


def _count(text: str) -> int | None:
    if text == "all":
        return None
    number = _number(text)
    if not 1 <= number <= MAX_FOUND:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 to {MAX_FOUND}, or all")
    return number


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0 to 1")
    return score


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer of at least 0")
    return int(text)


def _import(options: argparse.Namespace) -> None:
    from aot.manifest.coco import read_coco
    from aot.manifest.converters import manifest_of, write_manifest
    from aot.manifest.merge import merge_manifest
    from aot.manifest.mot import read_mot

    if options.clip and len(options.files) > 1:
        raise ConfigError(
            f"--clip {options.clip}: expected a single file, got {len(options.files)}; import each file separately"
        )
    size = re.fullmatch(r"([0-9]+)x([0-9]+)", options.size or "")
    if options.size and not size:
        raise ConfigError(f"--size {options.size}: expected WIDTHxHEIGHT, such as 1920x1080")
    check_output("--out", options.out, is_file=True)
    exists = options.out.exists() and options.out.stat().st_size > 0
    if exists and not (options.merge or options.force):
        raise ConfigError(
            f"--out {options.out} exists and was not changed; --merge adds the imported objects to it, --force "
            f"replaces it, and another --out writes a new file"
        )
    limits = (int(size[1]), int(size[2])) if size else None
    read: list[Imported] = []
    for path in options.files:
        if options.format == "coco":
            read.append(
                read_coco(
                    path, images=options.images, frames=options.frames, pattern=options.pattern, masks=options.masks,
                    clip_id=options.clip, first_frame=options.first_frame,
                )
            )  # fmt: skip
        else:
            read.append(read_mot(path, clip_id=options.clip, size=limits, first_frame=options.first_frame))
    found = [item for one in read for item in one.detections]
    imported = manifest_of(found, min_score=options.min_score, track_ids=options.track_ids)
    notes = [note for one in read for note in one.notes] + list(imported.notes)
    if exists and options.merge:
        notes += merge_manifest(options.out, imported.content)
    else:
        write_manifest(options.out, imported.content)
    manifest = load_manifest(options.out)
    num_objects = sum(len({entry.id for entry in clip.objects}) for clip in manifest.clips.values())
    print(
        "\n".join([f"{options.out}: {counted(len(manifest.clips), 'clip')}, {counted(num_objects, 'object')}", *notes])
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
