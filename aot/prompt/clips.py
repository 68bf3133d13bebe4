"""The clips of the prompt page and the state of each of them."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from aot.config import RunConfig
from aot.datasets.base import Dataset, read_clips, select_clips
from aot.errors import AotError, ConfigError, PromptError
from aot.manifest.assign import best_pattern, entry_prompts
from aot.manifest.edit_file import ManifestFile
from aot.manifest.schema import ClipEntry
from aot.manifest.serialize import prompts_digest
from aot.paths import RunPaths
from aot.runs.ledger import last_done, ledger_states
from aot.runs.ledger_files import ended_names
from aot.types import Clip

NO_PROMPT, PROMPTED, DONE = "no prompt", "prompted", "done"

# New files are looked for at most this often, and with pauses that are this many times as long as looking takes.
_LIST_SECONDS = 5.0
_LIST_PAUSES = 20


@dataclass(frozen=True)
class ClipState:
    """One clip in the list."""

    clip_id: str
    state: str
    """`no prompt`, `prompted`, or `done`: the run of the same options has a result for exactly these prompts."""
    num_objects: int
    pattern: str | None
    """The pattern in the manifest that gives the clip its prompts; None: it has its own entry, or no prompt."""


class ClipList:
    """The clips of a dataset and their prompts, from a manifest that several people may edit.

    Args:
        clips: clips of the dataset; prompts that they already have are ignored.
        manifest: the source of the prompts.
        run: the run folder of the same options, for the state `done`.
        list_again: lists the clips again, so that new files appear; None: the list does not change.
        now: a clock, in s.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        manifest: ManifestFile,
        run: RunPaths,
        list_again: Callable[[], Sequence[Clip]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clips = {clip.clip_id: clip for clip in clips}
        self._list_again, self._now = list_again, now
        self._listing = Lock()
        self._listed_next = now() + _LIST_SECONDS
        self.manifest = manifest
        self._run = run
        self._written: tuple[dict[str, tuple[int, int]], set[str]] = ({}, set())
        self._done: dict[str, dict[str, Any]] = {}
        # Most entries stay the same between two calls.
        self._known: dict[str, tuple[ClipEntry, ClipState]] = {}

    def states(self) -> tuple[str, list[ClipState]]:
        """The states of all clips, ordered by id, preceded by a revision that changes when they do.

        Raises:
            ConfigError: the manifest on disk is not valid, or two of its patterns are equally specific for a clip.
        """
        self.manifest.refresh()
        self._add_new_clips()
        written = (ledger_states(self._run), ended_names(self._run))
        if written != self._written:
            self._done, self._written, self._known = last_done(self._run, "content"), written, {}
        patterns = self._patterns()
        state = (self.manifest.revision, len(self.clips), sorted(written[0].items()), sorted(written[1]))
        revision = hashlib.sha256(repr(state).encode()).hexdigest()[:16]
        return revision, [self._state(clip_id, patterns) for clip_id in sorted(self.clips)]

    def state(self, clip_id: str) -> ClipState:
        """The state of one clip, without reading files again."""
        return self._state(clip_id, self._patterns())

    def entry(self, clip_id: str) -> tuple[ClipEntry | None, str | None]:
        """The entry of a clip, and its pattern if it is not the clip's own entry."""
        return self._entry(clip_id, self._patterns())

    def _add_new_clips(self) -> None:
        """Add the clips of new files, now and then; those of deleted files stay, as one may be edited just now."""
        if self._list_again is None or self._now() < self._listed_next or not self._listing.acquire(blocking=False):
            return
        try:
            started = self._now()
            with suppress(AotError):  # the folder may be away for a moment; the clips say so when they are opened
                for clip in self._list_again():
                    self.clips.setdefault(clip.clip_id, clip)
            self._listed_next = self._now() + max(_LIST_SECONDS, _LIST_PAUSES * (self._now() - started))
        finally:
            self._listing.release()

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
            prompts = entry_prompts(entry, self.manifest.path.parent)
            digest = prompts_digest(tuple(prompt.shifted(self.clips[clip_id].manifest_frame_0) for prompt in prompts))
        except (OSError, PromptError):  # a mask file is missing
            return False
        return bool(done["content"]["prompts_sha256"] == digest)


def list_clips(config: RunConfig) -> tuple[list[Clip], Path]:
    """The clips that a configuration selects, without prompts, and the path of their manifest.

    The dataset is built with an empty manifest, so that errors in the real one do not prevent listing its clips.

    Raises:
        ConfigError: the dataset does not support manifests, or none is given.
        DatasetError: files of the dataset are missing or not valid.
    """
    arguments = dict(config.dataset.arguments)
    if "prompts" not in arguments:
        raise ConfigError(
            f"dataset={config.dataset.name} does not use a prompt manifest; put the videos into a folder and use "
            f"dataset=videos dataset.root=FOLDER"
        )
    if arguments["prompts"] is None:
        raise ConfigError("dataset.prompts: required and not given; set dataset.prompts=FILE to the manifest to write")
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.yaml"
        empty.write_text("clips: {}\n", encoding="utf-8")
        dataset: Dataset = config.dataset.model_copy(update={"arguments": {**arguments, "prompts": empty}}).build()
        clips = read_clips(dataset)
    return select_clips(clips, **config.selection.model_dump()), Path(arguments["prompts"])


def linked_outside(clips: Sequence[Clip], root: Path) -> list[Clip]:
    """The clips whose video, or one of whose images, is a symbolic link that leads out of a folder.

    Args:
        clips: of a dataset.
        root: folder of the dataset; where it is a link itself, the folder that it leads to counts.
    """
    root = root.resolve()
    return [clip for clip in clips if any(not path.resolve().is_relative_to(root) for path in _links_of(clip.source))]


def _links_of(source: Path) -> Iterator[Path]:
    """What may be a link: the source, whose parents may be links too, and the images of a folder."""
    yield source
    if source.is_dir():
        with os.scandir(source) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_symlink())
