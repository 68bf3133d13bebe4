"""Loading of released weights into the network.

Keys and shapes are those of the released weights, `scaled_offline.pth` and `scaled_online.pth`; both hold the same
network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from aot.checkpoints import read_state_dict
from aot.errors import CheckpointError, ConfigError
from aot.system.devices import release_memory
from aot.tracking.cotracker3.features import layout
from aot.tracking.cotracker3.model import DTYPES, CoTracker3, check_resolution
from aot.tracking.cotracker3.sizes import RESOLUTION, WINDOW_LEN, Mode, Precision

# Characters of PyTorch's message about keys and shapes that an error quotes.
MAX_MESSAGE = 600


def load_model(
    checkpoint: str | Path | Mapping[str, Any],
    *,
    mode: Mode = "offline",
    window_len: int | None = None,
    resolution: tuple[int, int] = RESOLUTION,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    compile: bool = False,
) -> CoTracker3:
    """Build the network and load released weights.

    Args:
        checkpoint: a file, or its content: a state dict, directly or under the key `model`.
        mode: which of the two released models the weights are from.
        window_len: length of the time embedding in frames; None: the released model's, 60 offline, 16 online.
        resolution: (H, W) in px to which frames are resized before tracking.
        device: where the network runs.
        precision: of weights and activations; fp32 is exact (TF32 is off).
        compile: compile the network with torch.compile on first use, which takes minutes.
    Raises:
        CheckpointError: the checkpoint cannot be read, or holds the weights of another network.
        ConfigError: an unknown mode or precision, or a resolution that is too small.
    """
    _check_choice("mode", mode, get_args(Mode))
    _check_choice("precision", precision, get_args(Precision))
    check_resolution(resolution)
    state = _state_dict(checkpoint)
    model = CoTracker3(mode=mode, window_len=window_len or WINDOW_LEN[mode], resolution=resolution, precision=precision)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as exc:
        raise CheckpointError(
            f"{_named(checkpoint)} does not hold the weights of CoTracker3 {mode}; expected the released "
            f"scaled_{mode}.pth: {_shortened(str(exc))}"
        ) from exc
    del state
    model.fold()
    for name, layer in model.named_modules():
        # Layer norms, and the heads, whose updates are summed over the iterations, stay float32.
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and not name.endswith("_head"):
            layer.to(DTYPES[precision])
    model.to(device=device)
    model.fnet.to(memory_format=layout(model.device))
    if compile:
        model.compile_parts()
    else:  # the compiler makes kernels from plain weights
        model.pack()
    release_memory()  # of the file's content and of the weights that were folded and converted
    return model.eval().requires_grad_(False)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")


def _state_dict(checkpoint: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(checkpoint, Mapping):
        return read_state_dict(Path(checkpoint))
    inner = checkpoint.get("model")
    return inner if isinstance(inner, Mapping) else checkpoint


def _named(checkpoint: str | Path | Mapping[str, Any]) -> str:
    return "the state dict" if isinstance(checkpoint, Mapping) else str(checkpoint)


def _shortened(message: str) -> str:
    """The beginning of PyTorch's message, which may list pages of missing keys."""
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
