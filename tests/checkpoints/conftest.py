"""The `server` fixture for all tests of checkpoints."""

from tests.checkpoints.server import server

__all__ = ["server"]
