"""The demo dataset."""

from __future__ import annotations

from pathlib import Path

from aot.datasets.demo.folder import MANIFEST, ensure_demo
from aot.datasets.demo.scenes import MORE_SCENES, SCENES
from aot.datasets.demo.truth import SceneTruth
from aot.datasets.ground_truth import GroundTruth
from aot.errors import ConfigError
from aot.manifest.assign import assign_prompts
from aot.system.nearest import suggestion
from aot.types import Clip


class Demo:
    """Rendered clips, whose masks and tracks are therefore known exactly.

    Args:
        root: folder of the five clips; they are rendered there on first use (about 3 MB), the others beside it, in
            `<root>-more`.
        scenes: names of the clips; an empty list has the five of `make demo`.
    """

    def __init__(self, root: Path, scenes: tuple[str, ...] = ()) -> None:
        known = [scene.clip_id for scene in (*SCENES, *MORE_SCENES)]
        for name in scenes:
            if name not in known:
                raise ConfigError(f"dataset.scenes: no scene {name!r}; {suggestion(name, known)}")
        self.root = root
        self.scenes = scenes or tuple(scene.clip_id for scene in SCENES)

    def clips(self) -> list[Clip]:
        found: list[Clip] = []
        for folder, scenes in ((self.root, SCENES), (self._more, MORE_SCENES)):
            names = sorted(scene.clip_id for scene in scenes)
            if set(names) & set(self.scenes):
                ensure_demo(folder, scenes)
                clips = [Clip(clip_id=name, source=folder / f"{name}.mp4") for name in names]
                found += assign_prompts(clips, folder / MANIFEST)
        return sorted((clip for clip in found if clip.clip_id in self.scenes), key=lambda clip: clip.clip_id)

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        folder = self._more if clip_id in [scene.clip_id for scene in MORE_SCENES] else self.root
        return SceneTruth(folder / "truth" / f"{clip_id}.npz")

    @property
    def _more(self) -> Path:
        """Folder of the clips that are rendered on request only."""
        return self.root.with_name(f"{self.root.name}-more")
