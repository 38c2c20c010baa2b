"""Changes of uvicorn: how a server ends, and an end of WebSockets for clients that do not read."""

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .settings import Settings


class DrainingServer(uvicorn.Server):
    """A server that lets its application drain at once when it is to end, and not after its last connection.

    Clients that follow a job would keep it from that.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the server."""
        self.config.app.state.drain()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def websocket_protocol(most_idle_s: float) -> type[asyncio.Protocol]:
    """Return a protocol that cuts a client off when it takes no bytes for some seconds.

    Without it such a connection stays open, with the frames that wait in it: it would be closed when they are sent.
    """

    class ReadingClients(WebSocketsSansIOProtocol):
        _stalled: asyncio.TimerHandle | None = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(most_idle_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._end_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_timer()
            super().connection_lost(exc)

        def _end_timer(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()

    return ReadingClients


def websocket_options(settings: Settings) -> dict[str, Any]:
    """Return the options of uvicorn for streams of frames."""
    return {
        "ws": websocket_protocol(settings.most_idle_s),
        "ws_max_size": settings.most_message_bytes,
        "ws_per_message_deflate": False,  # frames are compressed already, or come from a machine that is near
    }
