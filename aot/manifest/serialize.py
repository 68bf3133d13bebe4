"""Prompts as JSON values, and a digest of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aot.errors import PromptError
from aot.system.os_errors import os_problem
from aot.types import MaskFile, Prompt, RleMask, Words


def prompts_as_json(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """The prompts as in a manifest, for result files and to detect changes."""
    return [_as_json(prompt) for prompt in prompts]


def prompts_digest(prompts: Iterable[Prompt], *, with_names: bool = True) -> str:
    """SHA-256 of the prompts; mask files are included by content, not by path.

    Args:
        prompts: of a clip.
        with_names: whether the names of the objects count; those of a clip with objects that a detector finds always
            do, because its result does not have the prompts as they were given.
    Raises:
        PromptError: a mask file cannot be read.
    """
    digest = hashlib.sha256()
    prompts = list(prompts)
    with_names = with_names or any(prompt.words for prompt in prompts)
    for prompt in prompts:
        written = _as_json(prompt)
        if not with_names:
            del written["name"]
        if isinstance(prompt.mask, MaskFile):
            written.pop("mask")
        digest.update(json.dumps(written, sort_keys=True).encode())
        if isinstance(prompt.mask, MaskFile):
            digest.update(hashlib.sha256(_mask_bytes(prompt.mask.path)).digest())
    return digest.hexdigest()


def _as_json(prompt: Prompt) -> dict[str, Any]:
    written: dict[str, Any] = {"id": prompt.object_id, "name": prompt.name, "frame": prompt.frame}
    if prompt.box is not None:
        written["box"] = list(prompt.box)
    if prompt.points:
        written["points"] = [list(point) for point in prompt.points]
        written["labels"] = list(prompt.labels)
    if isinstance(prompt.mask, MaskFile):
        written["mask"] = str(prompt.mask.path.absolute())
        if prompt.mask.value is not None:
            written["mask_value"] = prompt.mask.value
    if isinstance(prompt.mask, RleMask):
        written["mask"] = {"size": [prompt.mask.height, prompt.mask.width], "counts": prompt.mask.counts}
    if prompt.words is not None:
        written |= _words_as_json(prompt.words)
    if prompt.found is not None:
        written |= {"text": prompt.found.text}
        written |= {} if prompt.found.score is None else {"score": prompt.found.score}
        written |= {"model": prompt.found.model} if prompt.found.model else {}
    if prompt.query_points:
        written["query_points"] = [list(query) for query in prompt.query_points]
    return written


def _words_as_json(words: Words) -> dict[str, Any]:
    written: dict[str, Any] = {"text": words.text}
    if words.count != 1:
        written["count"] = words.count or "all"
    if words.min_score is not None:
        written["min_score"] = words.min_score
    if len(words.frames) > 1:
        written["frames"] = list(words.frames)
    return written


def _mask_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise PromptError(f"mask {path} cannot be read: {os_problem(exc)}") from exc
