"""The TAPNext network: one frame at a time, with a state of constant size.

Every frame is a sequence of tokens: image patches, then one token per query. Twelve pairs of blocks process them: a
recurrence over time for every token by itself, then attention among the tokens of the frame. All points of a clip
attend to each other.

Source: TAPNext (arXiv:2504.05579) and TAPNext++; the released weights load unchanged (loading.py).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from aot.system.compilation import share_compiled_code
from aot.tracking.tapnext.attention import AttentionBlock
from aot.tracking.tapnext.heads import Heads, Prediction
from aot.tracking.tapnext.linear import Linear
from aot.tracking.tapnext.recurrent import RecurrentBlock, RecurrentState
from aot.tracking.tapnext.sizes import Precision, Sizes, VisibilityRule
from aot.tracking.tapnext.tokens import ImageTokens, QueryTokens
from aot.tracking.tapnext.weights import WeightReader

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Block(nn.Module):
    """A recurrent block and an attention block."""

    def __init__(self, weights: WeightReader, sizes: Sizes) -> None:
        super().__init__()
        self.recurrent = RecurrentBlock(weights.under("ssm_block"), sizes.width, sizes.recurrent_width)
        self.attention = AttentionBlock(weights.under("vit_block"), sizes.width, sizes.num_heads)

    def forward(
        self,
        x: Tensor,
        state: RecurrentState,
        *,
        first: int,
        is_first: bool,
        log_count: float,
        rows_at_once: int,
        dtype: torch.dtype,
    ) -> None:
        """Update tokens (tokens, D) and their state in place; see `TAPNext.forward` and `AttentionBlock.forward`."""
        for start in range(0, len(x), rows_at_once):
            rows = slice(start, min(start + rows_at_once, len(x)))
            self.recurrent(x[rows], state.hidden[rows], state.inputs[:, rows], is_first, dtype)
        self.attention(x, first, log_count, rows_at_once, dtype)


class TAPNext(nn.Module):
    """The network; `load_model` builds it and loads its weights.

    Args:
        weights: of the network.
        sizes: of the network.
        precision: of linear layers and attention; norms, recurrence, heads and state are float32.
        visibility_rule: when a point is visible.
    """

    def __init__(
        self, weights: WeightReader, sizes: Sizes, precision: Precision, visibility_rule: VisibilityRule
    ) -> None:
        super().__init__()
        self.sizes, self.precision, self.visibility_rule = sizes, precision, visibility_rule
        self.image_tokens = ImageTokens(weights, sizes)
        self.query_tokens = QueryTokens(weights, sizes)
        self.blocks = nn.ModuleList(Block(weights.under(f"blocks.{number}"), sizes) for number in range(sizes.depth))
        self.heads = Heads(weights, sizes.width)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.query_tokens.mask.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the linear layers and the attention."""
        return DTYPES[self.precision]

    def new_state(self, num_tokens: int) -> list[RecurrentState]:
        """The state before the first frame, of every block."""
        return [RecurrentState.empty(num_tokens, self.sizes.recurrent_width, self.device) for _ in self.blocks]

    def forward(
        self,
        image: Tensor,
        queries: Tensor,
        state: list[RecurrentState],
        *,
        is_first: bool,
        log_count: float = 0.0,
        rows_at_once: int = 512,
    ) -> Prediction:
        """Process one frame.

        Args:
            image: (3, R, R) float32, values -1..1.
            queries: (n, D) float32, the query tokens.
            state: of at least all image and query tokens, in this order; updated in place.
            is_first: whether this is the clip's first frame.
            log_count: logarithm of the number of equal tokens for which the last one stands; minus infinity: of none.
            rows_at_once: tokens for which scores and hidden layers exist at once; does not change the results.
        Returns:
            The predictions for the n query tokens.
        """
        x = torch.cat([self.image_tokens(image, self.dtype), queries])
        num_image = len(x) - len(queries)
        for block, own in zip(self.blocks, state):
            block(
                x,
                own,
                first=num_image if block is self.blocks[-1] else 0,  # only the query tokens of the last block are read
                is_first=is_first,
                log_count=log_count,
                rows_at_once=rows_at_once,
                dtype=self.dtype,
            )
        return cast(Prediction, self.heads(x[num_image:]))

    def convert(self, *, packs: bool) -> None:
        """Convert the layers to the precision; once, after they are on the device.

        Args:
            packs: whether their weights are packed; the compiler makes kernels from plain ones.
        """
        for name, layer in self.named_modules():
            if isinstance(layer, Linear):
                if not name.startswith("heads."):
                    layer.to(self.dtype)
                if packs:
                    layer.pack()

    def compile_parts(self) -> None:
        """Compile the blocks with torch.compile on first use."""
        share_compiled_code()
        for module in self.modules():
            if isinstance(module, RecurrentBlock | AttentionBlock):
                module.compile(dynamic=True)
