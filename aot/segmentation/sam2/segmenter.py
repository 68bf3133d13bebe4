"""The adapter: prompts and frames in, SAM 2's masks out.

    propagate=True     all prompts ─> video predictor: forwards from the first prompt, then backwards from it
    propagate=False    each prompt frame ─> image predictor

Source: SAM 2, arXiv:2408.00714; the library is facebookresearch/sam2 in the wheel `rf-sam-2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aot.checkpoints import Weights, identify, require_checkpoint
from aot.decoding.base import FrameSource
from aot.segmentation.base import FrameSession, OnObjectError, better_prompt
from aot.segmentation.sam2.model import OUT_OF_MEMORY, build_model, import_sam2
from aot.system.devices import DeviceOption, choose_device, describe_device, tf32, torch_memory_errors
from aot.system.memory import available_device_bytes
from aot.types import BoolArray, Float32Array, MaskBlock, Prompt, UInt8Array

if TYPE_CHECKING:
    import torch

    from aot.segmentation.sam2.leaving import LeavingBlock
    from aot.segmentation.sam2.streaming import StreamingPredictor

# Side in px of the images on which the weights were trained.
_TRAINED_SIZE = 1024
# TF32 requires compute capability 8 (Ampere).
_TF32_CAPABILITY = 8
# A mask prompt as logits, as the video predictor converts it: 0 and 1 become −10 and 10.
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
# The image predictor takes mask logits at a quarter of the model's image size.
_LOGITS_STRIDE = 4
# The strides of the encoder's three feature maps.
_FEATURE_STRIDES = (4, 8, 16)


class Sam2Segmenter:
    """Segments prompted objects with SAM 2.1.

    With `propagate` the masks are those of the stock `SAM2VideoPredictor` that receives all prompts first and then
    propagates forwards and backwards from the earliest one; the score is the probability that the object is visible.
    Without it they are those of `SAM2ImagePredictor` on the prompt frames (`multimask_output=False`), and the score is
    the model's estimate of the mask quality. Masks of different objects may overlap.

    Args:
        size: model size.
        checkpoint: file of the weights; None: `sam2.1_hiera_<size>.pt`.
        propagate: True: masks on all kept frames; False: masks on the prompt frames only.
        precision: bf16 uses autocast as SAM 2's authors do, on CUDA with TF32 for the rest; auto is bf16 on CUDA
            and fp32 elsewhere.
        device: auto selects CUDA, then MPS, then the CPU.
        batch_objects: track objects with prompts on the same frames in one pass of the model, at most 16 and as many as
            the free memory allows; auto: on CUDA. Changes results by rounding only.
        compile: compile the model with torch.compile on first use: takes minutes, then faster frames on CUDA.
        image_size: side in px to which frames are scaled for the model; the weights were trained at 1024.

    Raises:
        CheckpointError: the weights are missing.
    """

    def __init__(
        self,
        size: Literal["tiny", "small", "base_plus", "large"] = "large",
        checkpoint: Path | None = None,
        propagate: bool = True,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        device: DeviceOption = "auto",
        batch_objects: Literal["auto"] | bool = "auto",
        compile: bool = False,
        image_size: Literal[128, 256, 512, 1024] = 1024,
    ) -> None:
        self.size = size
        self.checkpoint = require_checkpoint(
            f"sam2.1_hiera_{size}", checkpoint, option="segmenter.checkpoint", without="segmenter=grabcut"
        )
        self.propagate = propagate
        self.precision = precision
        self.device = device
        self.batch_objects = batch_objects
        self.compile = compile
        self.image_size = image_size
        self._model: StreamingPredictor | None = None

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The weights in use, as results record them."""
        return (identify(self.checkpoint),)

    @property
    def device_name(self) -> str:
        """The device in use, as results record it."""
        return describe_device(choose_device(self.device, option="segmenter.device"))

    @property
    def precision_name(self) -> str:
        """The precision in use, as results record it."""
        return "bf16" if self._autocasts(choose_device(self.device, option="segmenter.device")) else "fp32"

    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        """Yield one frame's masks at a time; with `propagate` forwards, then backwards from the first prompt.

        The frame of the first prompt belongs to both passes. As in the stock sequence the later pass wins: an object
        that is not prompted on that frame gets the backward pass's mask there.
        """
        if not prompts:
            return
        with torch_memory_errors(*OUT_OF_MEMORY):
            model = self._loaded()
        segment = self._propagate if self.propagate else self._segment_prompt_frames
        blocks = segment(model, frames, prompts)
        while True:
            # Neither precision nor error mapping may apply to what the caller does between two blocks.
            with torch_memory_errors(*OUT_OF_MEMORY):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def _propagate(
        self, model: StreamingPredictor, frames: FrameSource, prompts: Sequence[Prompt]
    ) -> Iterator[MaskBlock]:
        from aot.segmentation.sam2.leaving import leave

        state = model.new_state(frames)
        rows = dict(zip((p.frame for p in prompts), frames.rows([p.frame for p in prompts]).tolist()))
        # The first prompt's row last: its features are cached when the pass starts there.
        for frame in sorted(rows, reverse=True):
            with self._precision(model):
                for prompt in prompts:
                    if prompt.frame == frame:
                        _add_prompt(model, state, rows[frame], prompt)
                # While the row's features are cached, which its memories are encoded from.
                model.propagate_in_video_preflight(state)
        groups = model.take_objects(state, self._objects_at_once(model))
        start = min(rows.values())
        forwards, backwards = range(start, len(frames.index)), range(start, -1, -1) if start > 0 else range(0)
        for order in (forwards, backwards):
            is_reverse = order.step < 0
            later_start = start if backwards and not is_reverse else None
            # A row's masks are taken when the next row is in the queue of the device, so that it never waits.
            previous: LeavingBlock | None = None
            for row in state["images"].stream(order):
                with self._precision(model):
                    found = model.track_row(state, groups, row, reverse=is_reverse)
                    model.forget(groups, row, reverse=is_reverse, later_start=later_start)
                    leaving = None if row == later_start else leave(int(frames.index[row]), model, state, found)
                if previous is not None:
                    yield previous.arrived()
                previous = leaving
            if previous is not None:
                yield previous.arrived()

    def mask_advice(self, prompt: Prompt, height: int) -> str:
        """What to try if a prompt gave an empty mask; the height of the frame does not matter."""
        options = [better_prompt(prompt)]
        options += [f"use a model larger than segmenter.size={self.size}"] if self.size != "large" else []
        options += [f"raise segmenter.image_size={self.image_size}"] if self.image_size < _TRAINED_SIZE else []
        return ", ".join([*options, "or prompt another frame"])

    def open_frame(self, rgb: UInt8Array) -> FrameSession:
        """Encode a frame, (H, W, 3) RGB, for prompts that arrive one by one; the image predictor segments it.

        Raises:
            OutOfMemory: memory ran out.
        """
        with torch_memory_errors(*OUT_OF_MEMORY):
            return self._encode(self._loaded(), rgb)

    def _encode(self, model: StreamingPredictor, rgb: UInt8Array) -> _Sam2Frame:
        precision = partial(self._precision, model)
        predictor = _image_predictor(model)
        with precision():
            predictor.set_image(rgb)
        return _Sam2Frame(predictor, precision, model.image_size)

    def _segment_prompt_frames(
        self, model: StreamingPredictor, frames: FrameSource, prompts: Sequence[Prompt]
    ) -> Iterator[MaskBlock]:
        for frame in sorted({prompt.frame for prompt in prompts}):
            session = self._encode(model, frames.read([frame]).rgb[0])
            yield session.masks([prompt for prompt in prompts if prompt.frame == frame])

    def _loaded(self) -> StreamingPredictor:
        """The model, built on first use and kept for all clips."""
        if self._model is None:
            model = build_model(self.size, self.checkpoint, self.image_size, to_compile=self.compile)
            device = choose_device(self.device, option="segmenter.device")
            if not self._autocasts(device):
                model.cast_memories()
            model.to(device)
            model.compile_parts()
            self._model = model
        return self._model

    def _objects_at_once(self, model: StreamingPredictor) -> int:
        """Objects per group at most."""
        from aot.segmentation.sam2.objects import objects_that_fit

        batches = model.device.type == "cuda" if self.batch_objects == "auto" else self.batch_objects
        return objects_that_fit(self.image_size, available_device_bytes(str(model.device))) if batches else 1

    def _autocasts(self, device: torch.device) -> bool:
        return self.precision == "bf16" or (self.precision == "auto" and device.type == "cuda")

    @contextmanager
    def _precision(self, model: StreamingPredictor) -> Iterator[None]:
        """Apply inference mode, autocast and TF32 as configured; torch's global switches are restored afterwards."""
        import torch

        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self._autocasts(model.device):
                stack.enter_context(torch.autocast(model.device.type, dtype=torch.bfloat16))
                if _runs_tf32(model.device):
                    stack.enter_context(tf32(True))
            yield


class _Sam2Frame:
    """One encoded frame that is segmented prompt by prompt.

    Args:
        predictor: the image predictor, which holds the encoded frame.
        precision: enters the configured precision.
        image_size: side in px to which frames are scaled.
    """

    def __init__(self, predictor: Any, precision: Callable[[], AbstractContextManager[None]], image_size: int) -> None:
        self._predictor, self._precision, self._image_size = predictor, precision, image_size

    def masks(self, prompts: Sequence[Prompt]) -> MaskBlock:
        masks: dict[int, BoolArray] = {}
        scores: list[float] = []
        with torch_memory_errors(*OUT_OF_MEMORY), self._precision():
            for prompt in prompts:
                mask, quality, _ = self._predictor.predict(
                    point_coords=np.array(prompt.points, np.float32) if prompt.points else None,
                    point_labels=np.array(prompt.labels, np.int32) if prompt.points else None,
                    box=None if prompt.box is None else np.array(prompt.box, np.float32),
                    mask_input=_mask_logits(prompt.mask, self._image_size),
                    multimask_output=False,
                )
                masks[prompt.object_id] = mask[0] > 0
                scores.append(float(quality[0]))
        return MaskBlock(
            index=np.array([prompts[0].frame], np.int64),
            object_id=np.array(list(masks), np.int32),
            masks=np.stack(list(masks.values()))[np.newaxis],
            score=np.array([scores], np.float32),
        )


def _add_prompt(model: StreamingPredictor, state: dict[str, Any], row: int, prompt: Prompt) -> None:
    if isinstance(prompt.mask, np.ndarray):
        model.add_new_mask(state, row, prompt.object_id, prompt.mask)
        return
    model.add_new_points_or_box(
        state,
        row,
        prompt.object_id,
        points=list(prompt.points) or None,
        labels=list(prompt.labels) or None,
        box=prompt.box,
    )


def _image_predictor(model: StreamingPredictor) -> Any:
    # Its transforms give the same numbers without TorchScript, which torch has deprecated.
    predictor = import_sam2("sam2.sam2_image_predictor").SAM2ImagePredictor(model, disable_torch_jit=True)
    # The predictor hard-codes the sizes for 1024 px.
    predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in _FEATURE_STRIDES]
    return predictor


def _mask_logits(mask: object, image_size: int) -> Float32Array | None:
    """(1, S/4, S/4) logits of a mask prompt for the image predictor, computed as the video predictor does."""
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"mask prompt: got {type(mask).__name__}, expected an array (mask files are read beforehand)")
    import torch
    from torch.nn.functional import interpolate

    def scaled(image: torch.Tensor, side: int) -> torch.Tensor:
        return interpolate(image, size=(side, side), mode="bilinear", align_corners=False, antialias=True)

    binary = (scaled(torch.from_numpy(mask)[None, None].float(), image_size) >= 0.5).float()
    return np.asarray(scaled(binary * _MASK_SCALE + _MASK_BIAS, image_size // _LOGITS_STRIDE)[0], np.float32)


def _runs_tf32(device: torch.device) -> bool:
    import torch

    return device.type == "cuda" and torch.cuda.get_device_properties(device).major >= _TF32_CAPABILITY
