"""SAM 2's video predictor on a stream of frames: the stock predictor's logits at constant memory.

The stock predictor keeps every frame and every frame's outputs, but reads only a few of them. While a forward pass is
at row t:

    row          … t-16  t-15 ─────── t-7  t-6 ─────── t-1   t    …   conditioning rows (with a prompt)
    read         nothing  object pointers   + memories            all of them, past and future

and mirrored in a backward pass. So after every row all other outputs are dropped, except those that a later pass still
reads: the reverse pass starts at the row where the forward pass started, and reads the rows behind it.

Source: facebookresearch/sam2@2b90b9f, `SAM2Base._prepare_memory_conditioned_features`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from aot.decoding.base import FrameSource
from aot.segmentation.sam2.inputs import EncoderInputs

State = dict[str, Any]
"""The stock predictor's `inference_state`."""


@dataclass(frozen=True, eq=False)
class RowOutput:
    """The model's output for one object on one row."""

    logits: torch.Tensor
    """(1, 1, S/4, S/4) mask logits, S the model's image size."""
    score_logit: torch.Tensor
    """(1, 1) logit of the probability that the object is visible."""


class MemoryBank(dict[int, dict[str, Any]]):
    """The outputs of one object on the rows without a prompt; reading a dropped row is an error.

    The stock code treats a missing row as never visited and silently continues without it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dropped: set[int] = set()

    def get(self, row: int, default: Any = None) -> Any:
        if row in self._dropped:
            raise KeyError(f"row {row} is read although it was dropped from SAM 2's memory bank; please report this")
        return super().get(row, default)

    def __setitem__(self, row: int, output: dict[str, Any]) -> None:
        self._dropped.discard(row)
        super().__setitem__(row, output)

    def trim(self, complete: list[range], pointers: list[range]) -> None:
        """Drop all rows but these.

        Args:
            complete: rows that keep all their outputs.
            pointers: rows that keep only the object pointer.
        """
        for row in list(self):
            if any(row in span for span in complete):
                continue
            if any(row in span for span in pointers):
                super().__setitem__(row, {"obj_ptr": self[row]["obj_ptr"]})
            else:
                del self[row]
                self._dropped.add(row)


class StreamingPredictor(SAM2VideoPredictor):  # type: ignore[misc]
    """The stock video predictor, with frames from a FrameSource and a state of constant size."""

    def cast_memories(self) -> None:
        """Cast memories, stored as bfloat16, to the type of the features where autocast does not.

        Without autocast the stock predictor raises an error where a pass begins before an object's first prompt;
        elsewhere its object pointers, stored as float32, promote the memories to float32, and this cast has no effect.
        """

        def cast(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "memory": kwargs["memory"].to(kwargs["curr"][0].dtype)}

        self.memory_attention.register_forward_pre_hook(cast, with_kwargs=True)

    def new_state(self, frames: FrameSource) -> State:
        """The stock `init_state`, key by key, except that frames come from the source."""
        return {
            "images": EncoderInputs(frames, self.image_size, self.device),
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
        """Encode the memories of the row whose prompts were added last, while its features are still cached."""
        self.propagate_in_video_preflight(state)
        for outputs in state["output_dict_per_obj"].values():
            # Memories are read in this order: another order changes the rounding of sums.
            outputs["cond_frame_outputs"] = dict(sorted(outputs["cond_frame_outputs"].items()))
            if not isinstance(outputs["non_cond_frame_outputs"], MemoryBank):
                outputs["non_cond_frame_outputs"] = MemoryBank()

    @torch.inference_mode()
    def track_row(self, state: State, row: int, *, reverse: bool) -> dict[int, RowOutput]:
        """One row of the stock `propagate_in_video`; outputs by object id."""
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
            found[object_id] = RowOutput(output["pred_masks"], output["object_score_logits"])
        return found

    def forget(self, state: State, row: int, *, reverse: bool, later_start: int | None) -> None:
        """Drop the outputs that are no longer read once `row` is done.

        Args:
            state: of the clip.
            row: the row just tracked.
            reverse: direction of the pass.
            later_start: the row from which a reverse pass starts afterwards; None: no pass follows.
        """
        # With a stride r over memories, the farthest one is r·(num_maskmem − 2) + 1 rows back.
        memories = self.memory_temporal_stride_for_eval * (self.num_maskmem - 2) + 1
        pointers = self.max_obj_ptrs_in_encoder - 1

        def read(reach: int) -> list[range]:
            spans = [range(row, row + reach) if reverse else range(row - reach + 1, row + 1)]
            return spans if later_start is None else [*spans, range(later_start + 1, later_start + reach + 1)]

        for outputs in state["output_dict_per_obj"].values():
            outputs["non_cond_frame_outputs"].trim(read(memories), read(max(memories, pointers)))

    @torch.inference_mode()
    def at_source_size(self, state: State, output: RowOutput) -> torch.Tensor:
        """(H, W) logits at the size of the source."""
        logits: torch.Tensor = self._get_orig_video_res_output(state, output.logits)[1][0, 0]
        return logits
