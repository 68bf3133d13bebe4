"""For which frames a track is meant, and on which of them it is valid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aot.system.array_fields import ArrayFields

TO_THE_END = -1
"""`ended` of a track that does not end before the clip does."""


@dataclass(frozen=True, eq=False, repr=False)
class Lifetimes(ArrayFields):
    """The lifetimes of N tracks on T kept frames."""

    born: NDArray[np.int64]
    """(N,) first source frame for which a track is meant; before it, it has drifted off its object."""
    ended: NDArray[np.int64]
    """(N,) last source frame for which it is meant; −1: it does not drift off before the clip ends."""
    valid: NDArray[np.bool_]
    """(T, N) visible, from `born` to `ended`, and on a frame on which the object is not known to be out of sight."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("born", np.int64, ("N",), sizes)
        self._check("ended", np.int64, ("N",), sizes)
        self._check("valid", np.bool_, ("T", "N"), sizes)

    def drifted(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N,) whether each track leaves its object before the clip ends, or before its beginning.

        Args:
            index: (T,) source frames.
        """
        return np.asarray((self.ended != TO_THE_END) | (self.born > index[0]))

    @classmethod
    def unlimited(cls, visible: NDArray[np.bool_], index: NDArray[np.int64]) -> Lifetimes:
        """Lifetimes of tracks that do not end: they are valid wherever they are visible.

        Args:
            visible: (T, N).
            index: (T,) source frames.
        """
        num_points = visible.shape[1]
        first = index[0] if len(index) else 0
        return cls(
            born=np.full(num_points, first, dtype=np.int64),
            ended=np.full(num_points, TO_THE_END, dtype=np.int64),
            valid=visible,
        )
