"""One connection of a server and the handler that serves it."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from portico.errors import ClosedError, EndOfStream, MessageTooLarge, PorticoError, ProtocolError

if TYPE_CHECKING:
    from portico.server.listener import Listener
    from portico.transports.connection import Channel, Stream

logger = logging.getLogger("portico.server")


class Session:
    """Told when the connection is over (it is the connection's owner) and when the handler is."""

    __slots__ = ("connection", "host", "listener", "lost", "task")

    def __init__(self, listener: "Listener", host: bytes) -> None:
        self.listener = listener
        self.host = host
        self.connection: Stream | Channel[Any] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.lost = False

    def __call__(self, connection: object) -> None:
        """The connection is over, wherever it was handed on to."""
        self.lost = True
        self.listener.left(self)
        if self.task is None:
            self.listener.ended(self)

    def done(self, error: BaseException | None) -> bool:
        """The handler has ended; its connection goes with it. Returns whether its error has been dealt with."""
        self.task = None
        connection = self.connection
        assert connection is not None
        handled = error is None or self._count(error)
        if isinstance(error, asyncio.CancelledError):
            connection.abort()
        else:
            connection.close()
        if self.lost:
            self.listener.ended(self)
        return handled

    def _count(self, error: BaseException) -> bool:
        stats = self.listener.stats
        causes = list(_leaves(error)) if isinstance(error, BaseExceptionGroup) else [error]
        if any(not isinstance(cause, Exception) for cause in causes):
            return False
        if all(isinstance(cause, ClosedError | EndOfStream) for cause in causes):
            stats.peer_errors += 1
            if logger.isEnabledFor(logging.DEBUG):  # names cost more than the rest
                logger.debug("%s: %s", self.name(), error)
        elif all(isinstance(cause, ClosedError | EndOfStream | MessageTooLarge | ProtocolError) for cause in causes):
            stats.protocol_errors += 1
            if logger.isEnabledFor(logging.INFO):
                logger.info("%s: %s", self.name(), error)
        else:
            stats.handler_errors += 1
            logger.error("%s: the handler failed: %r", self.name(), error, exc_info=error)
        return True

    def name(self) -> str:
        """Return the peer's address, as far as it is known still."""
        try:
            return str(self.connection.remote_address) if self.connection is not None else "?"
        except PorticoError:
            return str(self.listener.address)

    def stop(self) -> None:
        """End the handler and the connection now."""
        if self.task is not None:
            self.task.cancel()
        if self.connection is not None:
            self.connection.abort()


def _leaves(error: BaseException) -> Any:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
