"""The command `python -m aot.prompts`: check a manifest, print the JSON schema, or import boxes of other tools."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from aot.errors import ConfigError
from aot.manifest.assign import check_manifest
from aot.manifest.read import load_manifest
from aot.manifest.schema import Manifest
from aot.system.cli import EXIT_DONE, check_output, prints_errors, run_command
from aot.system.command_parser import CommandParser
from aot.system.text import counted


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = CommandParser(
        prog="python -m aot.prompts",
        description="Check a prompt manifest, print the JSON schema, or import the boxes of other tools.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("schema", help="print the JSON schema of a manifest")
    check = commands.add_parser("check", help="check a manifest; its videos are not opened")
    check.add_argument("manifest", type=Path, help="YAML or JSON")
    importing = commands.add_parser("import", help="convert the boxes of a detector or another tracker to a manifest")
    importing.add_argument("files", type=Path, nargs="+", help="COCO JSON; MOTChallenge det.txt, gt.txt or NAME.txt")
    importing.add_argument("--format", choices=("coco", "mot"), required=True)
    importing.add_argument(
        "--out", type=Path, required=True, help="manifest to write; JSON if the name ends in .json, otherwise YAML"
    )
    importing.add_argument(
        "--min-score", type=float, default=0.0, help="skip boxes below this score; default: %(default)s"
    )
    importing.add_argument(
        "--images",
        type=Path,
        help="coco: annotation file that lists the images, for a file that is only a list of results",
    )
    importing.add_argument(
        "--frames",
        type=Path,
        help="coco: folder with one folder of frames per clip; frame numbers are then positions in these folders",
    )
    importing.add_argument(
        "--masks", action="store_true", help="coco: import segmentations as mask prompts instead of boxes"
    )
    importing.add_argument("--clip", help="mot: clip id, for a single file; default: name of the sequence")
    importing.add_argument("--size", help="mot: size of the video as WIDTHxHEIGHT, if there is no seqinfo.ini")
    options = parser.parse_args(arguments)
    if options.command == "schema":
        print(json.dumps(Manifest.model_json_schema(), indent=2))
    elif options.command == "import":
        _import(options)
    else:
        num_entries = check_manifest(options.manifest)
        print(f"{options.manifest}: {counted(num_entries, 'entry', 'entries')}, no errors")
        print("clip ids, frame numbers and coordinates were not compared with the videos; aot.run does this")
    return EXIT_DONE


def _import(options: argparse.Namespace) -> None:
    from aot.manifest.converters import manifest_of, read_coco, read_mot, write_manifest

    if options.clip and len(options.files) > 1:
        raise ConfigError(
            f"--clip {options.clip}: expected a single file, got {len(options.files)}; import each file separately"
        )
    size = re.fullmatch(r"([0-9]+)x([0-9]+)", options.size or "")
    if options.size and not size:
        raise ConfigError(f"--size {options.size}: expected WIDTHxHEIGHT, such as 1920x1080")
    check_output("--out", options.out, is_file=True)
    found = []
    for path in options.files:
        if options.format == "coco":
            found += read_coco(path, images=options.images, frames=options.frames, masks=options.masks)
        else:
            limits = (int(size[1]), int(size[2])) if size else None
            found += read_mot(path, clip_id=options.clip, size=limits)
    write_manifest(options.out, manifest_of(found, min_score=options.min_score))
    manifest = load_manifest(options.out)
    num_objects = sum(len({entry.id for entry in clip.objects}) for clip in manifest.clips.values())
    print(f"{options.out}: {counted(len(manifest.clips), 'clip')}, {counted(num_objects, 'object')}")


if __name__ == "__main__":
    sys.exit(run_command(main))
