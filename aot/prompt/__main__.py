"""Serve the prompt page until Ctrl-C: `python -m aot.prompt dataset=videos dataset.root=…`.

The clips are selected as by `aot.run`; every change is saved immediately in the manifest `dataset.prompts`.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aot.arguments import parse_command
from aot.compose import compose_jobs
from aot.config import RunConfig, check_config
from aot.errors import ConfigError
from aot.paths import RunPaths
from aot.system.cli import EXIT_DONE, check_output, prints_errors, run_command
from aot.system.command_parser import CommandParser
from aot.system.os_errors import os_reason
from aot.system.text import counted

# In order of preference; the first one whose weights are available makes the masks, unless `segmenter=` is given.
_SEGMENTERS = ("sam2", "grabcut")
_DETECTOR = "grounding_dino"
_DEFAULT_HOST, _DEFAULT_PORT = "127.0.0.1", 8765
_ALL_INTERFACES = ("0.0.0.0", "::")  # noqa: S104 (only if --host asks for it)


@dataclass(frozen=True)
class _MaskMaker:
    """The segmenter that makes the masks on the page."""

    name: str
    segmenter: Any
    """None if it does not support single frames."""
    note: str
    """Why a preferred segmenter is not used; empty otherwise."""


@dataclass(frozen=True)
class _WordFinder:
    """The detector that finds objects by words."""

    name: str
    detector: Any
    """None if there is none."""


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page; returns the exit code."""
    options, rest = _parser().parse_known_args(sys.argv[1:] if arguments is None else arguments)
    command = parse_command(rest)
    config = _composed(command)
    with suppress(KeyboardInterrupt):  # the regular way to stop the server; every change is saved
        _serve(config, _mask_maker(command, config), _word_finder(command, config), command.overrides, options)
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m aot.prompt",
        usage="%(prog)s dataset=OPTION [key=value ...] [--host HOST] [--port PORT] [--config-dir DIR] "
        "[--token-file FILE] [--allow-host HOST] [--allow-origin ORIGIN] [--refuse-links]",
        description="Serve a page for clicking prompts, with the mask of every prompt. All options of aot.run are "
        "accepted; prompts are saved in the manifest dataset.prompts; segmenter selects what makes the masks (default: "
        "SAM 2 if its weights are available, otherwise GrabCut).",
        epilog="From another machine: run the printed ssh command there, then open the printed address there.",
    )
    parser.add_argument(
        "--host", default=_DEFAULT_HOST, help="address to listen on (default: %(default)s, only this machine)"
    )
    parser.add_argument(
        "--port", type=int, help=f"port to listen on (default: {_DEFAULT_PORT}, or a free port if it is in use)"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help="file with the secret part of the address, written if it does not exist: the address stays the same "
        "(default: a new one for every start)",
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="host name of a proxy that serves the page"
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="origin of a proxy, such as https://hub.example.org",
    )
    parser.add_argument(
        "--refuse-links",
        action="store_true",
        help="leave out clips that are symbolic links to files outside the folder of the dataset",
    )
    return parser


def _composed(command: argparse.Namespace, *more: str) -> RunConfig:
    """The configuration of `aot.run` with the same overrides and `more`."""
    if command.multirun:
        raise ConfigError("-m: prompts do not depend on a sweep; remove it")
    extended = argparse.Namespace(**{**vars(command), "overrides": [*command.overrides, *more]})
    jobs, errors = compose_jobs(extended)
    if errors:
        raise ConfigError("\n".join(errors))
    return check_config(jobs[0].values, jobs[0].choices)


def _mask_maker(command: argparse.Namespace, config: RunConfig) -> _MaskMaker:
    """The segmenter of the command, otherwise the first available one.

    Raises:
        ConfigError: the weights of the segmenter are missing.
    """
    from aot.segmentation.base import InteractiveSegmenter

    if any(override.startswith(("segmenter=", "segmenter.")) for override in command.overrides):
        name, segmenter = config.segmenter.name, config.segmenter.build()
        if isinstance(segmenter, InteractiveSegmenter):
            return _MaskMaker(name, segmenter, "")
        return _MaskMaker(name, None, "does not support single frames; no masks are shown")
    reasons: list[str] = []
    for name in _SEGMENTERS:
        try:
            return _MaskMaker(name, _composed(command, f"segmenter={name}").segmenter.build(), "; ".join(reasons))
        except ConfigError as error:
            reasons.append(f"not {name}: {error}")
    raise ConfigError("\n".join(reasons))


def _word_finder(command: argparse.Namespace, config: RunConfig) -> _WordFinder:
    """The detector of the command, otherwise the usual one if its library and its model are available.

    Raises:
        ConfigError: the command names a detector that is not available.
    """
    if any(override.startswith(("detector=", "detector.")) for override in command.overrides):
        return _WordFinder(config.detector.name, config.detector.build() if config.has_detector else None)
    try:
        return _WordFinder(_DETECTOR, _composed(command, f"detector={_DETECTOR}").detector.build())
    except ConfigError:  # not asked for
        return _WordFinder(_DETECTOR, None)


def _serve(
    config: RunConfig,
    maker: _MaskMaker,
    finder: _WordFinder,
    overrides: Sequence[str],
    options: argparse.Namespace,
) -> None:
    import uvicorn

    from aot.manifest.edit_file import ManifestFile
    from aot.prompt.clips import NO_PROMPT, ClipList, linked_outside, list_clips
    from aot.prompt.connections import Connection
    from aot.prompt.frames import ClipFrames
    from aot.prompt.masks import LiveMasks
    from aot.prompt.server import PromptServer, Session, new_token, own_names, token_of
    from aot.prompt.words import LiveWords

    clips, manifest_path = list_clips(config)
    check_output("dataset.prompts", manifest_path, is_file=True)
    if options.refuse_links:
        root = config.dataset.arguments.get("root")
        if root is None:
            raise ConfigError(f"--refuse-links: dataset={config.dataset.name} has no folder dataset.root; leave it out")
        outside = {clip.clip_id for clip in linked_outside(clips, Path(root))}
        clips = [clip for clip in clips if clip.clip_id not in outside]
        for clip_id in sorted(outside):
            print(f"{clip_id}: left out, because it is a link to a file outside the folder of the dataset")
    listed = ClipList(
        clips,
        ManifestFile(manifest_path),
        RunPaths(config.run_folder),
        # With refused links, each new file would have to be checked against all others.
        list_again=None if options.refuse_links else lambda: list_clips(config)[0],
    )
    states = listed.states()[1]
    host: str = options.host
    token = new_token() if options.token_file is None else token_of(options.token_file)
    with closing(ClipFrames(listed.clips)) as frames, _listener(host, options.port) as listener:
        own = frozenset({host.lower()}) | (frozenset() if host == _DEFAULT_HOST else own_names())
        server = PromptServer(
            listed,
            frames,
            LiveMasks(maker.segmenter, frames, manifest_path.parent),
            LiveWords(finder.detector, frames),
            Session(
                dataset=config.dataset.name,
                manifest=str(manifest_path),
                segmenter=maker.name if maker.segmenter else "",
                segmenter_note=maker.note,
                detector=finder.name if finder.detector else "",
                run_command=shlex.join(["python", "-m", "aot.run", *overrides]),
            ),
            token=token,
            hosts=own | {name.lower() for name in options.allow_host},
            origins=frozenset(map(_checked_origin, options.allow_origin)),
        )
        unprompted = sum(state.state == NO_PROMPT for state in states)
        print(f"{counted(len(states), 'clip')}, {unprompted} without a prompt; prompts are saved in {manifest_path}")
        print(f"masks by {maker.name}{f' ({maker.note})' if maker.note else ''}")
        if finder.detector is not None:
            print(f"objects by words: {finder.name}")
        shown_host = socket.gethostname() if host in _ALL_INTERFACES else f"[{host}]" if ":" in host else host
        port = listener.getsockname()[1]
        if host == _DEFAULT_HOST and (command := ssh_command(port)):
            print(f"from another machine, first: {command}")
        print(f"open http://{shown_host}:{port}/{token}/ (Ctrl-C stops the server)", flush=True)
        settings = uvicorn.Config(
            server.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http=Connection,
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(settings).run(sockets=[listener])


def ssh_command(port: int) -> str:
    """The command that makes the page available on the machine from which the user came; empty on a desktop.

    A compute node is reached through the node from which its job was submitted.
    """
    submitted_from, session = os.environ.get("SLURM_SUBMIT_HOST"), os.environ.get("SSH_CONNECTION")
    if not submitted_from and not session:
        return ""
    user = getpass.getuser()
    jump = f"-J {user}@{submitted_from} " if submitted_from and submitted_from != socket.gethostname() else ""
    return f"ssh {jump}-L {port}:{_DEFAULT_HOST}:{port} {user}@{socket.gethostname()}"


def _checked_origin(origin: str) -> str:
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
        raise ConfigError(f"--allow-origin {origin}: expected a scheme and a host, such as https://hub.example.org")
    return f"{parts.scheme}://{parts.netloc}"


def _listener(host: str, port: int | None) -> socket.socket:
    """A listening socket; on a free port if no port was given and the default one is in use."""
    if port is not None and not 0 <= port < 2**16:
        raise ConfigError(f"--port {port}: expected 0 (any free port) to 65535")
    reasons = []
    for candidate in [_DEFAULT_PORT, 0] if port is None else [port]:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind, protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                listener.listen()  # from here on, a browser waits instead of being refused
            except OSError:
                listener.close()
                raise
            return listener
        except OSError as exc:
            reasons.append(os_reason(exc))
    options = f"--host {host}" + ("" if port is None else f" --port {port}")
    raise ConfigError(f"{options}: cannot listen on this address ({reasons[-1]}); use another host or port")


if __name__ == "__main__":
    sys.exit(run_command(main))
