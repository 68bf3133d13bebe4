"""Reading a state dict strictly: every key once, with the expected shape, and none left over."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aot.errors import CheckpointError

# Keys that an error lists.
_MAX_LISTED = 5


class WeightReader:
    """Takes tensors from a state dict, and remembers which.

    Args:
        state: key → tensor.
        name: of the file, for messages.
        prefix: of the keys that this reader takes.
    """

    def __init__(self, state: Mapping[str, Tensor], name: str, prefix: str = "", taken: set[str] | None = None) -> None:
        self._state, self._name, self._prefix = state, name, prefix
        self._taken: set[str] = set() if taken is None else taken

    def under(self, name: str) -> WeightReader:
        """A reader of the keys that begin with `name.`."""
        return WeightReader(self._state, self._name, f"{self._prefix}{name}.", self._taken)

    def has(self, key: str) -> bool:
        return f"{self._prefix}{key}" in self._state

    def take(self, key: str, *shape: int | None) -> Tensor:
        """A copy of a tensor as float32.

        Args:
            key: without the prefix.
            shape: expected; None: any size.
        Raises:
            CheckpointError: the tensor is missing or has another shape, or its numbers are not finite.
        """
        full = f"{self._prefix}{key}"
        if full not in self._state:
            raise CheckpointError(f"{self._name} does not hold the weights of TAPNext: {full} is missing")
        tensor = self._state[full]
        if len(shape) != tensor.ndim or any(want not in (None, have) for want, have in zip(shape, tensor.shape)):
            wanted = tuple("any" if size is None else size for size in shape)
            raise CheckpointError(
                f"{self._name}: {full} has the shape {tuple(tensor.shape)}, expected {wanted}; the file holds the "
                f"weights of another network, or image_size or num_heads is wrong"
            )
        self._taken.add(full)
        found = tensor.detach().to("cpu", torch.float32, copy=True)
        if not torch.isfinite(found).all():
            raise CheckpointError(f"{self._name}: {full} holds numbers that are not finite; download the file again")
        return found

    def finish(self) -> None:
        """Check that every key was taken.

        Raises:
            CheckpointError: keys are left over.
        """
        left = sorted(self._state.keys() - self._taken)
        if left:
            more = f" and {len(left) - _MAX_LISTED} more" if len(left) > _MAX_LISTED else ""
            raise CheckpointError(
                f"{self._name} holds weights that TAPNext does not have: {', '.join(left[:_MAX_LISTED])}{more}; "
                f"expected tapnextpp_ckpt.pt, tapnextpp_512.ckpt or bootstapnext.pth"
            )
