"""Which clips there are to prompt, and how far each of them is."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aot.config import RunConfig
from aot.datasets.base import Dataset, check_clip_ids, select_clips
from aot.errors import ConfigError, PromptError
from aot.manifest.assign import best_pattern, entry_prompts
from aot.manifest.edit_file import ManifestFile
from aot.manifest.schema import ClipEntry
from aot.manifest.serialize import prompts_digest
from aot.paths import RunPaths
from aot.runs.ledger import last_done
from aot.types import Clip

NO_PROMPT, PROMPTED, DONE = "no prompt", "prompted", "done"


@dataclass(frozen=True)
class ClipState:
    """One clip's line in the list."""

    clip_id: str
    state: str
    """no prompt; prompted; or done: the run that the same options mean holds a result of these very prompts."""
    num_objects: int
    pattern: str | None
    """The pattern of the manifest from which the prompts come; None: the clip has an entry of its own, or none."""


class ClipList:
    """The clips of a dataset, with the prompts of a manifest that changes under the hands of several people.

    Args:
        clips: of the dataset; their own prompts are left alone.
        manifest: gives the prompts.
        run: the folder in which the same options put their results.
    """

    def __init__(self, clips: Sequence[Clip], manifest: ManifestFile, run: RunPaths) -> None:
        self.clips = {clip.clip_id: clip for clip in clips}
        self.manifest = manifest
        self._run = run
        self._written: tuple[tuple[int, int], ...] = ()
        self._done: dict[str, dict[str, Any]] = {}
        # Most entries are the same from one look to the next.
        self._known: dict[str, tuple[ClipEntry, ClipState]] = {}

    def states(self) -> tuple[str, list[ClipState]]:
        """A revision that changes with the states, and the states of all clips, ordered by id.

        Raises:
            ConfigError: the manifest on the disk is wrong, or two of its patterns are equally specific for a clip.
        """
        self.manifest.refresh()
        ledgers = [path.stat() for path in sorted(self._run.ledgers.glob("*.jsonl"))]
        written = tuple((stat.st_size, stat.st_mtime_ns) for stat in ledgers)
        if written != self._written:
            self._done, self._written, self._known = last_done(self._run, "content"), written, {}
        patterns = self._patterns()
        revision = hashlib.sha256(repr((self.manifest.revision, written)).encode()).hexdigest()[:16]
        return revision, [self._state(clip_id, patterns) for clip_id in sorted(self.clips)]

    def state(self, clip_id: str) -> ClipState:
        """Of one clip, as far as is known."""
        return self._state(clip_id, self._patterns())

    def entry(self, clip_id: str) -> tuple[ClipEntry | None, str | None]:
        """A clip's entry, and the pattern under which it stands where it is not the clip's own."""
        return self._entry(clip_id, self._patterns())

    def _entry(self, clip_id: str, patterns: Sequence[str]) -> tuple[ClipEntry | None, str | None]:
        entries = self.manifest.entries
        if clip_id in entries:
            return entries[clip_id], None
        pattern = best_pattern(clip_id, patterns)
        return (None, None) if pattern is None else (entries[pattern], pattern)

    def _patterns(self) -> list[str]:
        return [key for key in self.manifest.entries if key not in self.clips]

    def _state(self, clip_id: str, patterns: Sequence[str]) -> ClipState:
        entry, pattern = self._entry(clip_id, patterns)
        if entry is None:
            return ClipState(clip_id, NO_PROMPT, 0, None)
        known_entry, known = self._known.get(clip_id, (None, None))
        if known is None or known_entry is not entry or known.pattern != pattern:
            num_objects = len({item.id for item in entry.objects})
            known = ClipState(clip_id, DONE if self._is_done(clip_id, entry) else PROMPTED, num_objects, pattern)
            self._known[clip_id] = entry, known
        return known

    def _is_done(self, clip_id: str, entry: ClipEntry) -> bool:
        done = self._done.get(clip_id)
        if done is None or not self._run.clip(clip_id).result.exists():
            return False
        try:
            digest = prompts_digest(entry_prompts(entry, self.manifest.path.parent))
        except (OSError, PromptError):  # a mask file that is not there (any more)
            return False
        return bool(done["content"]["prompts_sha256"] == digest)


def list_clips(config: RunConfig) -> tuple[list[Clip], Path]:
    """The clips that a configuration chooses, without prompts, and the manifest that holds their prompts.

    The dataset is built over an empty manifest: so it lists every clip, whatever the real one lacks or says too much.

    Raises:
        ConfigError, DatasetError: the dataset takes no manifest, or its files are not as they should be.
    """
    arguments = dict(config.dataset.arguments)
    if "prompts" not in arguments:
        raise ConfigError(
            f"dataset={config.dataset.name} takes no prompt manifest; put the videos into a folder and say "
            f"dataset=videos dataset.root=FOLDER"
        )
    if arguments["prompts"] is None:
        raise ConfigError("dataset.prompts: required and not given; say dataset.prompts=FILE, the manifest to write")
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.yaml"
        empty.write_text("clips: {}\n", encoding="utf-8")
        dataset: Dataset = config.dataset.model_copy(update={"arguments": {**arguments, "prompts": empty}}).build()
        clips = dataset.clips()
    check_clip_ids(clips)
    return select_clips(clips, **config.selection.model_dump()), Path(arguments["prompts"])
