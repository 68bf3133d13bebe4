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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from aot.decoding.base import FrameSource
from aot.errors import OutOfMemory
from aot.segmentation.sam2.inputs import EncoderInputs
from aot.segmentation.sam2.model import OUT_OF_MEMORY
from aot.segmentation.sam2.objects import ObjectGroup, Output, group_objects
from aot.system.devices import torch_memory_errors

State = dict[str, Any]
"""The stock predictor's `inference_state`."""


@dataclass(frozen=True, eq=False)
class RowOutput:
    """The model's output for one object on one row."""

    logits: torch.Tensor
    """(1, 1, S/4, S/4) mask logits, S the model's image size."""
    score_logit: torch.Tensor
    """(1, 1) logit of the probability that the object is visible."""


class StreamingPredictor(SAM2VideoPredictor):  # type: ignore[misc]
    """The stock video predictor, with frames from a FrameSource and a state of constant size."""

    is_compiled = False

    def compile_parts(self) -> None:
        """Nothing is compiled."""

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

    def take_objects(self, state: State, max_objects: int) -> list[ObjectGroup]:
        """Move the objects, with the outputs on their prompt rows, from the state into groups; ends the prompts.

        Args:
            state: of the clip.
            max_objects: objects per group at most.
        """
        prompted = {
            object_id: state["output_dict_per_obj"].pop(index)["cond_frame_outputs"]
            for object_id, index in state["obj_id_to_idx"].items()
        }
        return group_objects(prompted, max_objects, only_powers_of_two=self.is_compiled)

    @torch.inference_mode()
    def track_row(self, state: State, groups: list[ObjectGroup], row: int, *, reverse: bool) -> dict[int, RowOutput]:
        """One row of the stock `propagate_in_video`; outputs by object id.

        Args:
            state: of the clip.
            groups: its objects; a group for which the memory is not sufficient is replaced by smaller ones.
            row: the row to track.
            reverse: direction of the pass.
        Raises:
            OutOfMemory: memory ran out for a single object.
        """
        groups[:] = [part for group in groups for part in self._track_group(state, group, row, reverse)]
        found = {}
        for group in groups:
            output = group.prompted.get(row) or group.tracked[row]
            masks, scores = output["pred_masks"], output["object_score_logits"]
            for place, object_id in enumerate(group.object_ids):
                found[object_id] = RowOutput(masks[place : place + 1], scores[place : place + 1])
        return found

    def _track_group(self, state: State, group: ObjectGroup, row: int, reverse: bool) -> list[ObjectGroup]:
        """Add a row to the memories of a group; returns the group, or the groups into which it was divided."""
        if row in group.prompted:
            return [group]
        output = self._row_output(state, group, row, reverse)
        if output is None:
            return [part for half in group.halves() for part in self._track_group(state, half, row, reverse)]
        group.tracked[row] = output
        return [group]

    def _row_output(self, state: State, group: ObjectGroup, row: int, reverse: bool) -> Output | None:
        """The outputs on a row without a prompt; None if the memory is not sufficient for all objects at once."""
        try:
            with torch_memory_errors(*OUT_OF_MEMORY):
                output: Output = self._run_single_frame_inference(
                    inference_state=state,
                    output_dict=group.memories(),
                    frame_idx=row,
                    batch_size=len(group.object_ids),
                    is_init_cond_frame=False,
                    point_inputs=None,
                    mask_inputs=None,
                    reverse=reverse,
                    run_mem_encoder=True,
                )[0]
        except OutOfMemory:
            if len(group.object_ids) == 1:
                raise
            return None
        return output

    def forget(self, groups: Sequence[ObjectGroup], row: int, *, reverse: bool, later_start: int | None) -> None:
        """Drop the outputs that are no longer read once `row` is done.

        Args:
            groups: the objects.
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

        for group in groups:
            group.tracked.trim(read(memories), read(max(memories, pointers)))

    @torch.inference_mode()
    def at_source_size(self, state: State, logits: torch.Tensor) -> torch.Tensor:
        """(K, H, W) logits at the size of the source.

        Args:
            state: of the clip.
            logits: (K, 1, S/4, S/4), S the model's image size.
        """
        scaled: torch.Tensor = self._get_orig_video_res_output(state, logits)[1][:, 0]
        return scaled
