"""The upstream package for comparison with our engine: the installed one, or a copy from a wheel.

The copy is imported from a temporary folder and not kept.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from aot.types import Tracks
from benchmarks.tracker import unpack_upstream
from tests.tracking.cotracker3.weights import golden_weights

Weights = Mapping[str, torch.Tensor]


class Results(NamedTuple):
    """Results of upstream's network: positions (T, N, 2) in px, probabilities (T, N)."""

    xy: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray


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


@contextmanager
def small_upstream(resolution: tuple[int, int], num_iters: int) -> Iterator[None]:
    """Make upstream's predictors, built within the context, run at a resolution (H, W) with few iterations.

    Upstream's are always 384x512 and 6, and no option changes them. Weights are not initialized, which would take most
    of the time: they are loaded afterwards.
    """
    from cotracker import predictor

    build = predictor.build_cotracker

    def build_small(*args: Any, **options: Any) -> Any:
        model = build(*args, **options)
        model.model_resolution = resolution
        forward = model.forward
        model.forward = lambda **given: forward(**{**given, "iters": num_iters})
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "build_cotracker", build_small)
        for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "xavier_uniform_", "trunc_normal_"):
            patch.setattr(torch.nn.init, name, lambda tensor, *args, **options: tensor)
        yield


def network_results(frames: np.ndarray, queries: np.ndarray, weights: Weights) -> Results:
    """Results of upstream's offline network.

    Args:
        frames: (T, H, W, 3) uint8 of the model's resolution.
        queries: (N, 3): frame, x, y in px.
        weights: state dict.
    """
    from cotracker.predictor import CoTrackerPredictor

    predictor, calls = _loaded(CoTrackerPredictor(checkpoint=None), weights)
    with torch.inference_mode():
        predictor.model(video=_video(frames), queries=torch.from_numpy(queries)[None])
    return calls[0]


def offline_tracks(
    frames: np.ndarray,
    queries: np.ndarray | None = None,
    *,
    weights: Weights | None = None,
    segm_mask: np.ndarray | None = None,
    **options: Any,
) -> Tracks:
    """Tracks of upstream's offline predictor, with its network's probabilities, of which it returns only decisions.

    Args:
        frames: (T, H, W, 3) uint8.
        queries: (N, 3): frame, x, y in source px.
        weights: state dict; None: the golden weights.
        segm_mask: (H, W).
        options: further arguments of the predictor.
    """
    from cotracker.predictor import CoTrackerPredictor

    predictor, calls = _loaded(CoTrackerPredictor(checkpoint=None), weights or golden_weights())
    if queries is not None:
        options["queries"] = torch.from_numpy(queries)[None]
    if segm_mask is not None:
        options["segm_mask"] = torch.from_numpy(segm_mask)[None, None].float()
    with torch.inference_mode():
        xy, visible = predictor(_video(frames), **options)
    tracks = _tracks(xy, visible, calls[0])
    if len(calls) == 1:
        return tracks
    reverse = _tracks(xy, visible, calls[1])
    is_before = np.arange(len(frames))[:, None] < (options["grid_query_frame"] if queries is None else queries[:, 0])
    return replace(
        tracks,
        visibility=np.where(is_before, reverse.visibility[::-1], tracks.visibility),
        confidence=np.where(is_before, reverse.confidence[::-1], tracks.confidence),
    )


def online_tracks(
    frames: np.ndarray,
    queries: np.ndarray,
    *,
    weights: Weights | None = None,
    window_len: int = 16,
    **options: Any,
) -> Tracks:
    """The same from upstream's online predictor, called as in its README."""
    from cotracker.predictor import CoTrackerOnlinePredictor

    predictor, calls = _loaded(
        CoTrackerOnlinePredictor(checkpoint=None, window_len=window_len), weights or golden_weights(mode="online")
    )
    video, step = _video(frames), predictor.step
    with torch.inference_mode():
        predictor(video_chunk=video, is_first_step=True, queries=torch.from_numpy(queries)[None], **options)
        for start in range(0, video.shape[1] - step, step):
            xy, visible = predictor(video_chunk=video[:, start : start + 2 * step], **options)
    return _tracks(xy, visible, calls[-1])


def _loaded(predictor: Any, weights: Weights) -> tuple[Any, list[Results]]:
    """The predictor with weights, and a list to which every call of its network will append its results."""
    predictor.model.load_state_dict(dict(weights))
    forward = predictor.model.forward
    calls: list[Results] = []

    def recorded(**given: Any) -> Any:
        found = forward(**given)
        # Copies, as the predictor changes the results in place.
        calls.append(Results(*(value[0].numpy().copy() for value in found[:3])))
        return found

    predictor.model.forward = recorded
    return predictor.eval(), calls


def _tracks(xy: torch.Tensor, visible: torch.Tensor, results: Results) -> Tracks:
    """Positions and decisions of a predictor with the probabilities of its network, without those of support points."""
    num_own = xy.shape[2]
    return Tracks(
        xy=xy[0].numpy(),
        visible=visible[0].numpy().astype(np.bool_),
        visibility=results.visibility[:, :num_own],
        confidence=results.confidence[:, :num_own],
    )


def _video(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)[None].float()
