"""The base class of dataclasses whose fields are arrays with shapes that belong together."""

from __future__ import annotations

from dataclasses import fields

import numpy as np


class ArrayFields:
    """Base of the dataclasses that hold arrays: a check of dtype and shape, and a repr of shapes without contents.

    Fields that are declared with `repr=False` are left out of it.
    """

    def _check(self, name: str, dtype: type, shape: tuple[int | str, ...], sizes: dict[str, int]) -> None:
        """Check the dtype and shape of one field.

        Args:
            name: of the field.
            dtype: the expected dtype.
            shape: the expected sizes; a letter stands for a size that is the same in all fields.
            sizes: letter → size, of the fields checked so far; updated.
        Raises:
            TypeError: the field is not an array.
            ValueError: its dtype, number of dimensions or sizes differ.
        """
        owner, array = type(self).__name__, getattr(self, name)
        expected = f"({', '.join(map(str, shape))}) {np.dtype(dtype).name}"
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{owner}.{name}: got {type(array).__name__}, expected an array {expected}")
        if array.dtype != dtype or array.ndim != len(shape):
            raise ValueError(f"{owner}.{name}: got {array.shape} {array.dtype}, expected {expected}")
        for size, letter in zip(array.shape, shape):
            wanted = sizes.setdefault(letter, size) if isinstance(letter, str) else letter
            if size != wanted:
                raise ValueError(
                    f"{owner}.{name}: got {array.shape}, expected {expected} with {letter} = {wanted}, "
                    f"as in the fields before it"
                )

    def __repr__(self) -> str:
        parts = []
        for item in fields(self):  # type: ignore[arg-type]
            if not item.repr:
                continue
            value = getattr(self, item.name)
            shown = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else repr(value)
            parts.append(f"{item.name}={shown}")
        return f"{type(self).__name__}({', '.join(parts)})"
