"""Building SAM 2's model from its configuration and weights."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from aot.checkpoints import read_state_dict
from aot.errors import CheckpointError
from aot.system.devices import release_memory

if TYPE_CHECKING:
    from torch import nn

    from aot.segmentation.sam2.streaming import StreamingPredictor

CONFIGS = {
    "tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
"""Configuration files inside the package `sam2`, by model size."""

OUT_OF_MEMORY = ("SAM 2", "use a smaller segmenter.size, or fewer objects per clip")
"""Model name and advice for out-of-memory messages."""

_PREDICTOR = "aot.segmentation.sam2.streaming.StreamingPredictor"
_COMPILED_PREDICTOR = "aot.segmentation.sam2.compiled.CompiledPredictor"

# What `sam2.build_sam.build_sam2_video_predictor` sets with apply_postprocessing=True, its default. It also sets
# fill_hole_area=8, which without SAM 2's CUDA extension only warns on every frame.
POSTPROCESSING = {
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": True,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
    "binarize_mask_from_pts_for_mem_enc": True,
}
FILL_HOLE_AREA = 8

_MAX_LISTED_KEYS = 5
_import_lock = Lock()


def import_sam2(module: str) -> Any:
    """Import a module of `sam2`, or one of ours that imports it, without changing Hydra's global state.

    On import `sam2` initializes Hydra for itself unless Hydra is initialized already: from then on composing would
    search its package for our options, and `hydra.main` would refuse to start. So Hydra is marked as initialized
    during the import.
    """
    with _import_lock:
        hydra = GlobalHydra.instance()
        if hydra.is_initialized():
            return importlib.import_module(module)
        hydra.hydra = cast(Any, "sam2 is being imported")
        try:
            return importlib.import_module(module)
        finally:
            hydra.clear()


def model_config(size: str, image_size: int) -> Any:
    """The configuration that `build_sam2_video_predictor` composes, except for the class and `fill_hole_area`.

    Read without Hydra, whose global state belongs to the run.

    Args:
        size: a key of CONFIGS.
        image_size: side in px to which frames are scaled.
    """
    text = resources.files(import_sam2("sam2")).joinpath(CONFIGS[size]).read_text(encoding="utf-8")
    config = OmegaConf.create(text)
    overrides = POSTPROCESSING | {"_target_": _PREDICTOR, "image_size": image_size}
    overrides["fill_hole_area"] = FILL_HOLE_AREA if _has_extension() else 0
    for key, value in overrides.items():
        OmegaConf.update(config, f"model.{key}", value, force_add=True)
    OmegaConf.resolve(config)
    return config.model


def build_model(size: str, checkpoint: Path, image_size: int, *, to_compile: bool = False) -> StreamingPredictor:
    """Build the video predictor and load its weights, on the CPU.

    Args:
        size: a key of CONFIGS.
        checkpoint: file of the weights.
        image_size: side in px to which frames are scaled.
        to_compile: build a CompiledPredictor.
    Raises:
        CheckpointError: the file is damaged or holds other weights.
    """
    config = model_config(size, image_size)
    if to_compile:
        config._target_ = _COMPILED_PREDICTOR
    import_sam2(config._target_.rpartition(".")[0])
    model: StreamingPredictor = instantiate(config, _recursive_=True)
    load_weights(model, checkpoint, CONFIGS[size])
    release_memory()  # of the file's content
    model.eval()
    return model


def load_weights(model: nn.Module, checkpoint: Path, config: str) -> None:
    """Load a state dict, at the top level of the file or under `model`, whose keys and shapes match the model exactly.

    Args:
        model: receives the weights.
        checkpoint: the file.
        config: the model's configuration file, for the error message.
    Raises:
        CheckpointError: it holds no weights, or those of another model; lists the first keys or shapes that differ.
    """
    weights = read_state_dict(checkpoint)
    wanted = model.state_dict()
    shapes = [
        f"{key} is {tuple(weights[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in weights and weights[key].shape != wanted[key].shape
    ]
    differences = {
        "missing": [key for key in wanted if key not in weights],
        "unexpected": [key for key in weights if key not in wanted],
        "of another shape": shapes,
    }
    listed = [f"{len(keys)} {what}: {_first(keys)}" for what, keys in differences.items() if keys]
    if listed:
        raise CheckpointError(
            f"{checkpoint} does not fit {config}: {'; '.join(listed)}; set segmenter.size to the size of these weights"
        )
    model.load_state_dict(weights, strict=True)


def _has_extension() -> bool:
    """Whether SAM 2's CUDA extension, which fills small holes, is installed; the wheel does not include it."""
    return importlib.util.find_spec("sam2._C") is not None


def _first(keys: Any) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:_MAX_LISTED_KEYS]) + (", …" if len(names) > _MAX_LISTED_KEYS else "")
