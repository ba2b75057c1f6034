"""Every exception of Portico in one tree; each leaf is also the builtin that a person would expect.

    PorticoError
    ├── AddressError(ValueError)                    text, position
    ├── ResolveError(socket.gaierror)               code, text, host
    ├── BindError(OSError)                          address, holder
    ├── ConnectError(ConnectionError)               attempts
    ├── TLSError(ConnectionError)                   address, hint
    ├── ClosedError(ConnectionError)                reason, code, clean
    ├── EndOfStream(EOFError)                       partial, reason
    ├── MessageTooLarge(ValueError)                 size, limit
    ├── ProtocolError(ValueError)                   offset
    ├── LimitError(RuntimeError)                    limit
    ├── BusyError(RuntimeError)
    ├── WouldBlock(BlockingIOError)
    ├── DeliveryError(ConnectionError)              address, data, size
    ├── ProxyError(ConnectionError)                 proxy, reason, code
    ├── StatusError(ConnectionError)                status, reason, address, headers, body
    ├── PrivilegeError(PermissionError)             address, privilege
    ├── ConfigurationError(ValueError)
    └── UnsupportedError(OSError)

An error says in one line what happened, to which address, and what to do about it.
"""

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "AddressError",
    "Attempt",
    "BindError",
    "BusyError",
    "ClosedError",
    "ConfigurationError",
    "ConnectError",
    "DeliveryError",
    "EndOfStream",
    "LimitError",
    "MessageTooLarge",
    "PorticoError",
    "PrivilegeError",
    "ProtocolError",
    "ProxyError",
    "ResolveError",
    "StatusError",
    "TLSError",
    "UnsupportedError",
    "WouldBlock",
]


class PorticoError(Exception):
    """Root of every error that Portico raises on purpose."""


class AddressError(PorticoError, ValueError):
    """An address that does not parse; `text[position:]` is where it goes wrong."""

    def __init__(self, reason: str, text: str = "", position: int = 0) -> None:
        self.reason, self.text, self.position = reason, text, position
        message = reason
        if text:
            shown = "".join(letter if letter.isprintable() else " " for letter in text)
            message = f"{reason}\n  {shown}\n  {' ' * position}^"
        super().__init__(message)


class ResolveError(PorticoError, socket.gaierror):
    """A name that did not resolve; `args` is the pair `(code, text)` of getaddrinfo(3)."""

    def __init__(self, code: int, text: str, host: str = "") -> None:
        super().__init__(code, text)
        self.code, self.text, self.host = code, text, host

    def __str__(self) -> str:
        name = f" {self.host!r}" if self.host else ""
        return f"cannot resolve{name}: {self.text}"


class BindError(PorticoError, OSError):
    """An address that cannot be listened on; `holder` names the process that has it, when that can be seen."""

    def __init__(self, code: int, reason: str, address: object, *, holder: str | None = None, hint: str = "") -> None:
        super().__init__(code, reason)
        self.reason, self.address, self.holder, self.hint = reason, address, holder, hint

    def __str__(self) -> str:
        by = f" by {self.holder}" if self.holder else ""
        return f"cannot listen on {self.address}: {self.reason}{by}" + (f"; {self.hint}" if self.hint else "")


SHOWN_ATTEMPTS = 5
"""How many attempts the text of a ConnectError tells; `attempts` has them all."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing tried while connecting: which address, how far it came, and why it ended.

    `stage` is `resolve` (looking up the name), `connect` (to one address of it), `proxy` (what was said to one, and a
    PROXY header), `tls` (its handshake), or `handshake` (that of a WebSocket: `error` is a StatusError where the server
    answered something else)."""

    address: object
    stage: str
    error: BaseException
    seconds: float

    def __str__(self) -> str:
        return f"{self.address}: {self.stage}: {describe(self.error)} after {self.seconds:.2f} s"


class ConnectError(PorticoError, ConnectionError):
    """No connection came about; `attempts` tells each thing that was tried, in order of its end."""

    def __init__(self, address: object, attempts: Sequence[Attempt], *, timeout: float | None = None) -> None:
        self.address, self.attempts, self.timeout = address, tuple(attempts), timeout
        within = f" within {timeout:g} s" if timeout is not None else ""
        if len(self.attempts) == 1 and str(self.attempts[0].address) == str(address):
            only = self.attempts[0]
            message = f"cannot connect to {address}{within}: {only.stage}: {describe(only.error)}"
        else:
            before = len(self.attempts) - SHOWN_ATTEMPTS
            message = f"cannot connect to {address}{within}" + (f"; {before} attempts, then" if before > 0 else "")
            message += "".join(f"; {each}" for each in self.attempts[-SHOWN_ATTEMPTS:])
        super().__init__(message)


class TLSError(PorticoError, ConnectionError):
    """TLS failed; the ssl error is the `__cause__`, `hint` tells the remedy."""

    def __init__(self, reason: str, *, address: object = None, hint: str = "") -> None:
        self.reason, self.address, self.hint = reason, address, hint
        at = f" with {address}" if address is not None else ""
        super().__init__(f"TLS failed{at}: {reason}" + (f"; {hint}" if hint else ""))


class ClosedError(PorticoError, ConnectionError):
    """The connection is closed; `__cause__` says why when the peer or the network closed it."""

    def __init__(self, reason: str, *, code: int | None = None, clean: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.code, self.clean = reason, code, clean


class EndOfStream(PorticoError, EOFError):
    """The peer ended its side; `partial` is what it sent of an unfinished message, `reason` what was expected of whom,
    where there is more to say than that."""

    def __init__(self, partial: bytes = b"", reason: str = "") -> None:
        what = f"end of stream after {len(partial)} bytes of an unfinished message" if partial else "end of stream"
        super().__init__(reason or what)
        self.partial, self.reason = partial, reason


class MessageTooLarge(PorticoError, ValueError):
    """A message is longer than `limit` bytes; `size` is its length, as far as known.

    `frame`, where a codec's `decode` raises this, says how many bytes the whole frame takes: it is skipped then. `hint`
    tells what else than a higher `setting` helps, or that nothing does."""

    def __init__(
        self, size: int, limit: int, *, frame: int | None = None, setting: str = "max_size", hint: str = ""
    ) -> None:
        remedy = hint or f"raise {setting} to allow it"
        super().__init__(f"message of at least {size} bytes is over the limit of {limit} bytes; {remedy}")
        self.size, self.limit, self.frame = size, limit, frame


class ProtocolError(PorticoError, ValueError):
    """What came is not what the protocol allows; `offset` counts bytes from the start of the message."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.offset = reason, offset


class LimitError(PorticoError, RuntimeError):
    """A limit was reached; `limit` is its name."""

    def __init__(self, reason: str, limit: str = "") -> None:
        super().__init__(reason)
        self.limit = limit


class BusyError(PorticoError, RuntimeError):
    """A second task tried to receive while another one waits."""


class WouldBlock(PorticoError, BlockingIOError):
    """Nothing is there, or there is no room, and the call was told not to wait."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EAGAIN, reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class DeliveryError(PorticoError, ConnectionError):
    """A packet did not reach `address`: the kernel refused it, or the network sent word (ICMP).

    `data` is as much of the packet as the report quotes, `size` how long it was, as far as known. The socket goes
    on."""

    def __init__(self, code: int, reason: str, address: object = None, *, data: bytes = b"", size: int = 0) -> None:
        super().__init__(code, reason)
        self.reason, self.address, self.data, self.size = reason, address, data, size

    def __str__(self) -> str:
        to = f" to {self.address}" if self.address is not None else ""
        return f"a packet{to} was not delivered: {self.reason}"


class ProxyError(PorticoError, ConnectionError):
    """A proxy did not let through; `proxy` is its address, `code` what it answered, where that is a number."""

    def __init__(self, reason: str, proxy: object, *, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.proxy, self.code = reason, proxy, code

    def __str__(self) -> str:
        return f"the proxy {self.proxy} {self.reason}"


class PrivilegeError(PorticoError, PermissionError):
    """The operating system lets only privileged programs do this; `privilege` names what is missing."""

    def __init__(self, reason: str, address: object, *, privilege: str) -> None:
        super().__init__(errno.EPERM, reason)
        self.reason, self.address, self.privilege = reason, address, privilege

    def __str__(self) -> str:
        return f"cannot open {self.address}: {self.reason}; it needs {self.privilege}"


class StatusError(PorticoError, ConnectionError):
    """A server answered with an HTTP status that is not what was asked for; `status` and `reason` of the status line,
    `headers` as (name, value) pairs, `body` as far as it was read."""

    def __init__(
        self,
        status: int,
        reason: str = "",
        *,
        address: object = None,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        super().__init__(status, reason)
        self.status, self.reason, self.address = status, reason, address
        self.headers, self.body = tuple(headers), body

    def __str__(self) -> str:
        who = "the server" if self.address is None else str(self.address)
        said = f"{self.status} {self.reason}".rstrip()
        first = (self.body[:200].decode(errors="replace").strip().splitlines() or [""])[0]
        for known in (said, self.reason):  # many bodies begin with the status line
            if known and first.lower().startswith(known.lower()) and first[len(known) : len(known) + 1] in ("", ":"):
                first = first[len(known) + 1 :].lstrip()
                break
        told = f": {first}" if first and first.isprintable() and not first.startswith("<") else ""
        return f"{who} answered {said}{told}"


class ConfigurationError(PorticoError, ValueError):
    """A setting that cannot work; the message names it and the remedy."""


class UnsupportedError(PorticoError, OSError):
    """This platform, loop or transport cannot do it; the message says which can."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ENOTSUP, reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def describe(error: BaseException) -> str:
    """Say in one line what `error` is, without Python's names for what the operating system has words for."""
    if isinstance(error, OSError) and not isinstance(error, PorticoError) and error.errno is not None:
        return (error.strerror or os.strerror(error.errno)).lower()
    if isinstance(error, TimeoutError):
        return str(error) or "timed out"
    return str(error) or type(error).__name__
