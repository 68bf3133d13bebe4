"""Choosing a device, and its name in results."""

from __future__ import annotations

import pytest
import torch

from aot.errors import ConfigError
from aot.system.devices import choose_device, describe_device, describe_devices


def test_device_option_selects_the_device() -> None:
    assert choose_device("cpu", option="segmenter.device") == torch.device("cpu")
    assert describe_device(torch.device("cpu")) == "cpu"


def test_auto_takes_the_best_available() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto", option="tracker.device").type == expected


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a Metal GPU")
def test_a_missing_device_is_refused_with_the_available_ones() -> None:
    with pytest.raises(ConfigError, match=r"tracker\.device=mps: .* available: .*cpu; tracker\.device=auto"):
        choose_device("mps", option="tracker.device")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_name_of_a_gpu_has_its_number() -> None:
    expected = f"cuda:{torch.cuda.current_device()} {torch.cuda.get_device_name()}"
    assert describe_device(choose_device("cuda", option="segmenter.device")) == expected


def test_equal_devices_are_named_once() -> None:
    gpu = "cuda:1 NVIDIA H100"
    assert describe_devices({"segmenter": "cpu", "tracker": "cpu"}) == "cpu"
    assert describe_devices({"segmenter": gpu, "tracker": gpu}) == gpu
    assert describe_devices({"segmenter": gpu, "tracker": "cpu"}) == "segmenter cuda:1 NVIDIA H100, tracker cpu"
