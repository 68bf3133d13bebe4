"""Download pages of published datasets, and the error for a dataset that is not on the disk.

By default a published dataset is expected in `data/NAME` below the working directory, or in `$AOT_DATA/NAME` if this
environment variable is set (conf/dataset/*.yaml). The page is found by NAME, the name of the dataset's folder, and is
not an argument of the dataset: arguments enter the configuration hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aot.errors import DatasetError

DATA_VARIABLE = "AOT_DATA"

_SA_V = "https://ai.meta.com/datasets/segment-anything-video-downloads"
DOWNLOAD_PAGES: Mapping[str, str] = {
    "DAVIS": "https://davischallenge.org/davis2017/code.html",
    "LVOS": "https://lingyihongfd.github.io/lvos.github.io",
    "MOSE": "https://mose.video",
    "YouTube-VOS": "https://youtube-vos.org/dataset",
    "sav_test": _SA_V,
    "sav_train": _SA_V,
    "sav_val": _SA_V,
    "tapvid_davis": "https://tapvid.github.io",
}
"""Name of the default folder of a dataset → its official download page."""


def missing_dataset(option: str, path: Path, expected: str) -> DatasetError:
    """Make the error for a dataset that is not where it is expected.

    Args:
        option: configuration key of the path, such as `dataset.root`.
        path: its value.
        expected: description of what should be there.
    """
    problem = "is not a folder" if path.exists() else "does not exist"
    where = "" if path.is_absolute() else f" (working directory: {Path.cwd()})"
    message = f"{option}={path} {problem}{where}; expected {expected}"
    page = DOWNLOAD_PAGES.get(path.name)
    if page is None:
        return DatasetError(f"{message}; set {option}=FOLDER")
    return DatasetError(
        f"{message}. Download it from {page}, or set {option}=FOLDER; the environment variable {DATA_VARIABLE} "
        f"replaces the folder data for all datasets"
    )
