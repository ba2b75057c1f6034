"""One HTTP request to an ASGI application, and the application's answer."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, cast

from portico.errors import ClosedError, ProtocolError
from portico.protocols.http11 import BadRequest
from portico.web.asgi_answer import AppAnswer, Message, gone
from portico.web.asgi_scope import http_scope
from portico.web.request import Request
from portico.web.response import Response

if TYPE_CHECKING:
    from portico.web.asgi_host import AsgiHost

logger = logging.getLogger("portico.web")

DISCONNECT: Message = {"type": "http.disconnect"}


class HttpExchange:
    """Runs the app for one request. The app's task may go on when its answer has left; it reads no more then."""

    def __init__(self, host: "AsgiHost", request: Request) -> None:
        self._host, self._request = host, request
        self._stream = request.stream
        self._owner: Any = self._stream.owner
        self._answer = AppAnswer("http.response", request.method, self._finish)
        self._task: asyncio.Task[object] | None = None
        self._body: AsyncGenerator[bytes, None] | None = None
        self._left = request.body_size
        self._asked = False  # for the first message, which comes without a body, too
        self._reading: asyncio.Task[bytes] | None = None
        self._watching: asyncio.Future[None] | None = None
        self._finished = False
        self._gone: BaseException | None = None  # what the client did instead of waiting for its answer

    async def run(self) -> Response:
        """Return the app's answer, as soon as it is known how it begins.

        :raises BadRequest: the body is larger than allowed, malformed or too slow
        :raises ClosedError: the client has gone
        :raises EndOfStream: the client ended in mid-body
        :raises Exception: what the app raised before it answered"""
        scope = http_scope(self._request, self._host.root_path, self._host.state)
        self._task = task = self._host.start(scope, self._receive, self._send)
        task.add_done_callback(self._ended)
        try:
            response: Response = await self._answer.response
        except asyncio.CancelledError:
            await end(task)
            raise
        finally:
            if self._finished:
                await self._settle()
        if self._answer.pieces is not None:
            self._answer.pieces.over = self._over
        return response

    # what the app calls

    async def _receive(self) -> Message:
        while not self._finished and self._gone is None:
            if self._left == 0:
                if not self._asked:
                    return self._piece(b"")
                await self._watch()
                break
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
            reading = self._reading
            await asyncio.wait([reading])
            if reading is not self._reading:  # another task of the app took it
                continue
            self._reading = None
            if reading.cancelled():
                break
            error = reading.exception()
            if error is None:
                return self._piece(reading.result())
            self._client_failed(error)
        if not self._finished and self._gone is None:
            self._gone = gone()
        return DISCONNECT

    async def _read(self) -> bytes:
        if self._body is None:
            self._body = cast("AsyncGenerator[bytes, None]", aiter(self._request))
        return await anext(self._body, b"")

    def _piece(self, body: bytes) -> Message:
        self._asked = True
        if not body:
            self._left = 0
        elif self._left is not None:
            self._left -= len(body)
        return {"type": "http.request", "body": body, "more_body": self._left != 0}

    def _client_failed(self, error: BaseException) -> None:
        """The body did not come as it must."""
        self._gone = error
        if isinstance(error, BadRequest) and not self._answer.response.done():
            self._answer.response.set_exception(error)  # which is the answer
            self._finish()

    async def _watch(self) -> None:
        """Wait until the client goes away, or gets the end of its answer. A client that ends its side may listen still,
        but waits no longer than others who leave would: it cannot be told which of them it is."""
        if self._is_gone():
            return
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_future()
            self._request.gone.call(self._stop_watching)
        await asyncio.shield(self._watching)

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.set_result(None)
            self._watching = None

    def _is_gone(self) -> bool:
        reading, _, closing, lost = self._stream.flags
        return not reading or closing or lost

    async def _send(self, message: Message) -> None:
        _, _, closing, lost = self._stream.flags
        if not self._answer.complete and (lost or closing or self._gone is not None):
            self._gone = self._gone or gone()
            raise gone() from self._gone
        await self._answer.take(message)

    # ends

    def _finish(self) -> None:
        """The answer is whole, or not wanted any more: the connection is no more this request's."""
        if not self._finished:
            self._finished = True
            self._stop_watching()
            if self._reading is not None:
                self._reading.cancel()

    async def _settle(self) -> None:
        """Wait until nobody reads for the app any more."""
        reading = self._reading
        if reading is not None and not reading.done():
            await asyncio.wait([reading])
        if self._body is not None:
            await self._body.aclose()

    async def _over(self) -> None:
        """The last of a streamed answer is about to leave; or the client has gone, then the app's end is awaited."""
        await self._settle()
        task = self._task
        if task is None or self._answer.complete or self._is_dropped():
            return
        current = asyncio.current_task()
        if current is None or current.cancelling():
            task.cancel()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await end(task)
            raise

    def _is_dropped(self) -> bool:
        pieces = self._answer.pieces
        return pieces is not None and pieces.drops

    def _is_left(self) -> bool:
        """Whether the client went away before it had the whole answer."""
        pieces = self._answer.pieces
        return self._gone is not None or (
            pieces is not None and pieces.closed and not pieces.drops and not self._answer.complete
        )

    def _ended(self, task: asyncio.Task[object]) -> None:
        """The app has ended."""
        self._task = None
        error = None if task.cancelled() else task.exception()
        self._finish()
        left, heard = self._is_left(), False
        if not self._answer.complete:
            begun = self._answer.pieces is not None
            cause = (gone() if begun else self._gone) if self._gone is not None else error
            if left and not isinstance(self._gone, BadRequest):
                self._stream.close()  # it may have ended its side only; nothing more comes from here either
            heard = self._answer.fail(cause or self._unanswered(task))
        if error is None or (heard and not left):
            return
        if not left:
            self._host.report(self._owner, error)
        elif not isinstance(error, ClosedError):
            logger.info("%s ended with %r after its client had gone", self._host, error)

    def _unanswered(self, task: asyncio.Task[object]) -> Exception:
        how = "was cancelled" if task.cancelled() else "ended"
        where = "in the middle of its answer" if self._answer.begun else "without an answer"
        return ProtocolError(f"{self._host} {how} {where}")


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel `task` and wait for its end."""
    task.cancel()
    await asyncio.wait([task])
