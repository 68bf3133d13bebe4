"""Download pages of published datasets, and the error for a dataset that is not on the disk.

By default a published dataset is expected in `data/NAME` below the working directory, or in `$AOT_DATA/NAME` if this
environment variable is set (conf/dataset/*.yaml). The page is found by NAME in the path, and is not an argument of the
dataset: arguments enter the configuration hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aot.errors import DatasetError
from aot.system.listing import visible_entries
from aot.system.text import first_names

_SA_V = "https://ai.meta.com/datasets/segment-anything-video-downloads"
DOWNLOAD_PAGES: Mapping[str, str] = {
    "DAVIS": "https://davischallenge.org/davis2017/code.html",
    "LVOS": "https://lingyihongfd.github.io/lvos.github.io",
    "MOSE": "https://mose.video",
    "YouTube-VOS": "https://youtube-vos.org/dataset/vos",
    "sav_test": _SA_V,
    "sav_train": _SA_V,
    "sav_val": _SA_V,
    "tapvid_davis": "https://tapvid.github.io",
}
"""Name of the default folder of a dataset → its official download page."""

_MAX_NAMED = 10


def missing_dataset(option: str, path: Path, expected: str) -> DatasetError:
    """Make the error for a dataset that is not where it is expected.

    Args:
        option: configuration key of the path, such as `dataset.root`.
        path: its value.
        expected: description of what should be there.
    Returns:
        The error, in one line: the absolute path, the download page if `path` contains the name of a published
        dataset, and how to set another path.
    """
    where = path.absolute()
    message = f"{option}={where} {_problem(where)}; expected {expected}"
    page = next((DOWNLOAD_PAGES[part] for part in reversed(where.parts) if part in DOWNLOAD_PAGES), None)
    if page is None:
        return DatasetError(f"{message}; set {option}=PATH")
    return DatasetError(
        f"{message}. Download it from {page}, or set {option}=PATH if it is elsewhere "
        f"(AOT_DATA=FOLDER in the environment replaces ./data for every published dataset)"
    )


def is_empty_folder(path: Path) -> bool:
    """Whether a folder contains nothing; False if it cannot be read."""
    try:
        return not visible_entries(path)
    except OSError:
        return False


def contents_above(path: Path) -> str:
    """What the deepest existing folder above a missing path contains, as a sentence.

    Args:
        path: does not exist; a folder above it does.
    """
    folder = next(parent for parent in path.parents if parent.is_dir())
    names = [entry.name for entry in visible_entries(folder)]
    shown = first_names(names, at_most=_MAX_NAMED)
    return f"{folder} contains {shown or 'nothing'}"


def _problem(path: Path) -> str:
    if not path.exists():
        return "does not exist"
    if not path.is_dir():
        return "is not a folder"
    return "is an empty folder" if is_empty_folder(path) else "does not contain the dataset"
