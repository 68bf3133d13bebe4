"""Loading of released weights into the network.

Keys and shapes are those of `tapnextpp_ckpt.pt`, `tapnextpp_512.ckpt` and `bootstapnext.pth`, which hold the same
network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from aot.checkpoints import identify, read_state_dict
from aot.errors import CheckpointError, ConfigError
from aot.system.devices import release_memory
from aot.tracking.tapnext.model import TAPNext
from aot.tracking.tapnext.sizes import PATCH, Precision, PrecisionOption, Sizes, VisibilityRule
from aot.tracking.tapnext.weights import WeightReader

# The published file whose points are visible by another rule than those of the others.
_RULE_OF: dict[str, VisibilityRule] = {"bootstapnext": "certainty"}
_PREFIX = "tapnext."


@torch.inference_mode()
def load_model(
    checkpoint: str | Path | Mapping[str, Any],
    *,
    image_size: int = 256,
    num_heads: int = 12,
    input_resolution: int = 256,
    device: str | torch.device = "cpu",
    precision: PrecisionOption = "auto",
    visibility_rule: VisibilityRule | None = None,
    compile: bool = False,
) -> TAPNext:
    """Build the network and load released weights; its other sizes are read off their shapes.

    Args:
        checkpoint: a file, or its content: a state dict, directly or under the key `state_dict`.
        image_size: px of a side of the square in which the network was trained to locate queries.
        num_heads: of the attention.
        input_resolution: px of a side to which frames are resized; a multiple of 8.
        device: where the network runs.
        precision: of linear layers and attention; the recurrent state is always float32. auto: bf16 on a GPU that
            computes it, fp32 elsewhere.
        visibility_rule: when a point is visible; None: as published for the file, "head" for other weights.
        compile: compile the blocks with torch.compile on first use, which takes minutes.
    Raises:
        CheckpointError: the checkpoint cannot be read, or holds the weights of another network.
        ConfigError: an unknown precision, or a size that does not fit.
    """
    _check_choice("precision", precision, get_args(PrecisionOption))
    if input_resolution < PATCH or input_resolution % PATCH:
        raise ConfigError(f"input_resolution: got {input_resolution}, expected a multiple of {PATCH}")
    for key, value in (("image_size", image_size), ("num_heads", num_heads)):
        if value < 1:
            raise ConfigError(f"{key}: got {value}, expected an integer of at least 1")
    device = torch.device(device)
    state, name = _state_dict(checkpoint), _named(checkpoint)
    reader = WeightReader(state, name)
    sizes = Sizes(*_shape_sizes(state, name), num_heads, _recurrent_width(state, name), image_size, input_resolution)
    if sizes.width % num_heads:
        raise ConfigError(f"num_heads: got {num_heads}, expected a divisor of the width {sizes.width} of {name}")
    rule = visibility_rule or _published_rule(checkpoint)
    _check_choice("visibility_rule", rule, get_args(VisibilityRule))
    model = TAPNext(reader, sizes, chosen_precision(precision, device), rule)
    reader.finish()
    del state, reader
    model.to(device)
    model.convert(packs=not compile)
    if compile:
        model.compile_parts()
    release_memory()  # of the file's content and of the weights that were folded and converted
    return model.eval()


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")


def chosen_precision(option: PrecisionOption, device: torch.device) -> Precision:
    """The precision that an option selects on a device."""
    if option != "auto":
        return option
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _state_dict(checkpoint: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Key → tensor, without the prefix that some files give to all keys."""
    loaded = checkpoint if isinstance(checkpoint, Mapping) else read_state_dict(Path(checkpoint), key="state_dict")
    inner = loaded.get("state_dict", loaded)
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise CheckpointError(
            f"{_named(checkpoint)} holds no state dict, neither at the top level nor under the key 'state_dict'"
        )
    return {key.removeprefix(_PREFIX): value for key, value in inner.items()}


def _shape_sizes(state: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Width and depth."""
    projection = state.get("lin_proj.weight")
    numbers = [int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))]
    if projection is None or not numbers:
        raise CheckpointError(
            f"{name} does not hold the weights of TAPNext (found: {', '.join(list(state)[:5]) or 'nothing'}); expected "
            f"tapnextpp_ckpt.pt, tapnextpp_512.ckpt or bootstapnext.pth"
        )
    return len(projection), 1 + max(numbers)


def _recurrent_width(state: Mapping[str, Tensor], name: str) -> int:
    key = "blocks.0.ssm_block.recurrent_block.rg_lru.a_param"
    if key not in state:
        raise CheckpointError(f"{name} does not hold the weights of TAPNext: {key} is missing")
    return len(state[key])


def _published_rule(checkpoint: str | Path | Mapping[str, Any]) -> VisibilityRule:
    published = None if isinstance(checkpoint, Mapping) else identify(Path(checkpoint)).checkpoint
    return _RULE_OF.get(published or "", "head")


def _named(checkpoint: str | Path | Mapping[str, Any]) -> str:
    return "the state dict" if isinstance(checkpoint, Mapping) else str(checkpoint)
