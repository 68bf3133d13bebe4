"""A session: the network's state while frames and points are fed to it.

The tokens of a frame are in this order: the image's, those of the points that have begun, and one for all points that
are expected later. Those are equal tokens with equal states, so one stands for all, with its number in the attention;
a point that begins takes a copy of its state.
"""

from __future__ import annotations

from math import inf, log

import numpy as np
import torch
from torch import Tensor

from aot.tracking.frames import check_block, upload
from aot.tracking.tapnext.frames import resized, to_network, to_source
from aot.tracking.tapnext.heads import Estimate, decoded
from aot.tracking.tapnext.model import TAPNext
from aot.tracking.tapnext.sizes import CPU_ROWS, GPU_ROWS
from aot.types import Float32Array, Tracks, UInt8Array


class Session:
    """Tracks points through a stream at constant memory.

    >>> session = Session(model, size=(480, 854))
    >>> session.add_points(points)
    >>> for frame in stream:
    ...     tracks = session.feed(frame)

    Args:
        model: loaded by `load_model`.
        size: (H, W) of the source frames in px.
        num_expected: points that begin on a later frame and take part in the attention until then, as in the published
            evaluation. Others can be added too; they do not influence the points before they begin.
        is_open: whether more points than expected may be added.
        rows_at_once: tokens for which scores and hidden layers exist at once; None: as fits the device.
    """

    def __init__(
        self,
        model: TAPNext,
        *,
        size: tuple[int, int],
        num_expected: int = 0,
        is_open: bool = True,
        rows_at_once: int | None = None,
    ) -> None:
        self._model, self._size, self._is_open = model, size, is_open
        self._rows = rows_at_once or (CPU_ROWS if model.device.type == "cpu" else GPU_ROWS)
        self._num_expected = num_expected
        self._num_begun = 0
        self._added: list[Float32Array] = []
        self._num_image = model.sizes.num_image_tokens
        self._capacity = self._num_image + num_expected + 1
        self._state = model.new_state(self._capacity)
        self._is_first = True

    @property
    def num_points(self) -> int:
        """Number of points added so far."""
        return self._num_begun + sum(map(len, self._added))

    def add_points(self, xy: Float32Array) -> None:
        """Add points (n, 2) in source px; they begin on the next frame.

        Raises:
            ValueError: another shape, positions that are not finite, or more points than expected in a closed session.
        """
        points = checked_points(xy, 2)
        if not self._is_open and len(points) > self._num_expected:
            raise ValueError(f"got {len(points)} points, expected at most {self._num_expected}: the session is closed")
        self._num_expected = max(0, self._num_expected - len(points))
        if len(points):
            self._added.append(points)

    @torch.inference_mode()
    def feed(self, frame: UInt8Array) -> Tracks:
        """Process the next frame, (H, W, 3) uint8 RGB.

        Returns:
            One row, T = 1, for all points that have been added, in that order; a point is pinned to its position and
            visible on the frame on which it begins.
        Raises:
            ValueError: the frame has another shape or type, or another size than the session.
        """
        check_block(frame[None])
        if frame.shape[:2] != self._size:
            raise ValueError(f"frame: got {frame.shape[:2]} (H, W), expected {self._size}, the size of the session")
        num_old, added = self._num_begun, list(self._added)
        estimate = self.step(resized(upload(frame, self._model.device), self._model.sizes.input_resolution))
        own = slice(0, self._num_begun)
        xy = to_source(estimate.xy[own].cpu().numpy(), self._size)
        visibility, certainty = (part[own].cpu().numpy() for part in (estimate.visibility, estimate.certainty))
        visible = is_visible(self._model, visibility, certainty)
        if added:
            xy[num_old:], visible[num_old:] = np.concatenate(added), True
        return Tracks(xy[None], visible[None], visibility[None], certainty[None])

    @torch.inference_mode()
    def step(self, image: Tensor) -> Estimate:
        """Process the next frame, (3, R, R) on the device, values -1..1.

        Returns:
            The estimates of all points that have been added, in that order, then one for all that are expected or may
            be added later, where there are any.
        """
        beginning = self._begin()
        has_unknown = self._is_open or self._num_expected > 0
        estimate = decoded(
            self._model(
                image,
                self._query_tokens(beginning, has_unknown),
                self._state,
                is_first=self._is_first,
                log_count=self._log_count() if has_unknown else 0.0,
                rows_at_once=self._rows,
            )
        )
        self._is_first = False
        return estimate

    def _begin(self) -> Float32Array:
        """Let the added points begin, (n, 2) in source px: give each the state of the token that has stood for it."""
        beginning = np.concatenate([np.zeros((0, 2), np.float32), *self._added])
        self._added = []
        unknown = self._num_image + self._num_begun
        after = unknown + len(beginning)
        if after >= self._capacity:
            self._capacity = 2 * after
            self._state = [each.extended(self._capacity) for each in self._state]
        if after > unknown and not self._is_first:
            for each in self._state:
                each.copy_token(unknown, slice(unknown + 1, after + 1))
        self._num_begun += len(beginning)
        return beginning

    def _query_tokens(self, beginning: Float32Array, has_unknown: bool) -> Tensor:
        tokens = self._model.query_tokens
        parts = [tokens.mask.expand(self._num_begun - len(beginning), -1)]
        if len(beginning):
            xy = to_network(beginning, self._size, self._model.sizes.image_size)
            parts.append(tokens.beginning(upload(xy, self._model.device)))
        return torch.cat([*parts, tokens.unknown[None]] if has_unknown else parts)

    def _log_count(self) -> float:
        return log(self._num_expected) if self._num_expected else -inf


def checked_points(points: Float32Array, num_columns: int) -> Float32Array:
    """A copy of points as float32.

    Raises:
        ValueError: their shape is not (n, num_columns), or a number is not finite.
    """
    found = np.array(points, dtype=np.float32)
    if found.ndim != 2 or found.shape[1] != num_columns:
        raise ValueError(f"points: got the shape {found.shape}, expected (n, {num_columns})")
    if not np.isfinite(found).all():
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
        raise ValueError(f"points {wrong[:10].tolist()} hold numbers that are not finite, expected positions in px")
    return found


def is_visible(model: TAPNext, visibility: Float32Array, certainty: Float32Array) -> np.ndarray:
    """Whether points are visible by the rule published for the model's weights."""
    return (visibility if model.visibility_rule == "head" else visibility * certainty) > 0.5
