"""The memories of tracked objects, and objects that are tracked together in the batch dimension of the model.

Objects whose prompts are on the same rows have been tracked on the same rows too, so that all their memories have the
same layout, and one tensor per row holds those of all of them:

    object 1, prompt on row 0 ──┐
    object 2, prompt on row 0 ──┴─ group of two: one pass of the model per row
    object 3, prompt on row 7 ──── group of one
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Output = dict[str, Any]
"""The stock predictor's output on one row for K objects: tensors, or lists of tensors, of K items each."""

MAX_OBJECTS = 16
"""Objects in a batch at most: with more, an attention to all memories keeps any GPU busy for longer than its launch."""

# Bytes per object and pixel of the model's image while a row is tracked, measured on a CPU with all memories: 136 in
# fp32, 155 in bf16. The rest is for prompts on many rows, whose memories are all read.
_BYTES_PER_PIXEL = 256
# Fraction of the free memory for a batch; the image encoder and other workers of the device need memory too.
_USABLE_FRACTION = 0.5


class MemoryBank(dict[int, Output]):
    """The outputs on the rows without a prompt; reading a dropped row is an error.

    The stock code treats a missing row as never visited and silently continues without it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dropped: set[int] = set()

    def get(self, row: int, default: Any = None) -> Any:
        if row in self._dropped:
            raise KeyError(f"row {row} is read although it was dropped from SAM 2's memory bank; please report this")
        return super().get(row, default)

    def __setitem__(self, row: int, output: Output) -> None:
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

    def of_objects(self, objects: slice) -> MemoryBank:
        """The memories of some of the objects, as views."""
        bank = MemoryBank()
        for row, output in self.items():
            bank[row] = _of_objects(output, objects)
        bank._dropped |= self._dropped
        return bank


@dataclass(frozen=True, eq=False)
class ObjectGroup:
    """Objects that are tracked at once."""

    object_ids: tuple[int, ...]
    prompted: dict[int, Output]
    """The outputs on the rows with a prompt, in the order of the rows."""
    tracked: MemoryBank = field(default_factory=MemoryBank)
    """The outputs on the other rows that are still read."""

    @classmethod
    def joined(cls, prompted: Mapping[int, Mapping[int, Output]]) -> ObjectGroup:
        """Join objects.

        Args:
            prompted: outputs by object id and row, of a single object each; every object has the same rows.
        """
        outputs = list(prompted.values())
        # Memories are read in this order: another order changes the rounding of sums.
        rows = sorted(outputs[0])
        return cls(tuple(prompted), {row: _joined([output[row] for output in outputs]) for row in rows})

    def memories(self) -> dict[str, Mapping[int, Output]]:
        """The stock predictor's `output_dict`."""
        return {"cond_frame_outputs": self.prompted, "non_cond_frame_outputs": self.tracked}

    def halves(self) -> tuple[ObjectGroup, ObjectGroup]:
        """Two groups, of half of the objects each; at least two objects."""
        middle = len(self.object_ids) // 2
        first, second = (self._of_objects(half) for half in (slice(middle), slice(middle, None)))
        return first, second

    def _of_objects(self, objects: slice) -> ObjectGroup:
        prompted = {row: _of_objects(output, objects) for row, output in self.prompted.items()}
        return ObjectGroup(self.object_ids[objects], prompted, self.tracked.of_objects(objects))


def objects_that_fit(image_size: int, available_bytes: int) -> int:
    """Objects that can be tracked at once, at least one and at most MAX_OBJECTS.

    Args:
        image_size: side in px of the model's image.
        available_bytes: free memory of the device.
    """
    fitting = int(_USABLE_FRACTION * available_bytes) // (_BYTES_PER_PIXEL * image_size**2)
    return min(max(1, fitting), MAX_OBJECTS)


def group_objects(
    prompted: Mapping[int, Mapping[int, Output]], max_objects: int, *, only_powers_of_two: bool
) -> list[ObjectGroup]:
    """Divide the objects of a clip into groups.

    Args:
        prompted: outputs on the rows with a prompt, by object id and row.
        max_objects: objects per group at most.
        only_powers_of_two: groups of 1, 2, 4, … objects, so that a model that is compiled for every size of a batch is
            compiled a few times only.
    """
    same_rows: dict[tuple[int, ...], list[int]] = {}
    for object_id, outputs in prompted.items():
        same_rows.setdefault(tuple(sorted(outputs)), []).append(object_id)
    return [
        ObjectGroup.joined({object_id: prompted[object_id] for object_id in chosen})
        for object_ids in same_rows.values()
        for chosen in _divided(object_ids, max_objects, only_powers_of_two)
    ]


def _divided(object_ids: Sequence[int], max_objects: int, only_powers_of_two: bool) -> Iterator[Sequence[int]]:
    rest = object_ids
    while rest:
        size = min(len(rest), max_objects)
        if only_powers_of_two:
            size = 1 << (size.bit_length() - 1)
        yield rest[:size]
        rest = rest[size:]


def _joined(outputs: Sequence[Output]) -> Output:
    """Outputs on one row of several objects as one; that of a single object is not copied."""
    if len(outputs) == 1:
        return outputs[0]
    return {
        name: [torch.cat(levels) for levels in zip(*(output[name] for output in outputs))]
        if isinstance(value, list)
        else torch.cat([output[name] for output in outputs])
        for name, value in outputs[0].items()
    }


def _of_objects(output: Output, objects: slice) -> Output:
    return {
        name: [level[objects] for level in value] if isinstance(value, list) else value[objects]
        for name, value in output.items()
    }
