"""SAM 2.1 with random weights, and the official predictors for comparison."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import initialize_config_module
from PIL import Image

from aot.segmentation.sam2.model import CONFIGS, import_sam2
from aot.types import Prompt, UInt8Array

LOGITS = dict[tuple[int, int], "torch.Tensor"]
"""(H, W) by (frame, object id)."""


def save_random_weights(path: Path, size: str = "tiny", image_size: int = 128, scale: float = 3) -> Path:
    """Weights whose masks are neither empty nor full and change from frame to frame, with objects that come and go.

    With their initial values, the layers give nearly the same logits for any input.

    Args:
        path: the file to write.
        size: of the model.
        image_size: side in px of its image.
        scale: factor of the initial values. With 3, rounding errors of 1e-5 grow to 1e-3 within a few frames, as they
            change which of two bfloat16 numbers a memory is rounded to; with 2 they stay below 1e-4.
    """
    torch.manual_seed(0)
    model = stock_video_predictor(None, size, image_size)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and any(part in name for part in ("sam_", "memory", "obj_ptr")):
                parameter.mul_(scale)
        score = model.sam_mask_decoder.pred_obj_score_head.layers[-1]
        score.weight.mul_(8)
        score.bias.fill_(4)
    torch.save({"model": model.state_dict()}, path)
    return path


def stock_video_predictor(weights: Path | None, size: str = "tiny", image_size: int = 128) -> Any:
    builder = import_sam2("sam2.build_sam")
    with initialize_config_module("sam2", version_base="1.2"):
        return builder.build_sam2_video_predictor(
            CONFIGS[size], weights, device="cpu", hydra_overrides_extra=[f"++model.image_size={image_size}"]
        )


def remember_features(model: Any) -> None:
    """Let a model encode equal images once: the encoder takes a third of the time of the tests of SAM 2."""
    encode = model.forward_image
    known: dict[bytes, dict[str, Any]] = {}

    def remembered(image: torch.Tensor) -> dict[str, Any]:
        key = image.numpy().tobytes()
        if key not in known:
            known[key] = encode(image)
        return {name: list(value) if isinstance(value, list) else value for name, value in known[key].items()}

    model.forward_image = remembered


def stock_image_predictor(weights: Path, size: str = "tiny", image_size: int = 128) -> Any:
    builder = import_sam2("sam2.build_sam")
    with initialize_config_module("sam2", version_base="1.2"):
        model = builder.build_sam2(
            CONFIGS[size], weights, device="cpu", hydra_overrides_extra=[f"++model.image_size={image_size}"]
        )
    with stock_warnings():
        predictor = import_sam2("sam2.sam2_image_predictor").SAM2ImagePredictor(model)
    # The official predictor assumes 1024 px.
    predictor._bb_feat_sizes = [(image_size // stride,) * 2 for stride in (4, 8, 16)]
    return predictor


def stock_propagation(
    predictor: Any, folder: Path, rgb: UInt8Array, prompts: Sequence[Prompt]
) -> tuple[LOGITS, dict[tuple[int, int], float]]:
    """All prompts, then forwards, then backwards, as in the library's notebook; a later pass overwrites.

    Returns:
        Logits, and the probability that the object is seen.
    """
    folder.mkdir()
    for number, image in enumerate(rgb):
        # The official loader requires names of JPEG files, but detects the format by the content.
        Image.fromarray(image).save(folder / f"{number:05d}.jpg", format="PNG")
    logits: LOGITS = {}
    with stock_warnings():
        state = predictor.init_state(str(folder))
        for prompt in prompts:
            if isinstance(prompt.mask, np.ndarray):
                predictor.add_new_mask(state, prompt.frame, prompt.object_id, prompt.mask)
                continue
            points = np.array(prompt.points, np.float32) if prompt.points else None
            labels = np.array(prompt.labels, np.int32) if prompt.points else None
            predictor.add_new_points_or_box(
                state, prompt.frame, prompt.object_id, points=points, labels=labels, box=prompt.box
            )
        for reverse in (False, True):
            for row, object_ids, masks in predictor.propagate_in_video(state, reverse=reverse):
                logits |= {(row, object_id): mask[0].clone() for object_id, mask in zip(object_ids, masks)}
    scores = {}
    for frame, object_id in logits:
        found = state["output_dict_per_obj"][state["obj_id_to_idx"][object_id]]
        output = found["cond_frame_outputs"].get(frame) or found["non_cond_frame_outputs"][frame]
        scores[frame, object_id] = output["object_score_logits"].sigmoid().item()
    return logits, scores


@contextmanager
def stock_warnings() -> Iterator[None]:
    """Ignore the official predictor's warnings: no CUDA extension, and TorchScript, which torch deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s)cannot import name '_C'.*")
        for category in (DeprecationWarning, FutureWarning):  # the category depends on torch's version
            warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=category)
        yield
