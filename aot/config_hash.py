"""The configuration hash: it names the run folder, so that the same command finds its results again.

It must not change in a refactoring. Two changes of the code would change it without affecting any result:

    a class moves            → an option is identified by the dotted name that its class had in version 0.1
    an option gets a key     → arguments that version 0.1 did not have are hashed only if they differ from the default

The arguments of version 0.1 are always hashed, as they were then, so the run folders of version 0.1 keep their names.

A new version of aot keeps all results, whether or not it would compute the last bits in the same way, unless a part
computed something wrong: then the part gets a revision, the hash of the runs that use it changes, and with it the name
of their folder. Results of the earlier revision stay where they are.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

_MASK_FOLDERS = (
    "root images annotations split subset meta late_objects merge_objects object_folders prompts prompt_from fps"
)
_COTRACKER3 = (
    "checkpoint precision device compile resolution num_iters visibility_threshold support_grid backward "
    "feature_precision query_block frame_block max_tokens"
)

# Identity → arguments in version 0.1. Never change an entry: `tests/test_config_hash.py` has the hashes of 0.1.
_VERSION_0_1 = {
    "aot.datasets.demo.Demo": "root",
    "aot.datasets.lerobot.LeRobot": "root prompts cameras",
    "aot.datasets.mask_folders.MaskFolders": _MASK_FOLDERS,
    "aot.datasets.sa_v.SaVideos": "root annotations frames_per_annotation prompts prompt_from",
    "aot.datasets.single_video.SingleVideo": "path frame box points labels mask fps",
    "aot.datasets.tap_vid.TapVid": "path unpacked queries stride fps",
    "aot.datasets.videos.Videos": "root prompts masks_pattern tracks_pattern",
    "aot.query_points.adaptive.AdaptiveSampler": "num_points min_points spacing_px margin_px",
    "aot.query_points.grid.GridSampler": "grid_size",
    "aot.segmentation.grabcut.GrabCutSegmenter": "propagate working_height prompt_iterations iterations memory",
    "aot.segmentation.none.NoSegmenter": "",
    "aot.segmentation.sam2.Sam2Segmenter": "size checkpoint propagate precision device compile image_size",
    "aot.tracking.cotracker3_offline.CoTracker3OfflineTracker": f"{_COTRACKER3} features feature_folder",
    "aot.tracking.cotracker3_online.CoTracker3OnlineTracker": f"{_COTRACKER3} late_queries",
    "aot.tracking.cotracker_upstream.CoTrackerUpstreamTracker": "checkpoint mode v2 window_len device backward",
    "aot.tracking.lucas_kanade.LucasKanadeTracker": (
        "window_px pyramid_levels max_return_error_px max_helpers max_side_px"
    ),
}


# Identity → number of times that its results were wrong and were corrected. Only ever increase it.
_REVISIONS: dict[str, int] = {}


def import_target(target: str) -> Any:
    """Import the class that a `_target_` names.

    Raises:
        ImportError, AttributeError, ValueError: there is no such class.
    """
    module, _, attribute = target.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def hashed_part(target: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The identity of an option and those of its arguments that affect results.

    Args:
        target: dotted name of its class.
        arguments: all arguments of its constructor. Paths are never hashed, nor is None, which may stand for a path.
    """
    constructor = import_target(target)
    identity = _identity(target, constructor)
    first = _VERSION_0_1.get(identity, "").split()
    defaults = {name: parameter.default for name, parameter in inspect.signature(constructor).parameters.items()}
    counted = {
        name: value
        for name, value in arguments.items()
        if not isinstance(value, Path | None) and (name in first or value != defaults[name])
    }
    revision = _REVISIONS.get(identity, 0)
    return identity, counted | ({"revision": revision} if revision else {})


def hash_of(deciding: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of the settings that affect results."""
    return hashlib.sha256(json.dumps(to_jsonable_python(deciding), sort_keys=True).encode()).hexdigest()


def _identity(target: str, constructor: Any) -> str:
    """The dotted name in version 0.1 of the class that a target names; for a newer class, its current name.

    Documented targets stay importable, so a class that has moved can still be imported by its first name.
    """
    if target in _VERSION_0_1:
        return target
    same_name = [known for known in _VERSION_0_1 if known.rpartition(".")[2] == constructor.__name__]
    return next(
        (known for known in same_name if import_target(known) is constructor),
        f"{constructor.__module__}.{constructor.__qualname__}",
    )
