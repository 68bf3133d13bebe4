"""SAM 2's video predictor on a stream of frames: the stock predictor's logits, memory flat in the number of frames.

The stock predictor holds every frame, and what it found on every frame. Read is little of that. While a pass goes
forwards and is at row t:

    row          … t-16  t-15 ─────── t-7  t-6 ─────── t-1   t    …   conditioning rows (with a prompt)
    read         nothing  object pointers   + memories            all that exist, past and future

and mirrored while it goes backwards. So after every row all else is dropped, but for what a later pass still reads:
the reverse pass starts from the row where the forward pass started, and looks at what lies behind it.

Source: facebookresearch/sam2@2b90b9f, `SAM2Base._prepare_memory_conditioned_features`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor

from aot.decoding.base import FrameSource
from aot.types import UInt8Array

# What ImageNet's pictures are on average; the encoder was trained on pictures normalized by it.
_MEAN = torch.tensor((0.485, 0.456, 0.406), dtype=torch.float32)[:, None, None]
_STD = torch.tensor((0.229, 0.224, 0.225), dtype=torch.float32)[:, None, None]

State = dict[str, Any]
"""What the stock predictor calls `inference_state`."""


@dataclass(frozen=True, eq=False)
class Found:
    """One object on one row."""

    logits: torch.Tensor
    """(1, 1, S/4, S/4) mask logits, S the model's image size."""
    score_logit: torch.Tensor
    """(1, 1) whether the object is seen at all."""


class Pictures:
    """The rows of a clip as the encoder wants them, made when they are asked for; stands for the stock `images`."""

    def __init__(self, frames: FrameSource, image_size: int) -> None:
        self._frames = frames
        self._image_size = image_size
        self._at_hand: tuple[int, UInt8Array] | None = None

    def __len__(self) -> int:
        return len(self._frames.index)

    def stream(self, rows: range) -> Iterator[int]:
        """Go through rows in order, decoded block by block; each is at hand while its turn lasts."""
        waiting = iter(rows)
        for block in self._frames.blocks(self._frames.index[list(rows)]):
            for rgb in block.rgb:
                row = next(waiting)
                self._at_hand = row, rgb
                yield row
        self._at_hand = None

    def __getitem__(self, row: int) -> torch.Tensor:
        if self._at_hand is None or self._at_hand[0] != row:
            self._at_hand = row, self._frames.read(self._frames.index[[row]]).rgb[0]
        return normalized(self._at_hand[1], self._image_size)


class MemoryBank(dict[int, dict[str, Any]]):
    """What was found on the rows without a prompt, of one object; to read what was dropped is an error.

    The stock code takes a missing row for one that was never visited and goes on without it, silently.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dropped: set[int] = set()

    def get(self, row: int, default: Any = None) -> Any:
        if row in self._dropped:
            raise KeyError(f"row {row} was dropped from SAM 2's memory, yet it is read; please report this")
        return super().get(row, default)

    def __setitem__(self, row: int, found: dict[str, Any]) -> None:
        self._dropped.discard(row)
        super().__setitem__(row, found)

    def trim(self, whole: list[range], pointers: list[range]) -> None:
        """Keep these rows whole, of those the object pointers alone, and nothing else."""
        for row in list(self):
            if any(row in span for span in whole):
                continue
            if any(row in span for span in pointers):
                super().__setitem__(row, {"obj_ptr": self[row]["obj_ptr"]})
            else:
                del self[row]
                self._dropped.add(row)


class StreamingPredictor(SAM2VideoPredictor):  # type: ignore[misc]
    """The stock video predictor, with frames from a source and a state that does not grow."""

    def cast_memories(self) -> None:
        """Let memories, kept in bfloat16, meet float32 features where autocast does not see to it.

        Stock, without autocast, stops with an error where a pass begins before an object's first prompt; elsewhere
        its object pointers, kept in float32, raise the rest to float32, and this changes nothing.
        """

        def cast(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "memory": kwargs["memory"].to(kwargs["curr"][0].dtype)}

        self.memory_attention.register_forward_pre_hook(cast, with_kwargs=True)

    def new_state(self, frames: FrameSource) -> State:
        """The stock `init_state`, key by key, but for the frames: these come from the source."""
        return {
            "images": Pictures(frames, self.image_size),
            "num_frames": len(frames.index),
            "offload_video_to_cpu": True,
            "offload_state_to_cpu": False,
            "video_height": frames.height,
            "video_width": frames.width,
            "device": self.device,
            "storage_device": self.device,
            "point_inputs_per_obj": {},
            "mask_inputs_per_obj": {},
            "cached_features": {},
            "constants": {},
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
            "output_dict_per_obj": {},
            "temp_output_dict_per_obj": {},
            "frames_tracked_per_obj": {},
        }

    @torch.inference_mode()
    def finish_prompts(self, state: State) -> None:
        """Encode the memories of the row whose prompts were added last, while its features are still at hand."""
        self.propagate_in_video_preflight(state)
        for outputs in state["output_dict_per_obj"].values():
            # Memories are read in this order: in another one sums of floats come out otherwise.
            outputs["cond_frame_outputs"] = dict(sorted(outputs["cond_frame_outputs"].items()))
            if not isinstance(outputs["non_cond_frame_outputs"], MemoryBank):
                outputs["non_cond_frame_outputs"] = MemoryBank()

    @torch.inference_mode()
    def track_row(self, state: State, row: int, *, reverse: bool) -> dict[int, Found]:
        """What the stock `propagate_in_video` does on one row, by object id."""
        found = {}
        for object_id, index in state["obj_id_to_idx"].items():
            outputs = state["output_dict_per_obj"][index]
            output = outputs["cond_frame_outputs"].get(row)
            if output is None:
                output, _ = self._run_single_frame_inference(
                    inference_state=state,
                    output_dict=outputs,
                    frame_idx=row,
                    batch_size=1,
                    is_init_cond_frame=False,
                    point_inputs=None,
                    mask_inputs=None,
                    reverse=reverse,
                    run_mem_encoder=True,
                )
                outputs["non_cond_frame_outputs"][row] = output
            found[object_id] = Found(output["pred_masks"], output["object_score_logits"])
        return found

    def forget(self, state: State, row: int, *, reverse: bool, later_start: int | None) -> None:
        """Drop what nothing reads once `row` is done.

        Args:
            state: the clip's.
            row: the one just tracked.
            reverse: the pass's direction.
            later_start: the row from which a reverse pass starts afterwards; None: no pass comes afterwards.
        """
        # With a stride r over memories, the furthest of them lies r·(num_maskmem − 2) + 1 rows back.
        memories = self.memory_temporal_stride_for_eval * (self.num_maskmem - 2) + 1
        pointers = self.max_obj_ptrs_in_encoder - 1

        def read(reach: int) -> list[range]:
            spans = [range(row, row + reach) if reverse else range(row - reach + 1, row + 1)]
            return spans if later_start is None else [*spans, range(later_start + 1, later_start + reach + 1)]

        for outputs in state["output_dict_per_obj"].values():
            outputs["non_cond_frame_outputs"].trim(read(memories), read(max(memories, pointers)))

    @torch.inference_mode()
    def at_source_size(self, state: State, found: Found) -> torch.Tensor:
        """(H, W) logits at the size of the source."""
        logits: torch.Tensor = self._get_orig_video_res_output(state, found.logits)[1][0, 0]
        return logits


def normalized(rgb: UInt8Array, image_size: int) -> torch.Tensor:
    """(3, S, S) float32 as the stock loader makes it of a picture, bit for bit.

    Multiplying by 1/255 instead of dividing would not be equal, nor would another filter.
    """
    small = np.asarray(Image.fromarray(rgb).resize((image_size, image_size))) / 255.0
    picture = torch.from_numpy(small).permute(2, 0, 1).to(torch.float32)
    picture -= _MEAN
    picture /= _STD
    return picture
