"""The folder of model weights: the same for the commands that download them and for the models that read them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER_VARIABLE = "AOT_CHECKPOINTS"
"""The environment variable with the folder of weights, such as one that all users of a cluster share."""


def weights_folder() -> Path:
    """Return the folder of model weights, which need not exist.

    In this order: `$AOT_CHECKPOINTS`; `checkpoints` below the working directory, where it exists; the user's cache
    (`$XDG_CACHE_HOME/aot/checkpoints` or `~/.cache/aot/checkpoints`, on macOS `~/Library/Caches/aot/checkpoints`), so
    that runs in different folders share one copy.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    local = Path("checkpoints")
    return local if local.is_dir() else _user_cache() / "aot" / "checkpoints"


def _user_cache() -> Path:
    """The folder for files that programs can download again; a relative path in the variable is to be ignored.

    Source: XDG Base Directory Specification 0.8.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # noqa: PTH117 (empty: no path)
        return Path(given)
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
