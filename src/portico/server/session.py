"""One connection of a server and the handler that serves it."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from portico._core import Wire
from portico.address import Address
from portico.errors import ClosedError, DeliveryError, EndOfStream, MessageTooLarge, PorticoError, ProtocolError
from portico.transports.connection import Stream, peer_address

if TYPE_CHECKING:
    from portico.server.listener_base import ListenerBase
    from portico.transports.connection import Channel
    from portico.transports.datagrams import Datagrams

logger = logging.getLogger("portico.server")

PEER_GONE = (ClosedError, EndOfStream, DeliveryError)
"""Errors that are no fault of the handler that they leave."""


class Session:
    """From accept to the end of connection and handler, whichever comes last: it is told of both (it is the
    connection's owner)."""

    __slots__ = ("connection", "host", "listener", "lost", "stopped", "task", "wire")

    def __init__(self, listener: "ListenerBase", host: bytes) -> None:
        self.listener = listener
        self.host = host
        self.connection: Stream | Channel[Any] | Datagrams | None = None
        self.wire: Wire | None = None  # while the handshake is under way
        self.task: asyncio.Task[Any] | None = None
        self.lost = self.stopped = False

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
        handled = error is None or self.count(error)
        if isinstance(error, asyncio.CancelledError):
            connection.dismiss()
        elif error is None:
            connection.close()
        else:
            connection.close_after(error)
        if self.lost:
            self.listener.ended(self)
        return handled

    def count(self, error: BaseException) -> bool:
        """Count the error that a handler ended with, and log it; say whether that is all to do."""
        stats = self.listener.stats
        causes = list(_leaves(error)) if isinstance(error, BaseExceptionGroup) else [error]
        if any(not isinstance(cause, Exception) for cause in causes):
            return False
        if all(isinstance(cause, PEER_GONE) for cause in causes):
            stats.peer_errors += 1
            if logger.isEnabledFor(logging.DEBUG):  # names cost more than the rest
                logger.debug("%s: %s", self.name(), error)
        elif all(isinstance(cause, (*PEER_GONE, MessageTooLarge, ProtocolError)) for cause in causes):
            stats.protocol_errors += 1
            if logger.isEnabledFor(logging.INFO):
                logger.info("%s: %s", self.name(), error)
        else:
            self.failed(error)
        return True

    def failed(self, error: BaseException) -> None:
        """Count an error of the handler's own, and log it; the handler may go on."""
        self.listener.stats.handler_errors += 1
        logger.error("%s: the handler failed: %r", self.name(), error, exc_info=error)

    def name(self) -> str:
        """Return the peer's address, as far as it is known still."""
        remote: Address | None = None
        try:
            if self.connection is not None:
                remote = self.connection.remote_address
            elif self.wire is not None:
                remote = peer_address(self.wire, self.listener.scheme)
        except PorticoError:
            pass
        return str(self.listener.address if remote is None or not (remote.host or remote.path) else remote)

    def stop(self) -> None:
        """End the handler and the connection now."""
        self.stopped = True
        if self.task is not None:
            self.task.cancel()
        if self.connection is not None:
            self.connection.dismiss()
        elif self.wire is not None:
            Stream(self.wire, self.listener.settings, scheme=self.listener.scheme).abort()


def _leaves(error: BaseException) -> Any:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
