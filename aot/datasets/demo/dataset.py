"""The demo dataset."""

from __future__ import annotations

from pathlib import Path

from aot.datasets.demo.folder import MANIFEST, ensure_demo
from aot.datasets.demo.truth import SceneTruth
from aot.datasets.ground_truth import GroundTruth
from aot.manifest.assign import assign_prompts
from aot.system.listing import visible_entries
from aot.types import Clip


class Demo:
    """Five rendered clips, whose masks and tracks are therefore known exactly.

    Args:
        root: folder of the clips; they are rendered there on first use (about 3 MB).
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def clips(self) -> list[Clip]:
        ensure_demo(self.root)
        clips = [Clip(clip_id=path.stem, source=path) for path in visible_entries(self.root) if path.suffix == ".mp4"]
        return assign_prompts(clips, self.root / MANIFEST)

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        return SceneTruth(self.root / "truth" / f"{clip_id}.npz")
