"""Frames as inputs of SAM 2: equal to the stock loader's, and prepared beside the model."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.utils.misc import load_video_frames

from aot.segmentation.sam2 import inputs
from aot.segmentation.sam2.inputs import EncoderInputs, normalized, normalized_on_cpu
from tests.fakes import ArraySource

CPU = torch.device("cpu")
SIZE = 128


def all_bytes() -> np.ndarray:
    """(S, S, 3): every value in every channel."""
    return np.random.default_rng(0).permuted(
        np.tile(np.arange(256, dtype=np.uint8), SIZE * SIZE // 256 * 3).reshape(3, -1), axis=1
    ).T.reshape(SIZE, SIZE, 3).copy()  # fmt: skip


@pytest.fixture
def stock(tmp_path: Path) -> Any:
    """The stock loader's input of an image."""

    def load(rgb: np.ndarray, image_size: int) -> torch.Tensor:
        # PIL recognises PNG by its content: the pixels are not changed by JPEG.
        Image.fromarray(rgb).save(tmp_path / "0.png")
        (tmp_path / "0.png").rename(tmp_path / "0.jpg")
        images, _, _ = load_video_frames(str(tmp_path), image_size, True, compute_device=CPU)
        return images[0]

    return load


def test_every_byte_of_every_channel_is_that_of_the_stock_loader(stock: Any) -> None:
    rgb = all_bytes()
    assert (np.sort(rgb[..., 1], axis=None)[:: SIZE * SIZE // 256] == np.arange(256)).all()
    expected = stock(rgb, SIZE)
    assert torch.equal(normalized_on_cpu(rgb), expected)
    assert torch.equal(normalized(torch.from_numpy(rgb)), expected), "as on a GPU"


@pytest.mark.parametrize("shape", [(48, 64), (300, 200), (128, 128), (7, 500)])
def test_frames_are_scaled_like_the_stock_loader(stock: Any, shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    encoder_inputs = EncoderInputs(ArraySource(rgb), SIZE, CPU)
    assert len(encoder_inputs) == 2
    for row in (1, 0):
        assert torch.equal(encoder_inputs[row], stock(rgb[row], SIZE))


def test_rows_are_streamed_in_both_directions(stock: Any) -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (5, 30, 40, 3), dtype=np.uint8)
    source = ArraySource(rgb)
    encoder_inputs = EncoderInputs(source, SIZE, CPU)
    for rows in (range(1, 5), range(3, -1, -1), range(2, 3)):
        seen = []
        for row in encoder_inputs.stream(rows):
            seen.append(row)
            assert torch.equal(encoder_inputs[row], stock(rgb[row], SIZE))
        assert seen == list(rows)


def test_the_next_frame_is_prepared_while_one_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[int] = []
    at_least = [threading.Event() for _ in range(4)]
    normalize = normalized_on_cpu

    def note(scaled: np.ndarray) -> torch.Tensor:
        at_least[len(prepared)].set()
        prepared.append(threading.get_ident())
        return normalize(scaled)

    monkeypatch.setattr(inputs, "normalized_on_cpu", note)
    rgb = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    for row in EncoderInputs(ArraySource(rgb), SIZE, CPU).stream(range(4)):
        if row < 3:
            assert at_least[row + 1].wait(60), "the next one"
        assert len(prepared) <= row + 2, "no more than the next one"
    assert threading.get_ident() not in prepared
