"""The HTTP/1.1 conversation on one connection: requests in, answers out in the same order."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterable, Coroutine
from math import inf
from typing import TYPE_CHECKING, Any

from portico.errors import ClosedError, EndOfStream
from portico.protocols.http11 import END, BadRequest, End, RequestParser
from portico.transports.connection import Signal, Stream
from portico.web.answering import CONTINUE, Head, Heads, drop, send, send_pieces
from portico.web.limits import Cut, Deadline, HttpLimits, is_cancelled
from portico.web.request import Request, too_large
from portico.web.response import Response
from portico.web.routing import Route, Router

if TYPE_CHECKING:
    from portico.web.cors import CORS
    from portico.web.metrics import RequestCounts

logger = logging.getLogger("portico.web")

READ = 16 * 1024
"""Bytes of pipelined requests that are read at a time, which bounds how many heads there are in memory."""

READ_CHUNKED = 64 * 1024

DISCARD = 256 * 1024
"""Bytes of a body that no route wanted which are read for the sake of the connection (Go's net/http: 256 KiB)."""

FRESH = 1.0
"""Seconds that a connection without a request yet has for one when draining begins: it may be on its way."""

_FRESH, _IDLE, _HEAD, _BUSY, _BODY = range(5)  # what is waited for
_UNANSWERED, _ANSWERING, _ANSWERED = range(3)  # how far the request at hand is


class Conversation:
    """One connection and its requests, from the first byte to the last or to an upgrade."""

    __slots__ = (
        "_asked",
        "_asking",
        "_body_over",
        "_broken",
        "_cors",
        "_cut",
        "_deadline",
        "_draining",
        "_events",
        "_gone",
        "_heads",
        "_max_body",
        "_open",
        "_parser",
        "_patience",
        "_phase",
        "_received",
        "_request",
        "_requests",
        "_router",
        "_served",
        "_stage",
        "_wants_continue",
        "_watched",
        "limits",
        "stream",
    )

    def __init__(
        self,
        stream: Stream,
        router: Router,
        limits: HttpLimits,
        heads: Heads,
        cors: "CORS | None" = None,
        requests: "RequestCounts | None" = None,
    ) -> None:
        self.stream = stream
        self._router, self.limits, self._heads, self._cors, self._requests = router, limits, heads, cors, requests
        self._asked = 0.0
        self._parser = RequestParser(max_head=limits.max_head, max_headers=limits.max_headers, head=Request)
        self._events: deque[Request | bytes | End] = deque()
        self._deadline = Deadline(self._expire)
        self._phase = _FRESH
        self._served = 0
        self._request: Request | None = None
        self._open = True
        self._draining = False
        self._gone: Signal | None = None
        self._cut: Cut | None = None
        self._asking = False  # the answer at hand for its next piece
        self._watched = False
        self._broken = False  # the client's body did not come whole: it is to blame for what the route raises
        self._stage = _UNANSWERED

    async def run(self) -> Coroutine[Any, Any, object] | None:
        """Answer requests until the connection is to close; or return what serves it after an upgrade."""
        draining, on_drain = self.stream.draining, self._drain
        self._deadline.set(self._deadline.now() + self.limits.head_timeout)
        draining.call(on_drain)
        try:
            while self._open:
                request = await self._next_request()
                if request is None:
                    break
                follow = await self._answer(request)
                if follow is not None:
                    return follow
        except BadRequest as error:
            if not self._broken:
                self._tell(self._blame(error))
        finally:  # what refers to this in a circle would keep it
            draining.call_off(on_drain)
            self._deadline.close()
            self._parser.close()
            self._end_request()
        return None

    @property
    def gone(self) -> Signal:
        """Happens when the client of the request at hand goes away, or ends its side."""
        if self._gone is None:
            self._gone = Signal()
            self._watch()
        return self._gone

    def _watch(self) -> None:
        """Notice what becomes of the connection from here on."""
        self._look()
        if not self._watched:
            self._watched = True
            self.stream.watch(self._look)

    def _look(self) -> None:
        reading, _, closing, lost = self.stream.flags
        if self._gone is not None and not self._gone and (not reading or closing or lost):
            self._gone.set()
        if self._cut is None:
            return
        if closing or lost:
            self._cut.ask()
        elif not reading and self._asking and (self._body_over or not self.stream.queued[0]):
            self._cut.ask_while(self._is_asking)

    def _is_asking(self) -> bool:
        return self._asking

    def _end_request(self) -> None:
        """Nothing more is to be done for the request at hand."""
        if self._request is not None:
            self._request.incoming = None
            self._request = None
        self._gone = None
        if self._watched:
            self._watched = False
            self.stream.watch(None)

    # requests

    async def _next_request(self) -> Request | None:
        """Return the next request; None: there is none."""
        events, parser, deadline = self._events, self._parser, self._deadline
        if not events and self._served:
            self._phase = _HEAD if parser.in_head else _IDLE
            if self._draining and not parser.in_head:
                return None
            limit = self.limits.head_timeout if parser.in_head else self.limits.keep_alive
            deadline.set(deadline.now() + limit)
        while not events:
            if parser.failure is not None:
                raise parser.failure
            try:
                data = await self.stream.recv(READ)
                if self.stream.flags[2]:  # closed by this side in between: it could not be answered
                    return None
            except ClosedError:
                if self._broken or not parser.in_head:  # nobody loses anything
                    return None
                raise
            if not data:
                return None
            events.extend(parser.feed(data))
            if not events and self._phase != _HEAD and parser.in_head:
                if self._phase == _IDLE:
                    deadline.set(deadline.now() + self.limits.head_timeout)
                self._phase = _HEAD
        self._phase, deadline.due = _BUSY, inf
        if self._requests is not None:
            self._asked = time.monotonic()
        request = events.popleft()
        assert isinstance(request, Request)
        return request

    async def _answer(self, request: Request) -> Coroutine[Any, Any, object] | None:
        """Answer `request`, or return what serves the connection from here on."""
        self._request = request
        request.incoming = self
        self._served += 1
        route = self._router.find(request)
        upgrades = isinstance(route, Route) and route.upgrades
        if request.upgrade and not upgrades:
            self._events.extend(self._parser.resume())
            if "websocket" in request.headers.tokens("upgrade"):
                request.keep_alive = False  # as after one that is refused
        self._begin_body(request, route)
        response = None if self._cors is None else self._cors.preflight(request)
        if response is None:
            if isinstance(route, Response):
                response = route
            elif upgrades:
                result = await self._upgrade(request, route)
                if not isinstance(result, Response):
                    if self._requests is not None:
                        self._requests.count(request.method, 101)
                    return result
                response = result
            else:
                response = await self._call(route, request)
        await self._send(request, response)
        if self._open and not self._body_over:
            await self._discard()
        self._end_request()
        return None

    async def _upgrade(self, request: Request, route: Route) -> Response | Coroutine[Any, Any, object]:
        """Return what serves the connection from here on, or an answer that refuses."""
        self.stream.unread(self._parser.take_rest())
        result = await self._call(route, request)
        if isinstance(result, Response):
            # a proxy in front may take the connection for a tunnel, whatever is answered: nothing more is read from it
            self._body_over, request.keep_alive = True, False
        else:
            request.headers.pack()  # the channel keeps it
        return result  # type: ignore[no-any-return]  # as a route that upgrades promises

    async def _call(self, route: Route, request: Request) -> Any:
        """Return what `route` answers, or the answer to its error."""
        if request.body_size is not None and request.body_size > self._max_body:
            return self._blame(too_large(self._max_body))
        try:
            result = await route.function(request)
            return result if route.upgrades or isinstance(result, Response) else Response.of(result)
        except Exception as error:
            if self._is_lost():
                raise
            if isinstance(error, BadRequest):
                return self._blame(error)
            self._report(error)
            return Response.error(500)
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            self._report(error)  # something that the route waited for was cancelled, not the route
            return Response.error(500)

    # bodies

    def _begin_body(self, request: Request, route: Route | Response) -> None:
        events = self._events
        self._body_over = bool(events) and events[0] is END
        if self._body_over:
            events.popleft()
        self._max_body = DISCARD
        if isinstance(route, Route):
            self._max_body = self.limits.max_body if route.max_body is None else route.max_body
        self._received = 0
        self._patience = self.limits.body_timeout
        self._wants_continue = request.expects_continue
        self._stage = _UNANSWERED

    async def next_piece(self) -> bytes:
        """Return what comes next of the body of the request at hand; b"" is its end."""
        while not self._body_over:
            if not self._events:
                await self._more()
                continue
            event = self._events[0]
            if isinstance(event, bytes) and self._received + len(event) > self._max_body:
                raise too_large(self._max_body)  # as often as somebody asks
            self._events.popleft()
            if not isinstance(event, bytes):
                self._body_over = True
                self._look()
                break
            self._received += len(event)
            return event
        return b""

    async def _more(self) -> None:
        """Wait for more of the body, but not for ever."""
        if self._parser.failure is not None:
            raise self._parser.failure
        if self._wants_continue and self._stage == _UNANSWERED:
            self._wants_continue = False
            await self.stream.send(CONTINUE)
        request, deadline, limits = self._request, self._deadline, self.limits
        assert request is not None
        most = READ_CHUNKED if request.body_size is None else max(request.body_size - self._received, READ)
        begun = deadline.now()
        self._phase = _BODY
        deadline.set(begun + min(limits.body_timeout, self._patience))
        try:
            data = await self.stream.recv(most)
        except ClosedError:
            if self._broken:
                raise BadRequest(408, "the body came too slowly") from None
            raise
        finally:
            self._phase, deadline.due = _BUSY, inf
        if not data:
            self._broken = True
            raise EndOfStream
        self._patience += len(data) / limits.body_rate - (deadline.now() - begun)
        self._events.extend(self._parser.feed(data))

    def _can_discard(self, request: Request, response: Response) -> bool:
        """Whether the rest of the body is read, or soon will be."""
        if self._body_over:
            return True
        if self._wants_continue or self._parser.failure is not None:  # whether it comes at all, nobody knows
            return False
        if not isinstance(response.body, bytes) or request.body_size is None:
            return True  # it may be read while the answer is sent; else it is tried
        return request.body_size - self._received <= DISCARD

    async def _discard(self) -> None:
        """Read the rest of a body that nobody wanted, unless it is too much."""
        self._max_body = self._received + DISCARD
        try:
            while await self.next_piece():
                pass
        except BadRequest as error:  # too late to say it
            if not self._broken:
                self._blame(error)
            self._open = False

    # answers

    async def _send(self, request: Request, response: Response) -> None:
        keep_alive = (
            request.keep_alive
            and not self._draining
            and self._served != self.limits.max_requests
            and (self._body_over or self._can_discard(request, response))
        )
        try:
            head = self._head_of(response, request, keep_alive)
        except Exception as error:  # fields that cannot be sent, or are no pairs of str
            self._report(error)
            await drop(response.body)
            response = Response.error(500)
            head = self._head_of(response, request, keep_alive)
        self._open, self._stage = head.keep_alive, _ANSWERING
        if self._requests is not None:
            self._requests.observe(request.method, response.status, time.monotonic() - self._asked)
        try:
            if isinstance(response.body, bytes):
                await send(self.stream, head, response.body)
            else:
                await self._stream(head, response.body)
        except (Exception, asyncio.CancelledError) as error:
            if self._is_lost() or (isinstance(error, asyncio.CancelledError) and is_cancelled()):
                raise
            if isinstance(error, BadRequest):  # of a body that is read while the answer is sent
                self._blame(error)
            elif isinstance(error, ClosedError):  # what the body came from is gone
                logger.warning(
                    "%s: the answer to %s %s broke off: %s",
                    self.stream.remote_address,
                    request.method,
                    request.raw_path,
                    error,
                )
            else:
                self._report(error)
            self._open = False
            self.stream.abort()  # so that half an answer does not look whole
        self._stage = _ANSWERED

    def _head_of(self, response: Response, request: Request, keep_alive: bool) -> Head:
        if self._cors is not None:
            response = response.with_headers(self._cors.headers_for(request, response))
        return self._heads.get(response, request, keep_alive)

    async def _stream(self, head: Head, body: AsyncIterable[bytes]) -> None:
        """Send an answer in pieces. What they wait for is cut off when the connection is over, for nobody would notice,
        and, but for files and the like, when the client has ended its side: that is how browsers leave.

        :raises ClosedError: the connection was lost, or the client has left"""
        self._cut = cut = Cut()
        try:
            try:
                self._watch()
                await send_pieces(self.stream, head, body if hasattr(body, "outlasts_end") else _Pieces(self, body))
            except asyncio.CancelledError:
                if cut.take_back():
                    raise self._left() from None
                raise
            finally:
                self._cut = None
                cut.take_back()
        finally:
            await drop(body)

    def _left(self) -> ClosedError:
        """Return what to raise where the client has left in the middle of an answer."""
        if self._is_lost():
            return self.stream.closed_error()
        self.stream.abort()  # so that half an answer does not look whole
        return ClosedError("the client left before it had the whole answer")

    def _tell(self, response: Response) -> None:
        """Send an answer to what is no request."""
        assert isinstance(response.body, bytes)
        if self._requests is not None:
            self._requests.count("", response.status)
        with contextlib.suppress(ClosedError):
            self.stream.send(self._heads.get(response, None, False).data + response.body)

    def _is_lost(self) -> bool:
        """Whether nobody is there for an answer: the client went away, or the connection is somebody else's."""
        _, _, closing, lost = self.stream.flags
        return lost or closing or self._broken or self.stream.successor is not None

    def _blame(self, error: BadRequest) -> Response:
        """Count an error of the client, and return the answer to it."""
        count = getattr(self.stream.owner, "count", None)
        if count is not None:
            count(error)
        headers = [("Connection", "close")] if error.status == 413 else []  # the rest is not worth reading
        return Response.error(error.status, error.reason, headers=headers)

    def _report(self, error: BaseException) -> None:
        """Count and log an error of a route."""
        failed = getattr(self.stream.owner, "failed", None)
        if failed is not None:
            failed(error)
        else:
            logger.error("%s: the route failed: %r", self.stream.remote_address, error, exc_info=error)

    # time

    def _expire(self) -> None:
        """The client is too slow."""
        stream = self.stream
        if self._phase == _IDLE and stream.queued[0]:  # a request came in this moment
            self._deadline.set(self._deadline.now() + self.limits.head_timeout)
            return
        if self._phase in (_HEAD, _BODY):
            self._broken = True
            response = self._blame(BadRequest(408, "the request came too slowly"))
            if self._phase == _HEAD or self._stage == _UNANSWERED:
                self._tell(response)
            elif self._stage == _ANSWERING:
                stream.abort()
        stream.close()  # which ends the wait for it

    def _drain(self) -> None:
        """The server wants to end: so does a connection that waits."""
        self._draining = True
        if self._phase == _IDLE and not self.stream.queued[0]:
            self.stream.close()
        elif self._phase in (_FRESH, _IDLE):
            self._deadline.set(min(self._deadline.due, self._deadline.now() + FRESH))


class _Pieces:
    """The pieces of an answer. While one is waited for, nothing is on its way to the client that it may want still."""

    __slots__ = ("_conversation", "_next", "_pieces")

    def __init__(self, conversation: Conversation, pieces: AsyncIterable[bytes]) -> None:
        self._conversation, self._pieces = conversation, pieces

    def __aiter__(self) -> "_Pieces":
        self._next = aiter(self._pieces)
        return self

    async def __anext__(self) -> bytes:
        conversation = self._conversation
        conversation._asking = True
        try:
            conversation._look()
            return await anext(self._next)
        finally:
            conversation._asking = False
