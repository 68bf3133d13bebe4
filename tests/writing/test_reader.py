"""Damaged files raise ResultError with their path."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from aot.errors import ResultError
from aot.writing.reader import MaskReader, check_contents, check_file, load
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


def changed(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A result with other values in a dataset."""
    write(path, [block([0, 3, 6, 9], [2, 7])])
    with h5py.File(path, "a") as file:
        values = change(file[name][()])
        del file[name]
        file[name] = values
    return path


INVALID: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "a row beyond the last": ("masks/row", lambda rows: np.array([0, 1, 2, 4])),
    "a row before the first": ("masks/row", lambda rows: np.array([-1, 0, 1, 2])),
    "rows in another order": ("masks/row", lambda rows: rows[::-1]),
    "a row twice": ("masks/row", lambda rows: np.array([0, 1, 1, 2])),
    "object id 0": ("objects/id", lambda ids: np.array([0, 2], np.int32)),
    "an object twice": ("objects/id", lambda ids: np.array([2, 2], np.int32)),
    "equal frames": ("frames/index", lambda index: np.array([0, 3, 3, 9])),
    "equal times": ("frames/time", lambda time: np.array([0.2, 0.35, 0.35, 0.75])),
    "a point of another object": ("tracks/object_id", lambda ids: np.array([2, 2, 2, 2, 3], np.int32)),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_values_are_refused(tmp_path: Path, kind: str) -> None:
    name, change = INVALID[kind]
    with pytest.raises(ResultError, match=rf"a\.h5: {name}(, tracks/object_id)?: invalid values; expected ascending"):
        check_file(changed(tmp_path / "a.h5", name, change))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 2, 6, 8), "bool"), ((4, 1, 6, 8), "bool"), ((4, 2, 8, 6), "bool"), ((4, 2, 6, 9), "bool"),
     ((4, 2, 6, 8), "uint8")],
)  # fmt: skip
def test_masks_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    path = changed(tmp_path / "a.h5", "masks/data", lambda masks: np.zeros(shape, dtype))
    with pytest.raises(
        ResultError, match=rf"masks/data is {re.escape(str(shape))} {dtype}, expected \(4, 2, 6, 8\) bool"
    ):
        check_file(path)


@pytest.mark.parametrize("name", ["width", "height", "num_source_frames", "frame_interval_requested", "frame_interval"])
@pytest.mark.parametrize("value", [0, 1.5])
def test_attributes_that_are_not_sizes_are_refused(tmp_path: Path, name: str, value: float) -> None:
    path = tmp_path / "a.h5"
    write(path, [block([0, 3, 6, 9], [2, 7])])
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    with pytest.raises(ResultError, match=rf"{name} is {value}, expected an integer of at least 1"):
        check_file(path)


def test_masks_are_compressed(tmp_path: Path) -> None:
    """A video's masks are large areas: without compression, results would be a hundred times as large."""
    write(tmp_path / "a.h5", [block([0, 3, 6, 9], [2, 7])])
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("masks/data", "tracks/xy", "tracks/visible", "tracks/in_mask"):
            assert (file[name].compression, file[name].compression_opts) == ("gzip", 1), name


@pytest.mark.parametrize("read", [load, MaskReader, check_file, check_contents])
def test_locked_files_can_be_read(
    tmp_path: Path, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks of network file systems may stay after a process has died, or may not work at all."""
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    path = tmp_path / "a.h5"
    write(path, [block([0, 3, 6, 9], [2, 7])])
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="lock"):
            h5py.File(path, "r", locking=True)
        result = read(path)
        if isinstance(result, MaskReader):
            result.__exit__()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cannot be read: no such file or folder; expected clips/<clip_id>.h5 of a run folder": Path.unlink,
    "is an empty file; expected clips/<clip_id>.h5 of a run folder": lambda path: path.write_bytes(b""),
    "is not an HDF5 file; expected clips/<clip_id>.h5 of a run folder": lambda path: path.write_text("a text"),
    "cannot be read: it is damaged or cut off; expected": lambda path: path.write_bytes(path.read_bytes()[:3000]),
    "cannot be read: it is a folder, not a file; expected": lambda path: (path.unlink(), path.mkdir()),
    "cannot be read as a result: it lacks datasets or attributes of a result": lambda path: h5py.File(
        path, "w"
    ).close(),
}


@pytest.mark.parametrize("message", DAMAGES)
@pytest.mark.parametrize("read", [load, MaskReader, check_file])
def test_unreadable_files_are_described_without_words_of_the_library(
    tmp_path: Path, message: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.h5"
    write(path, [block([0, 3, 6, 9], [2, 7])])
    DAMAGES[message](path)
    with pytest.raises(ResultError) as caught:
        read(path)
    shown = str(caught.value)
    is_checked = read is check_file and "lacks datasets" in message
    assert shown.startswith(f"{path}: the attributes attempts, clip_id" if is_checked else f"{path} {message}")
    assert not re.search("Errno|errno|Unable|Can't|synchronously|signature", shown)


def test_a_missing_result_suggests_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path / "teapot.h5", [block([0, 3, 6, 9], [2, 7])])
    with pytest.raises(ResultError, match=rf"did you mean {tmp_path / 'teapot.h5'}\?$"):
        load(tmp_path / "teapod.h5")


def test_result_that_needs_more_memory_than_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    write(path, [block([0, 3, 6, 9], [2, 7])])

    def run_out(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(h5py.Dataset, "__getitem__", run_out)
    with pytest.raises(ResultError, match="it needs more memory than is free"):
        load(path)


@pytest.mark.parametrize(
    "prompts",
    [
        {}, [1], [{}], [{"frame": "0"}], [{"frame": 0}, {"frame": None}], [{"frame": 0}, {"frame": float("nan")}],
        [{"frame": 0, "query_points": [[]]}], [{"frame": 0, "query_points": [3]}],
        [{"frame": 0, "query_points": [[0, 1, 1], ["1", 1, 1]]}],
    ],
)  # fmt: skip
def test_prompts_without_frames_are_refused(tmp_path: Path, prompts: object) -> None:
    path = tmp_path / "a.h5"
    write(path, [block([0, 3, 6, 9], [2, 7])])
    with h5py.File(path, "a") as file:
        file["objects/prompt"][1] = json.dumps(prompts)
    with pytest.raises(ResultError, match=r"objects/prompt: invalid values; .* and prompts with frames"):
        check_file(path)
