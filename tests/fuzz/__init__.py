"""Hostile input: `targets` says what must hold for any bytes, `python -m tests.fuzz` looks for bytes that break it."""

NAMES = ("manifest", "overrides", "results", "video", "pickled", "tree", "imported")
