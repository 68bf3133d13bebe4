"""Where torch.compile keeps what it has compiled: one folder for all processes, tasks and nodes."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""PyTorch's environment variable with the folder."""


def share_compiled_code() -> Path:
    """Make torch.compile reuse what any process of this user has compiled for the same model, device and PyTorch.

    By default PyTorch writes into the machine's folder for temporary files, which other nodes do not see.

    Returns:
        The folder: $TORCHINDUCTOR_CACHE_DIR if it is set, otherwise aot/compiled in $XDG_CACHE_HOME or ~/.cache.
    """
    # First: this import sets the variable to the folder for temporary files, unless it is set.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.setdefault(CACHE_VARIABLE, str(cache / "aot" / "compiled")))
    import torch._inductor.config

    torch._inductor.config.fx_graph_cache = True
    return folder
