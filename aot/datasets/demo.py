"""The demo: short clips drawn by the program itself, so that everything about them is known."""

from __future__ import annotations

from pathlib import Path

from aot.datasets.demo_scenes import ensure_demo
from aot.datasets.ground_truth import GroundTruth, SceneTruth
from aot.manifest.assign import assign_prompts
from aot.types import Clip


class Demo:
    """Generated clips with exact masks and tracks.

    Args:
        root: where the clips are kept; drawn on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def clips(self) -> list[Clip]:
        ensure_demo(self.root)
        clips = [Clip(clip_id=path.stem, source=path) for path in sorted(self.root.glob("*.mp4"))]
        return assign_prompts(clips, self.root / "prompts.yaml")

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        return SceneTruth(self.root / "truth" / f"{clip_id}.npz")
