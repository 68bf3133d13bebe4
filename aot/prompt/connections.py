"""Connections to the prompt page: limited in number, and in the time that a request may take to arrive."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
"""A browser opens six; below the usual limit of 1024 open files, beyond which no connection is accepted at all."""
REQUEST_SECONDS = 20.0
"""From a connection's first byte, or its beginning, to the end of the request."""


class Connection(H11Protocol):
    """One connection of a browser. One that does not send its request in time is closed; so is the longest waiting one
    where there are too many.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_request()
        if len(self.connections) > MAX_CONNECTIONS:
            self._longest_waiting().transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._wait_for_request()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _longest_waiting(self) -> Connection:
        """Possibly this one, which has just begun to wait."""
        waiting = [each for each in self.connections if isinstance(each, Connection) and each._deadline is not None]
        return min(waiting, key=lambda each: each._deadline.when() if each._deadline else 0.0)

    def _wait_for_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
