"""Models of several files that are hosted on huggingface.co: detectors, in the format of the library `transformers`.

A model is kept in `<repository>/` below the folder of weights. Its record, which is written last, has the revision,
the licence and the SHA-256 of every file. Only weights in the safetensors format are downloaded, which cannot contain
code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from aot.checkpoints.download import download, fetch_with_retries
from aot.checkpoints.folder import FOLDER_VARIABLE, weights_folder
from aot.checkpoints.hub import RepositoryFile, file_from_hub, list_repository
from aot.checkpoints.table import MODELS, Checkpoint, model_name
from aot.checkpoints.weights import Weights, sha256_once
from aot.errors import CheckpointError
from aot.system.files import PART_SUFFIX, replacing, write_errors
from aot.system.hashing import sha256_of
from aot.system.os_errors import os_reason

RECORD = "aot.json"
"""Name of the record in a model's folder."""

DETECTOR_OF = {
    "grounding-dino": "grounding_dino",
    "mm-grounding-dino": "grounding_dino",
    "owlv2": "owlv2",
    "owlvit": "owlv2",
    "sam3": "sam3",
    "sam3_video": "sam3",
}
"""Kind of a model, `model_type` in its config.json → option of `detector` that runs it."""

_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "model-*.safetensors")
# What tokenizers and image processors are made from.
_FILES = (*_WEIGHTS, "*.json", "vocab.txt", "merges.txt")


@dataclass(frozen=True)
class ModelRecord:
    """What was downloaded."""

    repository: str
    """On huggingface.co."""
    revision: str
    """The commit."""
    licence: str
    """As the repository names it; empty: it names none."""
    sha256: dict[str, str]
    """File → SHA-256."""


def is_model_id(name: str) -> bool:
    """Whether a name has the form of a repository on huggingface.co, OWNER/NAME."""
    return re.fullmatch(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", name, re.ASCII) is not None and ".." not in name


def model_folder(repository: str, folder: Path) -> Path:
    """The folder of a model below the folder of weights."""
    return folder / repository


def require_model(repository: str, given: Path | None, *, detector: str) -> Path:
    """Return the folder of a detector's model.

    Args:
        repository: on huggingface.co.
        given: the user's own folder; None: where the download command puts the model.
        detector: the option of `detector` that is to run it.
    Raises:
        CheckpointError: the model is missing, or of another kind; the message names what to do.
    """
    if not is_model_id(repository):
        raise CheckpointError(
            f"detector.model={repository}: expected OWNER/NAME of a model on huggingface.co; "
            f"detector.checkpoint=FOLDER gives the folder of a model"
        )
    folder = given or model_folder(repository, weights_folder())
    is_complete = (folder / (RECORD if given is None else _CONFIG)).is_file()
    if not is_complete:
        raise CheckpointError(
            f"detector.checkpoint: no model at {folder.absolute()}; download it with `python -m aot.checkpoints "
            f"download {model_name(repository)}`, give its folder with detector.checkpoint=FOLDER or the folder of all "
            f"weights with {FOLDER_VARIABLE}=FOLDER in the environment, or mark objects without words"
        )
    _check_kind(folder, detector)
    return folder


def identify_model(folder: Path) -> tuple[Weights, ...]:
    """Identify the weights in a model's folder by their SHA-256.

    Raises:
        CheckpointError: a file cannot be read.
    """
    record = read_record(folder)
    weights = []
    for path in weight_files(folder):
        digest = sha256_once(path)
        is_known = record is not None and record.sha256.get(path.name) == digest
        weights.append(
            Weights(
                file=path.name,
                sha256=digest,
                checkpoint=record.repository if record is not None and is_known else None,
                licence=record.licence if record is not None and is_known else None,
            )
        )
    return tuple(weights)


def weight_files(folder: Path) -> list[Path]:
    """The files of the weights in a model's folder."""
    return sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})


def read_record(folder: Path) -> ModelRecord | None:
    """The record in a model's folder; None if there is none.

    Raises:
        CheckpointError: the record cannot be read.
    """
    path = folder / RECORD
    return _parsed_record(path) if path.exists() else None


def _parsed_record(path: Path) -> ModelRecord:
    try:
        return ModelRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as exc:
        reason = os_reason(exc) if isinstance(exc, OSError) else "it is damaged"
        raise CheckpointError(f"{path} cannot be read: {reason}; delete it and download the model again") from exc


@dataclass(frozen=True)
class ListedModel:
    """What huggingface.co lists of a model, before it is downloaded."""

    repository: str
    revision: str
    licence: str
    files: tuple[RepositoryFile, ...]
    """Those that are needed."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def allows_commercial_use(licence: str) -> bool:
    """Whether a licence does, according to its name, such as cc-by-nc-4.0."""
    return "nc" not in re.split(r"[^a-z]+", licence.lower())


def list_model(repository: str) -> ListedModel:
    """Ask huggingface.co for the files of a model.

    Raises:
        CheckpointError: the repository cannot be reached, needs a login, or has no weights in the safetensors format.
    """
    listed = list_repository(repository)
    # Folders hold the same model in other formats.
    top = [file for file in listed.files if "/" not in file.name]
    files = tuple(file for file in top if any(fnmatchcase(file.name, pattern) for pattern in _FILES))
    names = [file.name for file in files]
    if _CONFIG not in names or not any(fnmatchcase(name, pattern) for name in names for pattern in _WEIGHTS):
        found = ", ".join(file.name for file in listed.files[:5]) or "nothing"
        raise CheckpointError(
            f"{repository}: expected {_CONFIG} and {_WEIGHTS[0]} of a detector, found {found}; other formats of "
            f"weights are not read"
        )
    known = MODELS.get(model_name(repository))
    return ListedModel(repository, listed.revision, known.licence if known else listed.licence, files)


def download_model(model: ListedModel, folder: Path, *, report: Callable[[str], None] = lambda text: None) -> Path:
    """Download the files of a model; those that are complete are kept, and the record is written last.

    Args:
        model: from `list_model`.
        folder: of weights; the model gets a folder below it.
        report: called with the name of a file before it is downloaded.
    Returns:
        The folder of the model.
    Raises:
        CheckpointError: a file cannot be downloaded, differs from the published one, or is of another kind of model.
        WriteError: the folder cannot be written, or the disk is full.
    """
    target = model_folder(model.repository, folder)
    digests = {}
    # The configuration first: gigabytes of a model that no detector runs are not downloaded.
    for file in sorted(model.files, key=lambda file: (file.name != _CONFIG, file.name)):
        path = target / file.name
        if not _is_complete(path, file):
            report(file.name)
            with write_errors(path):
                target.mkdir(parents=True, exist_ok=True)
            file_from_hub(model.repository, path, _checks(file), revision=model.revision)
        digests[file.name] = sha256_of(path)
        if file.name == _CONFIG:
            _check_kind(target, None)
    record = ModelRecord(model.repository, model.revision, model.licence, digests)
    with replacing(target / RECORD) as part, write_errors(target / RECORD):
        part.write_text(json.dumps(asdict(record), indent=1) + "\n")
    return target


def mirror_model(
    repository: str,
    folder: Path,
    base_url: str,
    *,
    check_licence: Callable[[str], None],
    report: Callable[[str], None] = lambda text: None,
) -> Path:
    """Download a model from a web folder that holds a copy of the folder of weights, with the model's record.

    Args:
        repository: of the model.
        folder, report: as in `download_model`.
        base_url: the address of the web folder.
        check_licence: called with the name of the licence; raises ConfigError if it is not accepted.
    Raises:
        CheckpointError, WriteError: as `download_model`.
    """
    target = model_folder(repository, folder)
    url = f"{base_url.rstrip('/')}/{repository}"
    part = target / (RECORD + PART_SUFFIX)
    with write_errors(part):
        target.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
    source = Checkpoint(repository, RECORD, url, None, "")
    fetch_with_retries(source, f"{url}/{RECORD}", part, report, lambda num_bytes: None)
    record = _parsed_record(part)
    if record.repository != repository or not all(re.fullmatch(r"[\w-][\w.-]*", name) for name in record.sha256):
        raise CheckpointError(f"{url}/{RECORD} is not the record of {repository}")
    check_licence(record.licence)
    for name, digest in sorted(record.sha256.items(), key=lambda item: (item[0] != _CONFIG, item[0])):
        if not (target / name).exists() or sha256_of(target / name) != digest:
            report(name)
            download(Checkpoint(repository, name, url, digest, record.licence), target, base_url=url, report=report)
        if name == _CONFIG:
            _check_kind(target, None)
    with write_errors(part):
        part.replace(target / RECORD)
    return target


def check_model(folder: Path) -> None:
    """Check the files of a downloaded model against its record.

    Raises:
        CheckpointError: the record or a file is missing, cannot be read, or a file has changed.
    """
    record = read_record(folder)
    if record is None:
        raise CheckpointError(f"{folder} has no record {RECORD} of a complete download")
    for name, expected in record.sha256.items():
        try:
            digest = sha256_of(folder / name)
        except OSError as exc:
            raise CheckpointError(f"{folder / name} cannot be read: {os_reason(exc)}") from exc
        if digest != expected:
            raise CheckpointError(f"{folder / name} has the SHA-256 {digest}, expected {expected}")


def downloaded_models(folder: Path) -> list[str]:
    """The repositories of the models below a folder of weights."""
    return sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/*/{RECORD}"))


def _is_complete(path: Path, file: RepositoryFile) -> bool:
    try:
        _checks(file)(path)
    except (OSError, CheckpointError):
        return False
    return True


def _checks(file: RepositoryFile) -> Callable[[Path], None]:
    """A check of a local file against what is published; small files have no published SHA-256, only a size."""

    def check(path: Path) -> None:
        size = path.stat().st_size
        if size != file.num_bytes:
            raise CheckpointError(f"{file.name} has {size} bytes, expected {file.num_bytes}")
        if file.sha256 is not None and (digest := sha256_of(path)) != file.sha256:
            raise CheckpointError(f"{file.name} has the SHA-256 {digest}, expected {file.sha256}")

    return check


def _check_kind(folder: Path, detector: str | None) -> None:
    """Raise CheckpointError if the model in a folder is not one that the detector runs; None: any detector."""
    path = folder / _CONFIG
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        reason = os_reason(exc) if isinstance(exc, OSError) else "it is not JSON"
        raise CheckpointError(f"{path} cannot be read: {reason}; expected the configuration of a model") from exc
    kind = content.get("model_type") if isinstance(content, dict) else None
    runs = DETECTOR_OF.get(str(kind))
    if runs is None or detector not in (None, runs):
        kinds = [known for known, option in DETECTOR_OF.items() if detector in (None, option)]
        use = f"; use detector={runs}" if runs else ""
        raise CheckpointError(f"{path}: a model of kind {kind!r}, expected {' or '.join(kinds)}{use}")
