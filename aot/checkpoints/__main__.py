"""List, download and verify model weights.

python -m aot.checkpoints list                              all published weights and their local files
python -m aot.checkpoints download sam2.1_hiera_tiny        resumes an interrupted download
python -m aot.checkpoints download OWNER/NAME               a detector on huggingface.co, of any kind that aot runs
python -m aot.checkpoints verify                            checks the SHA-256 of the local files
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from aot.checkpoints.download import BASE_URL_VARIABLE, check, download, size_of
from aot.checkpoints.folder import FOLDER_VARIABLE, weights_folder
from aot.checkpoints.models import (
    RECORD,
    allows_commercial_use,
    check_model,
    download_model,
    downloaded_models,
    is_model_id,
    list_model,
    mirror_model,
    model_folder,
    read_record,
)
from aot.checkpoints.slimming import keep_only_weights
from aot.checkpoints.table import CHECKPOINTS, MODELS, Checkpoint, model_name
from aot.errors import AotError, ConfigError
from aot.system.cli import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    check_output,
    output_console,
    prints_errors,
    run_command,
)
from aot.system.command_parser import CommandParser
from aot.system.files import PART_SUFFIX
from aot.system.nearest import suggestion
from aot.system.output_folder import check_path_length


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        prog="python -m aot.checkpoints", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=("list", "download", "verify"), default="list")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="as shown by `list`; `verify` without names checks all local files"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=weights_folder(),
        help=f"where the files are kept (default: ${FOLDER_VARIABLE}; else ./checkpoints, where that folder exists; "
        "else the user's cache; here: %(default)s)",
    )
    parser.add_argument("--accept-license", action="store_true", help="accept licences that forbid commercial use")
    parser.add_argument(
        "--weights-only",
        action="store_true",
        help="`download`: keep only the weights of files that also hold what training needs (tapnextpp: 2.5 GB)",
    )
    parser.add_argument(
        "--base-url",
        default=os.environ.get(BASE_URL_VARIABLE),
        help="download from this web folder instead",
    )
    options = parser.parse_args(arguments)
    chosen, models = _chosen(options.names)
    if options.command != "download":  # which checks more
        check_path_length("--folder", options.folder)
    if options.command == "list":
        _print_table(
            chosen if options.names else CHECKPOINTS.values(),
            models if options.names else _known_models(options.folder),
            options.folder,
        )
        return EXIT_DONE
    if options.command == "verify":
        return _verify(chosen, models, options.folder)
    if not options.names:
        raise ConfigError(f"download: no name given; expected some of {', '.join([*CHECKPOINTS, *MODELS])}")
    if models or not all(os.path.exists(options.folder / item.file) for item in chosen):  # noqa: PTH110 (never raises)
        check_output("--folder", options.folder)
    _ask_consent(chosen, options.accept_license)
    try:
        exit_code = _download_all(chosen, options.folder, options.base_url, weights_only=options.weights_only)
        return max(
            exit_code, _download_models(models, options.folder, options.base_url, is_accepted=options.accept_license)
        )
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to resume", file=sys.stderr)
        return EXIT_INTERRUPTED


def _download_all(chosen: Iterable[Checkpoint], folder: Path, base_url: str | None, *, weights_only: bool) -> int:
    exit_code = EXIT_DONE
    for checkpoint in chosen:
        path = folder / checkpoint.file
        try:
            if path.exists():
                check(checkpoint, path)
                print(f"{checkpoint.name}: already downloaded: {path}")
            else:
                print(f"{checkpoint.name}: licence {checkpoint.licence}, {_shown_size(checkpoint)}")
                with _Display(checkpoint) as display:
                    download(checkpoint, folder, base_url=base_url, report=display.report, on_bytes=display.advance)
                print(f"{checkpoint.name}: {path}")
            if weights_only and not checkpoint.holds_only_weights:
                print(f"{checkpoint.name}: {keep_only_weights(path) / 1e6:.1f} MB besides the weights were removed")
        except AotError as error:
            hint = "; delete it and download it again" if path.exists() else ""
            print(f"{checkpoint.name}: {error}{hint}", file=sys.stderr)
            exit_code = EXIT_SOME_FAILED
    return exit_code


def _download_models(repositories: Sequence[str], folder: Path, base_url: str | None, *, is_accepted: bool) -> int:
    check_licence = partial(_check_licence, is_accepted=is_accepted)
    exit_code = EXIT_DONE
    for repository in repositories:
        path = model_folder(repository, folder)
        try:
            if read_record(path) is not None:
                check_model(path)
                print(f"{repository}: already downloaded: {path}")
                continue
            if base_url is not None:
                mirror_model(repository, folder, base_url, check_licence=check_licence, report=_print_step)
                print(f"{repository}: {path}")
                continue
            model = list_model(repository)
            print(f"{repository}: licence {model.licence or 'not named'}, {model.num_bytes / 1e6:.1f} MB")
            check_licence(model.licence)
            download_model(model, folder, report=_print_step)
            print(f"{repository}: {path}")
        except ConfigError as error:
            hint = "; delete it and download it again" if (path / RECORD).exists() else ""
            print(f"{repository}: {error}{hint}", file=sys.stderr)
            exit_code = EXIT_SOME_FAILED
        except AotError as error:
            print(f"{repository}: {error}", file=sys.stderr)
            exit_code = EXIT_SOME_FAILED
    return exit_code


def _verify(chosen: Sequence[Checkpoint], models: Sequence[str], folder: Path) -> int:
    exit_code = EXIT_DONE
    is_all = not chosen and not models
    checked = [known for known in CHECKPOINTS.values() if (folder / known.file).exists()] if is_all else chosen
    models = downloaded_models(folder) if is_all else models
    if not checked and not models:
        print(f"{folder}: contains no published weights; `python -m aot.checkpoints list` lists them")
    for checkpoint in checked:
        path = folder / checkpoint.file
        try:
            check(checkpoint, path)
            print(f"{checkpoint.name}: {path} is complete")
        except AotError as error:
            hint = "delete it and download it again" if path.exists() else "download it"
            print(f"{checkpoint.name}: {error}; {hint}", file=sys.stderr)
            exit_code = EXIT_SOME_FAILED
    for repository in models:
        path = model_folder(repository, folder)
        try:
            check_model(path)
            print(f"{repository}: {path} is complete")
        except AotError as error:
            hint = "delete it and download it again" if path.exists() else "download it"
            print(f"{repository}: {error}; {hint}", file=sys.stderr)
            exit_code = EXIT_SOME_FAILED
    return exit_code


class _Display:
    """A progress bar on a terminal; otherwise only the messages about retries.

    Args:
        checkpoint: its name and size are shown.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        console = Console(soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(checkpoint.name, total=checkpoint.num_bytes)

    def advance(self, num_bytes: int) -> None:
        self._progress.update(self._task, completed=num_bytes)

    def report(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _chosen(names: Sequence[str]) -> tuple[list[Checkpoint], list[str]]:
    """The files with these names, and the repositories of models."""
    known = [*CHECKPOINTS, *MODELS]
    unknown = [name for name in names if name not in known and not is_model_id(name)]
    if unknown:
        raise ConfigError("\n".join(f"{name}: no such checkpoint; {suggestion(name, known)}" for name in unknown))
    repositories = [MODELS[name].repository if name in MODELS else name for name in names if name not in CHECKPOINTS]
    return [CHECKPOINTS[name] for name in dict.fromkeys(names) if name in CHECKPOINTS], list(
        dict.fromkeys(repositories)
    )


def _known_models(folder: Path) -> list[str]:
    """The repositories of the detectors' default models, and of all that have been downloaded."""
    return list(dict.fromkeys([*(model.repository for model in MODELS.values()), *downloaded_models(folder)]))


def _print_step(text: str) -> None:
    print(f"  {text}", flush=True)


def _check_licence(licence: str, *, is_accepted: bool) -> None:
    if not (is_accepted or allows_commercial_use(licence)):
        raise ConfigError(
            f"licence {licence}: no commercial use; add --accept-license if you accept; nothing was downloaded"
        )


def _ask_consent(chosen: Sequence[Checkpoint], is_accepted: bool) -> None:
    restricted = [checkpoint for checkpoint in chosen if not checkpoint.is_commercial_use_allowed]
    if not restricted or is_accepted:
        return
    terms = "\n".join(_terms(item) for item in restricted)
    if not sys.stdin.isatty():
        raise ConfigError(f"{terms}\nadd --accept-license if you accept; nothing was downloaded")
    print(f"{terms}\nDo you accept? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):  # end of input is not consent either
        raise ConfigError("not accepted; nothing was downloaded")


def _terms(checkpoint: Checkpoint) -> str:
    option = checkpoint.unrestricted_option
    hint = f" ({option} allows it: its weights are Apache-2.0)" if option else ""
    return f"{checkpoint.name}: licence {checkpoint.licence}: no commercial use{hint}"


def _print_table(checkpoints: Iterable[Checkpoint], models: Iterable[str], folder: Path) -> None:
    table = Table("name", "file", "size", "licence", box=None, pad_edge=False)
    table.add_column("local file", overflow="fold")
    for item in checkpoints:
        path = folder / item.file
        part = size_of(path.with_name(path.name + PART_SUFFIX))
        local = str(path) if path.exists() else f"{part} bytes so far" if part else "none"
        licence = item.licence + ("" if item.is_commercial_use_allowed else " (not commercial)")
        table.add_row(item.name, item.file, _shown_size(item), licence, local)
    for repository in models:
        name = model_name(repository)
        path = model_folder(repository, folder)
        record = read_record(path)
        licence = MODELS[name].licence if name in MODELS else record.licence if record else "not known"
        gated = " (accepted on huggingface.co)" if name in MODELS and MODELS[name].is_gated else ""
        size = f"{sum(size_of(path / file) for file in record.sha256) / 1e6:.1f} MB" if record else "size unknown"
        table.add_row(name, repository, size, licence + gated, str(path) if record else "none")
    output_console().print(table)


def _shown_size(checkpoint: Checkpoint) -> str:
    return "size unknown" if checkpoint.num_bytes is None else f"{checkpoint.num_bytes / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(run_command(main))
