"""Malformed and malicious input: `targets` checks what must hold for any input, `python -m tests.fuzz` searches for
counterexamples."""

NAMES = ("manifest", "overrides", "results", "video", "pickled", "tree", "imported")
