"""What a test says on the command line of `aot.run`."""

from __future__ import annotations

EMBEDDED = ("segmenter=grabcut", "tracker=lucas_kanade", "launcher=inline")
"""The models that need no weights, in this process."""
