"""How things end: one line on standard error with a hint, and an exit code."""

import asyncio
import contextlib
import errno
import logging
import re
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from portico.errors import (
    AddressError,
    BindError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    EndOfStream,
    PorticoError,
    ResolveError,
    StatusError,
    TLSError,
    UnsupportedError,
    describe,
)
from portico.server.running import loop_factory

T = TypeVar("T")

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 128 + signal.SIGINT
"""The exit codes: fine, the network or the peer failed, wrong usage or configuration, Ctrl-C."""

EXIT_CODES = (
    "Exit codes: 0 all went well; 1 the network or the peer failed; 2 wrong usage or configuration; "
    "130 interrupted by Ctrl-C (128 and the number of the signal: 143 SIGTERM, 141 nobody reads the output any more)."
)

HINTS: dict[int, str] = {
    errno.ECONNREFUSED: "nobody listens there: check host and port, or whether the server runs",
    errno.ENOENT: "check the path",
    errno.ECONNRESET: "the peer broke it off, maybe as it expected another protocol",
    errno.EHOSTUNREACH: "check the address and the route to it",
    errno.ENETUNREACH: "check the address and the route to it",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "this user may not do that",
    errno.ENOSPC: "make room",
}

TIMED_OUT = "check the address, or give it more --timeout"

REFUSED = {
    401: "log in with --user NAME:PASSWORD or --bearer TOKEN",
    403: "it may want a login, or another --origin",
    404: "check the path",
    407: "log in at the proxy: http://user:password@host:port",
}
"""What may help against an HTTP status."""

_SETTINGS = {
    "ca": "--ca",
    "certificate": "--cert",
    "key": "--key",
    "server_name": "--server-name",
    "tls": "--tls",
    "headers": "--header",
    "client_authority": "--ca",
    "credentials": "--user or --bearer",
    "ciphers": "ciphers",
    "alpn": "alpn",
}
"""Settings that messages speak of, and the options that set them, or what they are where no option does."""

_SAID = {"subprotocols=(": "--subprotocol (", "origin='": "--origin '", "raise max_size": "raise --max-size"}
"""The same for messages that tell a value, or none."""

STARTED_DEBUG = "--debug shows where"


class Stop(Exception):
    """End with `code` and, unless it is empty, `reason` on one line."""

    def __init__(self, reason: str = "", code: int = FAILED, hint: str = "") -> None:
        super().__init__(reason)
        self.reason, self.code, self.hint = reason, code, hint


def note(text: str) -> None:
    """Tell something on standard error, in one line, whatever others have put into it."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    print(f"portico: {shown}", file=sys.stderr, flush=True)


def failure(error: BaseException) -> tuple[str, int]:
    """Return what to say about `error`, in one line with a hint, and the exit code."""
    if isinstance(error, Stop):
        return _with_hint(error.reason, error.hint), error.code
    if isinstance(error, AddressError):
        where = f": {error.text!r}, at character {error.position + 1}" if error.text else ""
        return f"{_as_options(error.reason)}{where}", WRONG
    if isinstance(error, ConfigurationError | UnsupportedError):
        return _as_options(str(error)), WRONG
    if isinstance(error, PorticoError):
        hint = "" if isinstance(error, BindError | TLSError) else hint_for(error)
        return _with_hint(_as_options(str(error)), hint), FAILED
    if isinstance(error, OSError):
        name = f": {error.filename!r}" if isinstance(error.filename, str) else ""
        return _with_hint(describe(error) + name, hint_for(error)), FAILED
    return f"{type(error).__name__}: {error}; this is a bug of portico; {STARTED_DEBUG}", FAILED


def hint_for(error: BaseException) -> str:
    """Return what may help against `error`, or ""."""
    if isinstance(error, ConnectError):
        if any(isinstance(each.error, TLSError) for each in error.attempts):
            return ""  # its text has one already
        last = error.attempts[-1].error if error.attempts else None
        if isinstance(last, StatusError):
            return REFUSED.get(last.status, "")
        if getattr(last, "errno", None) == errno.EACCES and str(error.address).startswith("udp:"):
            return "a broadcast address needs --broadcast"
        if isinstance(last, TimeoutError) and str(error.address).startswith("fifo:"):
            return "nobody reads from it"
        return hint_for(last) if last is not None else TIMED_OUT
    if isinstance(error, ResolveError):
        if error.code == socket.EAI_AGAIN:
            return "try again later"
        return "check how the name is written" if isinstance(error.__cause__, socket.gaierror) else ""
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    if isinstance(error, ClosedError) and error.__cause__ is not None:
        return hint_for(error.__cause__)
    return HINTS.get(getattr(error, "errno", None) or 0, "")


def _with_hint(text: str, hint: str) -> str:
    line = " ".join(text.split())
    return f"{line}; {hint}" if hint and hint not in line else line


def _as_options(text: str) -> str:
    text = re.sub(rf"\b({'|'.join(_SETTINGS)})=(?!['\w])", lambda match: _SETTINGS[match[1]], text)
    return re.sub(r"\bsubprotocols=\(|\borigin='|\braise max_size\b", lambda match: _SAID[match[0]], text)


class _InOptions(logging.Filter):
    """Makes what is logged speak of options."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _as_options(record.getMessage()), ()
        return True


IN_OPTIONS = _InOptions()


def ending(error: BaseException, *, debug: bool) -> int:
    """Tell about `error` and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BaseExceptionGroup):
        return ending(error.exceptions[0], debug=debug)
    line, code = failure(error)
    if debug and not (isinstance(error, Stop) and error.__cause__ is None):
        import traceback

        traceback.print_exception(error)
    if line:
        note(line)
    return code


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on the fastest loop there is; SIGTERM cancels it and ends with its code, as Ctrl-C does with 130."""
    ended: list[int] = []
    for handler in logging.getLogger().handlers:
        handler.addFilter(IN_OPTIONS)

    async def cancellable() -> T:
        with _on_sigterm(asyncio.current_task(), ended):
            return await main

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(cancellable())
    except asyncio.CancelledError:
        if not ended:
            raise
        raise Stop(code=128 + signal.SIGTERM) from None
    except EndOfStream as error:  # an EOFError that leaves a command is Ctrl-D for typer
        raise Stop(failure(error)[0]) from error
    except BrokenPipeError as error:
        if isinstance(error, PorticoError):
            raise
        raise Stop(code=128 + signal.SIGPIPE) from None  # typer would make it a 1


@contextlib.contextmanager
def _on_sigterm(task: "asyncio.Task[Any] | None", ended: list[int]) -> Iterator[None]:
    assert task is not None

    def stop() -> None:
        ended.append(signal.SIGTERM)
        task.cancel()

    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGTERM, stop)
    except NotImplementedError:  # Windows
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
