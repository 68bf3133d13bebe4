"""Windows of tracks for learning."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import aot
from aot.errors import ConfigError
from aot.runs import windows
from aot.runs.batches import batch_of
from aot.runs.windows import WindowDataset
from aot.types import Clip, Prompt
from aot.writing import reader
from tests.results import write_result
from tests.synthetic import moving_square, write_video

HEIGHT, WIDTH, NUM_FRAMES = 64, 96, 8


def write_run(root: Path, clip_ids: list[str], num_points: int = 5, num_frames: int = NUM_FRAMES) -> Path:
    """A run folder whose clips' points move by 2 px per frame; point 0 is never visible, point 1 until frame 3."""
    (root / "clips").mkdir(parents=True)
    (root / "run.json").write_text("{}")
    start = np.stack([10 + np.arange(num_points), 20 + np.arange(num_points)], axis=1)
    xy = start[None] + np.arange(num_frames)[:, None, None] * [2, 0]
    visible = np.ones((num_frames, num_points), dtype=np.bool_)
    visible[:, 0], visible[4:, 1] = False, False
    masks = np.zeros((num_frames, 1, HEIGHT, WIDTH), dtype=np.bool_)
    masks[:, 0, 20:40, 8:28] = True
    for clip_id in clip_ids:
        video = root.parent / "clip.mp4"
        write_result(
            root / "clips" / f"{clip_id}.h5",
            masks=masks,
            queries=[(0, x, y, 1) for x, y in start],
            xy=xy,
            visible=visible,
            clip=Clip(clip_id, video, (Prompt(1, 0, box=(8, 20, 28, 40)),)),
        )
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", moving_square(NUM_FRAMES))
    return write_run(tmp_path / "run", ["a", "b"])


def test_window_has_points_and_their_next_positions(run: Path) -> None:
    found = aot.windows(run, points=4, horizon=3)
    assert len(found) == 2 * (NUM_FRAMES - 1)
    item = found[9]  # frame 2 of the second clip
    assert (item["clip_id"], item["frame"], item["num_steps"]) == ("b", 2, 3)
    assert item["points"].shape == (4, 2)
    assert item["points_valid"].all(), "point 0 is not visible, and the four others are"
    moved = item["future"] - item["points"]
    assert torch.equal(moved, torch.tensor([[2.0, 0], [4, 0], [6, 0]])[:, None].expand(3, 4, 2))
    lost = item["points"][:, 1] == 21
    assert item["valid"][:, lost].flatten().tolist() == [True, False, False]
    assert item["valid"][:, ~lost].all()


def test_last_windows_repeat_the_last_position_and_are_not_valid(run: Path) -> None:
    item = aot.windows(run, points=4, horizon=5)[NUM_FRAMES - 2]
    assert item["num_steps"] == 1
    assert torch.equal(item["future"][0].expand(5, 4, 2), item["future"])
    assert item["valid"].any(dim=1).tolist() == [True, False, False, False, False]


def test_points_are_repeated_and_the_same_for_the_same_seed(run: Path) -> None:
    found = [aot.windows(run, points=9, horizon=1, seed=seed)[3]["points"] for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert set(found[0][:, 1].tolist()) == {21, 22, 23, 24}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": (192, 64)}, lambda x, y: (2 * x + 0.5, y)),
        ({"normalise": True}, lambda x, y: ((x + 0.5) / WIDTH, (y + 0.5) / HEIGHT)),
        ({"normalise": True, "size": (192, 64)}, lambda x, y: ((x + 0.5) / WIDTH, (y + 0.5) / HEIGHT)),
    ],
)
def test_positions_refer_to_the_image(run: Path, options: dict, expected: object) -> None:  # type: ignore[type-arg]
    plain = aot.windows(run, points=4, horizon=1)[0]["points"]
    x, y = aot.windows(run, points=4, horizon=1, **options)[0]["points"].T
    wanted = expected(plain[:, 0], plain[:, 1])  # type: ignore[operator]
    torch.testing.assert_close(x, wanted[0])
    torch.testing.assert_close(y, wanted[1])


def test_images_and_masks_are_read_on_request(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = aot.windows(run, points=4, horizon=1, images=True, masks=True, size=(48, 32))[5]
    assert (item["image"].shape, item["image"].dtype) == ((3, 32, 48), torch.uint8)
    assert (item["masks"].shape, int(item["masks"].sum())) == ((1, HEIGHT, WIDTH), 400)
    monkeypatch.setattr(reader.MaskReader, "__init__", None)
    assert "masks" not in aot.windows(run, points=4, horizon=1)[5]


def test_stride_selection_and_workers(run: Path) -> None:
    results = aot.open_run(run)
    chosen = aot.windows(results.where(results["clip_id"] == "b"), points=4, horizon=2, stride=3)
    loader = DataLoader(chosen, batch_size=3, num_workers=2)
    (batch,) = list(loader)
    assert (batch["clip_id"], batch["frame"].tolist()) == (["b"] * 3, [0, 3, 6])
    assert batch["future"].shape == (3, 2, 4, 2)


def test_shuffled_windows_come_once_per_epoch_in_other_orders(run: Path) -> None:
    found = aot.windows(run, points=4, horizon=1)
    sampler, again = found.shuffled(seed=3), found.shuffled(seed=3)
    epochs = [list(sampler) for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(14))] * 2
    assert epochs[0] != epochs[1]
    assert [list(again) for _ in range(2)] == epochs
    assert list(found.shuffled(seed=4)) != epochs[0]
    loader = DataLoader(found, batch_size=7, sampler=found.shuffled())
    assert sum(len(batch["frame"]) for batch in loader) == len(loader.sampler) == 14  # type: ignore[arg-type]


def test_shuffled_windows_read_every_file_once_per_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds four of twelve clips, so that two are shuffled at a time."""
    run = write_run(tmp_path / "run", [f"c{number}" for number in range(12)])
    found = aot.windows(run, points=4, horizon=1)
    read: list[Path] = []
    monkeypatch.setattr(windows, "read_tracks", lambda path: read.append(path) or reader.read_tracks(path))
    monkeypatch.setattr(windows, "_CACHE_BYTES", 4 * reader.read_tracks(run / "clips" / "c0.h5").num_bytes)
    order = list(found.shuffled())
    for position in order:
        found[position]
    assert (len(read), len(set(read))) == (12, 12)
    assert all(len({position // 7 for position in order[start : start + 14]}) == 2 for start in range(0, 84, 14))


def test_loader_gives_the_batches_of_pytorch(run: Path) -> None:
    found = aot.windows(run, points=4, horizon=2)
    own = found.loader(4, shuffle=False)
    for batch, expected in zip(own, DataLoader(found, batch_size=4), strict=True):
        assert list(batch) == list(expected)
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert (batch[key].dtype, batch[key].is_contiguous()) == (value.dtype, True)
                assert torch.equal(batch[key], value), key
            else:
                assert batch[key] == value


def test_batch_of_a_worker_is_one_block_of_memory(run: Path) -> None:
    found = aot.windows(run, points=4, horizon=2, images=True, masks=True, size=(48, 32))
    batches = list(found.loader(6, workers=2, drop_last=True))
    assert [len(batch["clip_id"]) for batch in batches] == [6, 6]
    assert len({(batch["clip_id"][i], int(batch["frame"][i])) for batch in batches for i in range(6)}) == 12
    for batch in batches:
        tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
        assert len(tensors) == 9
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
        assert all(tensor.data_ptr() % 64 == 0 for tensor in tensors)


def test_tensors_of_different_shapes_are_listed() -> None:
    items = [{"mask": torch.ones(n, 2), "frame": n, "clip_id": "a"} for n in (1, 2)]
    batch = batch_of(items)
    assert [mask.shape for mask in batch["mask"]] == [(1, 2), (2, 2)]
    assert (batch["frame"].tolist(), batch["clip_id"]) == ([1, 2], ["a", "a"])


def test_a_run_without_windows_is_empty(run: Path) -> None:
    results = aot.open_run(run)
    found = aot.windows(results.where(results["num_points"] < 0))
    assert (len(found), list(found.shuffled())) == (0, [])


@pytest.mark.parametrize("name", ["points", "horizon", "stride"])
def test_numbers_below_one_are_refused(run: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"windows: {name}=0: expected 1 or more"):
        aot.windows(run, **{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [256, (256,), (0, 4), (2.5, 4)])
def test_sizes_other_than_pairs_are_refused(run: Path, size: object) -> None:
    with pytest.raises(ConfigError, match=r"windows: size=.*: expected \(width, height\) in px, such as"):
        aot.windows(run, size=size)  # type: ignore[arg-type]


def test_no_window_beyond_the_end(run: Path) -> None:
    found = aot.windows(run, points=4, horizon=1)
    with pytest.raises(IndexError, match="window 14 of 14"):
        found[14]


@pytest.mark.slow
def test_a_thousand_windows_per_second_on_one_core(tmp_path: Path) -> None:
    """From shuffled windows of many files, in processor time."""
    run = write_run(tmp_path / "run", [f"c{number}" for number in range(40)], num_points=500, num_frames=60)
    found = aot.windows(run)
    assert isinstance(found, WindowDataset)
    order = np.random.default_rng(0).permutation(len(found))
    start = time.process_time()
    for position in order.tolist():
        found[position]
    rate = len(found) / (time.process_time() - start)
    assert rate > 1000, f"{rate:.0f} windows per second"
