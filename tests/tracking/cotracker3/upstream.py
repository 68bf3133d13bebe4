"""The upstream package for comparison with our engine: the installed one, or a copy from a wheel.

The copy is imported from a temporary folder and not kept.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.tracker import unpack_upstream
from tests.tracking.cotracker3.weights import golden_weights


@contextmanager
def upstream_importable(folder: Path) -> Iterator[None]:
    """Make `cotracker` importable within the context."""
    try:
        found = unpack_upstream(folder)
    except FileNotFoundError as exc:
        pytest.skip(f"the package cotracker is not available: {exc}")
    if found:
        sys.path.insert(0, str(found))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the package
            yield
    finally:
        if found:
            sys.path.remove(str(found))
            for name in [name for name in sys.modules if name.split(".")[0] == "cotracker"]:
                del sys.modules[name]


def offline_tracks(frames: np.ndarray, queries: np.ndarray | None = None, **options: Any) -> tuple[Any, Any]:
    """(T, N, 2) and (T, N) positions and visibility from upstream's offline predictor with the golden weights."""
    from cotracker.predictor import CoTrackerPredictor

    predictor = CoTrackerPredictor(checkpoint=None).eval()
    predictor.model.load_state_dict(dict(golden_weights()))
    given = {} if queries is None else {"queries": torch.from_numpy(queries)[None]}
    with torch.inference_mode():
        tracks, visible = predictor(_video(frames), **given, **options)
    return tracks[0].numpy(), visible[0].numpy().astype(bool)


def online_tracks(frames: np.ndarray, queries: np.ndarray, **options: Any) -> tuple[Any, Any]:
    """The same from upstream's online predictor, called as in its README."""
    from cotracker.predictor import CoTrackerOnlinePredictor

    predictor = CoTrackerOnlinePredictor(checkpoint=None).eval()
    predictor.model.load_state_dict(dict(golden_weights(mode="online")))
    video, step = _video(frames), predictor.step
    with torch.inference_mode():
        predictor(video_chunk=video, is_first_step=True, queries=torch.from_numpy(queries)[None], **options)
        for start in range(0, video.shape[1] - step, step):
            tracks, visible = predictor(video_chunk=video[:, start : start + 2 * step], **options)
    return tracks[0].numpy(), visible[0].numpy().astype(bool)


def _video(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)[None].float()
