"""Tell run folders, sweep folders and other paths apart, and describe a path that is not what was expected."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path

from aot.errors import ConfigError
from aot.paths import RunPaths
from aot.system.nearest import did_you_mean, path_suggestion
from aot.system.os_errors import os_reason
from aot.system.text import counted, first_names

_RUN = "expected a run folder, as printed by aot.run, such as outputs/davis/grabcut-lucas_kanade-k1-0123abcd"
_SWEEP = "expected a sweep folder, which contains the runs of `python -m aot.run -m … frame_interval=1,2,4`"
_MAX_NAMED = 3


def is_run(folder: Path) -> bool:
    """Whether it is a run folder."""
    with suppress(OSError):  # not readable
        return RunPaths(folder).run_json.is_file()
    return False


def runs_below(folder: Path) -> list[Path]:
    """The run folders directly below a folder: the runs of a sweep, or of a dataset."""
    with suppress(OSError):  # not readable
        return sorted(path.parent for path in folder.glob(f"*/{RunPaths(Path()).run_json}"))
    return []


def not_a_run(path: Path) -> ConfigError:
    """The error for a path that is not a run folder: what it is, what was expected, and what to do next."""
    return ConfigError(f"{path} {_not_a_folder(path, _RUN) or _other_than_a_run(path)}")


def not_a_sweep(path: Path) -> ConfigError:
    """The error for a path that is not a sweep folder: what it is, what was expected, and what to do next."""
    return ConfigError(f"{path} {_not_a_folder(path, _SWEEP) or _other_than_a_sweep(path)}")


def _not_a_folder(path: Path, expected: str) -> str:
    """Describe a path that is not a folder; empty for a folder."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"does not exist; {expected}{path_suggestion(path)}"
    except OSError as exc:
        return f"cannot be read: {os_reason(exc)}; {expected}"
    if not path.is_dir():
        above = _run_above(path)
        return f"is a file; {expected}{f'; {did_you_mean([str(above)])}' if above else ''}"
    return "" if os.access(path, os.R_OK | os.X_OK) else "cannot be read; check the permissions of this folder"


def _other_than_a_run(folder: Path) -> str:
    """Describe a folder that is not a run folder."""
    runs = runs_below(folder)
    if len(runs) == 1:
        return f"is not a run folder, but contains one; use {runs[0]}"
    if runs:
        kind = "is a sweep folder with" if _is_named_sweep(folder) else "is not a run folder, it contains"
        names = first_names((run.name for run in runs), at_most=_MAX_NAMED)
        return (
            f"{kind} {counted(len(runs), 'run')} ({names}); use one of them, or compare the runs of a sweep with: "
            f"python -m aot.sweep {_quoted(folder)}"
        )
    above = _run_above(folder)
    if above is not None:
        return f"is a folder inside a run folder; use {above}"
    deeper = [run for below in _folders_below(folder) for run in runs_below(below)]
    hint = f"; use one of the run folders below it ({first_names(deeper, at_most=_MAX_NAMED)})" if deeper else ""
    return f"is not a run folder, it contains no run.json; {_RUN}{hint}"


def _other_than_a_sweep(folder: Path) -> str:
    """Describe a folder that is not a sweep folder."""
    if is_run(folder):
        above = folder.absolute().parent
        hint = f"; its sweep is {above}" if len(runs_below(above)) > 1 and _is_named_sweep(above) else ""
        return f"is a single run; {_SWEEP}{hint}; score a single run with: python -m aot.evaluate {_quoted(folder)}"
    sweeps = [below for below in _folders_below(folder) if _is_named_sweep(below)]
    hint = f"; use one of the sweep folders below it ({first_names(sweeps, at_most=_MAX_NAMED)})" if sweeps else ""
    return f"is not a sweep folder, it contains {counted(len(runs_below(folder)), 'run')}; {_SWEEP}{hint}"


def _is_named_sweep(folder: Path) -> bool:
    return folder.absolute().name.startswith("sweep-")


def _run_above(path: Path) -> Path | None:
    """The run folder that contains a path."""
    return next((folder for folder in path.absolute().parents if is_run(folder)), None)


def _folders_below(folder: Path) -> list[Path]:
    return sorted(below for below in folder.glob("*") if below.is_dir())


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
