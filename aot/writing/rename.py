"""Write the names of objects into a finished result; nothing that was computed depends on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py

from aot.manifest.serialize import prompts_as_json
from aot.system.files import replacing, write_errors
from aot.types import Clip


def rename_objects(path: Path, clip: Clip) -> None:
    """Replace the names of the objects, and those in their prompts, in a result, atomically.

    Args:
        path: the result.
        clip: with the new names; its prompts are otherwise those of the result.
    Raises:
        WriteError: the file cannot be written.
    """
    prompts = [[prompt for prompt in clip.prompts if prompt.object_id == object_id] for object_id in clip.object_ids]
    values = {
        "objects/name": list(clip.object_names),
        "objects/prompt": [json.dumps(prompts_as_json(own)) for own in prompts],
    }
    # A copy: results of other runs may be links to the same file.
    with replacing(path) as part, write_errors(path):
        shutil.copyfile(path, part)
        with h5py.File(part, "r+", locking=False) as file:
            for name, texts in values.items():
                del file[name]
                file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
