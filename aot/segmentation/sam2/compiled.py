"""SAM 2's video predictor with compiled parts: those of the stock `SAM2VideoPredictorVOS`, and what is between them.

    image encoder         once per frame
    memory attention      once per frame and batch; the number of memories varies
    heads                 prompt encoder, mask decoder, object pointer: only on rows without a prompt
    memory encoder        once per frame and batch

Rows with a prompt run the heads without compilation: every number of points would be compiled again, and the stock
class raises an error after eight of them.

Source: facebookresearch/sam2@2b90b9f, `SAM2VideoPredictorVOS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention

from aot.segmentation.sam2.streaming import StreamingPredictor
from aot.system.compilation import share_compiled_code

# Strides of the maps for which the model computes positions.
_STRIDES = (4, 8, 16, 32)


class CompiledPredictor(StreamingPredictor):
    """The streaming predictor, compiled on first use after `compile_parts`."""

    is_compiled = True

    def compile_parts(self) -> None:
        """Compile for the model's device; call it once the model is there."""
        share_compiled_code()
        self._compute_tables()
        # The rotary position encoding; PyTorch's own kernels compute it.
        warnings.filterwarnings(
            "ignore", message="Torchinductor does not support code generation for complex operators"
        )
        # CUDA graphs, which max-autotune records, are what removes the launches of small steps; the CPU has none.
        mode = "max-autotune" if self.device.type == "cuda" else None

        def compiled(function: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:
            return torch.compile(function, mode=mode, fullgraph=True, dynamic=dynamic)

        self.image_encoder.forward = compiled(self.image_encoder.forward, dynamic=False)
        self.memory_attention.forward = compiled(self.memory_attention.forward, dynamic=True)
        self.memory_encoder.forward = compiled(self.memory_encoder.forward, dynamic=False)
        self._tracking_heads = compiled(super()._forward_sam_heads, dynamic=False)

    @torch.inference_mode()
    def _compute_tables(self) -> None:
        """Compute all tables that the model computes on first use: a compiled part is compiled again if one changes."""
        sides = [self.image_size // stride for stride in _STRIDES]
        for module in self.modules():
            if isinstance(module, PositionEmbeddingSine):
                for side in sides:
                    module._pe(1, self.device, side, side)
            elif isinstance(module, RoPEAttention):
                side = self.sam_image_embedding_size
                module.freqs_cis = module.compute_cis(end_x=side, end_y=side).to(self.device)

    def forward_image(self, img_batch: torch.Tensor) -> dict[str, Any]:
        """Features of one image, copied: the next run of a CUDA graph overwrites its outputs."""
        # An image from another thread was not made in inference mode, which would be compiled separately.
        image = img_batch if img_batch.is_inference() else img_batch.clone()
        features: dict[str, Any] = super().forward_image(image)
        copies: dict[str, Any] = _copied(features)
        return copies

    def _forward_sam_heads(
        self,
        backbone_features: torch.Tensor,
        point_inputs: Any = None,
        mask_inputs: Any = None,
        high_res_features: Any = None,
        multimask_output: bool = False,
    ) -> Any:
        if point_inputs is not None or mask_inputs is not None:
            return super()._forward_sam_heads(
                backbone_features, point_inputs, mask_inputs, high_res_features, multimask_output
            )
        return _copied(
            self._tracking_heads(
                backbone_features, high_res_features=high_res_features, multimask_output=multimask_output
            )
        )

    def _encode_new_memory(self, **inputs: Any) -> Any:
        return _copied(super()._encode_new_memory(**inputs))


def _copied(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {name: _copied(value) for name, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        return type(outputs)(_copied(value) for value in outputs)
    return outputs.clone()
