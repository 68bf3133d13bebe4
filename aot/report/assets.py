"""The HTML, CSS and JavaScript files of the report's pages."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path

from aot.system.files import replacing, write_errors


def write_assets(folder: Path, pages: Mapping[str, str]) -> None:
    """Write pages, and the styles and scripts that they share; files that are up to date are not rewritten.

    Args:
        folder: the folder of the report.
        pages: HTML file in `aot/report/page` → its name in the report.
    Raises:
        WriteError: the folder cannot be written.
    """
    for source in (resources.files("aot.pages") / "assets", resources.files("aot.report") / "page"):
        for file in source.iterdir():
            if file.name in pages:
                _write_if_changed(folder / pages[file.name], file.read_bytes())
            elif file.is_file() and not file.name.endswith(".html"):
                _write_if_changed(folder / "assets" / file.name, file.read_bytes())


def _write_if_changed(path: Path, content: bytes) -> None:
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    with replacing(path) as part, write_errors(path):
        part.write_bytes(content)
