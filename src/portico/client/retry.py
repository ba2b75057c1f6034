"""Whether a failed connect is worth another try, and how long to wait before it."""

import asyncio
import errno
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from portico.clock import Clock, SystemClock
from portico.errors import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    EndOfStream,
    ProxyError,
    ResolveError,
    StatusError,
    TLSError,
)

__all__ = ["Retry", "is_temporary"]

# Tests put others here.
CLOCK: Clock = SystemClock()
sleep = asyncio.sleep

TEMPORARY = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.EAGAIN,
        errno.ENOENT,  # a Unix socket's file comes and goes with its server
    }
)
TEMPORARY_REPLIES = frozenset({1, 3, 4, 5, 6, 91, 408, 429, 500, 502, 503, 504})
"""What proxies answer about a target that may be there a little later: SOCKS5 (RFC 1928, section 6), SOCKS4, HTTP."""
TEMPORARY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What an HTTP server answers that may do better a little later: RFC 9110, section 15; RFC 8470; RFC 6585."""
MAX_RETRY_AFTER = 600.0
"""Seconds that a server can make a client wait by Retry-After; a mistaken or hostile one must not stop it for days."""


def is_temporary(error: BaseException) -> bool:
    """Tell whether what failed with `error` may work a little later.

    Refused, reset, timed out, unreachable, no such file (of a Unix socket) and a temporary failure of name lookup
    (`EAI_AGAIN`) may, and so may a proxy that hangs up, is silent or cannot reach the target, a peer that hangs up in
    the middle of a handshake, and an HTTP server that answers 408, 425, 429, 500, 502, 503 or 504; an unknown name, a
    certificate that is not accepted, TLS settings that do not fit, missing permission, a proxy that refuses the
    password, forbids the target or speaks another protocol, any other HTTP status, such as 401, 403 or 404, and a
    handshake that is not as its protocol has it do not."""
    if isinstance(error, StatusError):
        return error.status in TEMPORARY_STATUSES
    if isinstance(error, EndOfStream):
        return True
    if isinstance(error, ClosedError):
        return error.__cause__ is None or is_temporary(error.__cause__)
    if isinstance(error, ResolveError):
        return error.code == socket.EAI_AGAIN
    if isinstance(error, ProxyError):
        cause = error.__cause__
        cut_short = isinstance(cause, EndOfStream | ClosedError | TimeoutError)
        return cut_short if error.code is None else error.code in TEMPORARY_REPLIES
    if isinstance(error, TLSError):
        return error.__cause__ is not None and _handshake_cut_short(error.__cause__)
    if isinstance(error, TimeoutError | ConnectionRefusedError | ConnectionResetError | ConnectionAbortedError):
        return True
    return isinstance(error, OSError) and error.errno in TEMPORARY


def _handshake_cut_short(error: BaseException) -> bool:
    """Whether a handshake ended because the peer went away, as one does that restarts, not because it said no."""
    import ssl

    if isinstance(error, ssl.SSLError):
        return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    return isinstance(error, EOFError) or is_temporary(error)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how fast to try again: exponential backoff with a cap and jitter.

    The n-th delay is `first * factor ** (n - 1)` seconds, at most `maximum`, of which the part `jitter` is random:
    0.5 gives between half and all of it ("equal jitter"), 1.0 between nothing and all ("full jitter"), 0.0 all of it.
    So clients that lost one server do not come back at once and together.

    :param attempts: tries in all, the first included; None for no end.
    :param first: seconds before the second try, before jitter.
    :param factor: how much longer each delay is than the one before; at least 1.
    :param maximum: seconds that no delay exceeds, but for one that a server asks for: after an HTTP answer with
        Retry-After (RFC 9110, section 10.2.3) that time, at most 10 minutes, comes before the delay.
    :param jitter: 0.0 to 1.0.
    :param retryable: asked about each error of a failed try; the next one follows if any of them is worth it. A failure
        in TLS, of a proxy or in a handshake is the end of its try, so then only that one is asked about. Default:
        `is_temporary`.
    :raises ConfigurationError: a number out of its range.
    """

    attempts: int | None = 5
    first: float = 0.5
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.5
    retryable: Callable[[BaseException], bool] = is_temporary

    def __post_init__(self) -> None:
        for name, fits, range_ in (
            ("attempts", self.attempts is None or self.attempts >= 1, "at least 1, or None for no end"),
            ("first", self.first >= 0, "0 or more seconds"),
            ("factor", self.factor >= 1, "at least 1"),
            ("maximum", self.maximum >= self.first, f"at least first={self.first:g} seconds"),
            ("jitter", 0 <= self.jitter <= 1, "0.0 to 1.0"),
        ):
            if not fits:
                raise ConfigurationError(f"{name}={getattr(self, name)!r} cannot be; it must be {range_}")

    def delays(self, clock: Clock | None = None) -> Iterator[float]:
        """Give the seconds to wait before each further try: `attempts - 1` numbers, or without end.

        :param clock: where the randomness comes from."""
        clock = clock or CLOCK
        delay = min(self.first, self.maximum)
        left = self.attempts
        while left is None or left > 1:
            yield delay * (1 - self.jitter * clock.random())
            delay = min(delay * self.factor, self.maximum)
            left = None if left is None else left - 1

    def is_worth_it(self, error: ConnectError) -> bool:
        """Tell whether another try may go better than the one that ended with `error`."""
        if not error.attempts:
            return False
        last = error.attempts[-1]
        if last.stage in ("tls", "proxy", "handshake"):
            return self.retryable(last.error)
        return any(self.retryable(each.error) for each in error.attempts)


def asked_delay(error: ConnectError) -> float:
    """Return how many seconds the server that ended the last attempt wants to be left alone: its Retry-After (RFC 9110,
    section 10.2.3), as far as that can be; 0.0 without."""
    last = error.attempts[-1].error if error.attempts else None
    if not isinstance(last, StatusError):
        return 0.0
    said = {name.lower(): value.strip() for name, value in last.headers}
    value = said.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), MAX_RETRY_AFTER)
    until, now = _moment(value), _moment(said.get("date", ""))
    if until is None:
        return 0.0
    # by the server's clock, where it tells the time: this machine's may be wrong
    return min(max(until - (time.time() if now is None else now), 0.0), MAX_RETRY_AFTER)


def _moment(date: str) -> float | None:
    """Return an HTTP-date (RFC 9110, section 5.6.7) as seconds of the epoch; None if it is none."""
    from email.utils import mktime_tz, parsedate_tz

    parts = parsedate_tz(date) if date else None
    try:
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError):
        return None


async def sleep_before(delays: Iterator[float], error: ConnectError | None = None) -> bool:
    """Wait for the next of `delays`, behind what the server asked for with `error`, and tell whether there was one."""
    for delay in delays:
        await sleep(delay if error is None else asked_delay(error) + delay)
        return True
    return False
