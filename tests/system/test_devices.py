"""Which device an option means, and what results say of it."""

from __future__ import annotations

import pytest
import torch

from aot.errors import ConfigError
from aot.system.devices import choose_device, describe_device, devices_of


class OnGpu:
    device_name = "cuda:1 NVIDIA H100"


def test_the_option_decides() -> None:
    assert choose_device("cpu", option="segmenter.device") == torch.device("cpu")
    assert describe_device(torch.device("cpu")) == "cpu"


def test_auto_takes_what_there_is() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto", option="tracker.device").type == expected


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a Metal GPU")
def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"tracker\.device=mps: .* there are: .*cpu; tracker\.device=auto"):
        choose_device("mps", option="tracker.device")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_named_with_its_number() -> None:
    expected = f"cuda:{torch.cuda.current_device()} {torch.cuda.get_device_name()}"
    assert describe_device(choose_device("cuda", option="segmenter.device")) == expected


def test_parts_that_agree_are_named_once() -> None:
    assert devices_of({"segmenter": object(), "tracker": object()}) == "cpu"
    assert devices_of({"segmenter": OnGpu(), "tracker": OnGpu()}) == "cuda:1 NVIDIA H100"
    assert devices_of({"segmenter": OnGpu(), "tracker": object()}) == "segmenter cuda:1 NVIDIA H100, tracker cpu"
