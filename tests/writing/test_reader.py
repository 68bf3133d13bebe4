"""Damaged files raise ResultError with their path."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from aot.errors import ResultError
from aot.writing.reader import MaskReader, check_contents, check_file, load, read_attributes
from tests.writing.test_hdf5 import block, write


@pytest.mark.parametrize("damage", ["missing", "text", "truncated", "no_tracks", "wrong_shape", "other_schema"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.h5"
    write(path, [block([0, 3, 6, 9], [2, 7])])
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("not HDF5")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with h5py.File(path, "a") as file:
            if damage == "no_tracks":
                del file["tracks"]
            elif damage == "wrong_shape":
                del file["tracks/in_mask"]
                file["tracks/in_mask"] = np.zeros((2, 2), dtype=np.bool_)
            else:
                file.attrs["schema"] = "aot/99"
    with pytest.raises(ResultError, match=r"a\.h5"):
        check_file(path)


def damage_last_mask(path: Path) -> None:
    """Overwrite the compressed chunk of the last frame's last object."""
    with h5py.File(path) as file:
        chunk = file["masks/data"].id.get_chunk_info(7)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 8] = b"\xff" * 8
    path.write_bytes(content)


def test_a_damaged_mask_is_a_result_error(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write(path, [block([0, 3, 6, 9], [2, 7])])
    damage_last_mask(path)
    with pytest.raises(ResultError, match=r"a\.h5: masks/data cannot be read"):
        check_contents(path)
    with MaskReader(path) as masks:
        assert masks.row(2) is not None
        with pytest.raises(ResultError, match=r"a\.h5 cannot be read as a result"):
            masks.row(3)
        with pytest.raises(ResultError, match=r"a\.h5 cannot be read as a result"):
            list(masks)


@pytest.mark.parametrize("read", [load, MaskReader, read_attributes])
def test_a_missing_file_is_a_result_error(tmp_path: Path, read: type[MaskReader]) -> None:
    with pytest.raises(ResultError, match=r"a\.h5 cannot be read as a result .*expected clips/<clip_id>\.h5"):
        read(tmp_path / "a.h5")
