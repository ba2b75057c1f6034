"""Listening sockets: from an address to what accepts, with errors that say who is in the way."""

import array
import asyncio
import contextlib
import errno
import logging
import os
import select
import socket
import stat
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from portico import _core
from portico._core import hub_of
from portico.address import AF_VSOCK, SCHEMES, Address
from portico.errors import BindError, PorticoError
from portico.transports.sockaddr import packed_sockaddr
from portico.transports.wires import LoopAcceptor, set_options, unsupported_family

logger = logging.getLogger("portico.transports.listen")

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn (4096 since Linux 5.4)."""

SAME_PORT_ATTEMPTS = 10

SO_ATTACH_FILTER = 26
"""Of Linux: a program of the classic Berkeley packet filter decides what reaches a socket (socket(7))."""
DROP_NEW = struct.pack(
    "=" + "HBBI" * 5,
    *(0x30, 0, 0, 13),  # load the byte of the TCP header that has its flags (RFC 9293 section 3.1)
    *(0x54, 0, 0, 0x12),  # of them SYN and ACK
    *(0x15, 0, 1, 0x02),  # a SYN alone:
    *(0x06, 0, 0, 0),  # drop it;
    *(0x06, 0, 0, 0xFFFF),  # what belongs to a handshake that has begun may come
)
"""A program for that: nobody new gets an answer."""
HANDSHAKE = 2
"""Milliseconds that closing leaves to handshakes whose answer is under way; on loopback that is ample."""


class SocketFile:
    """The file that a bound Unix socket is reached by, wherever the process changes its directory to."""

    def __init__(self, address: Address) -> None:
        named = SCHEMES[address.scheme].parts == "path" and address.path and not address.path.startswith("@")
        self._path = os.path.abspath(address.path) if named else ""
        self._inode = self._found()

    def _found(self) -> tuple[int, int] | None:
        if not self._path:
            return None
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove it, unless somebody else has replaced it."""
        if self._inode is not None and self._found() == self._inode:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._inode = None


class ListeningSocket:
    """One listening socket, with the file it is reached by where it is a Unix one."""

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self.socket, self.address = sock, address
        self._acceptor: _core.Acceptor | LoopAcceptor | None = None
        self._file = SocketFile(address)

    def start(self, accepted: Callable[[int, bytes], object], failed: Callable[[int], object]) -> None:
        """Call `accepted(fd, peer)` for each new connection, `peer` being its struct sockaddr, and `failed(errno)`
        when accept(2) fails."""
        loop = asyncio.get_running_loop()
        if hub_of(loop).native_sockets:
            self._acceptor = _core.Acceptor(loop, self.socket.fileno(), accepted, failed)
        else:
            self._acceptor = LoopAcceptor(loop, self.socket, accepted, failed)

    def pause(self) -> None:
        """Let new connections wait in the backlog."""
        if self._acceptor is not None:
            self._acceptor.pause_accepting()

    def resume(self) -> None:
        """Take new connections again."""
        if self._acceptor is not None:
            self._acceptor.resume_accepting()

    def take_waiting(self, accepted: Callable[[int, bytes], object], enough: Callable[[], bool]) -> None:
        """Take what has connected by now, until `enough()`. Nobody else can connect from here on: `close` follows.

        Where it can be had (Linux), who comes in this moment is not answered at all, so that the next try, a second
        later, finds nobody or the successor; else the kernel would reset what connects between here and `close`."""
        if self._acceptor is None:
            return
        self._file.remove()
        filtered = sys.platform == "linux" and self.socket.family in (socket.AF_INET, socket.AF_INET6)
        if filtered:
            program = array.array("B", DROP_NEW)
            with contextlib.suppress(OSError):
                self.socket.setsockopt(
                    socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 5, program.buffer_info()[0])
                )
        self._accept_all(accepted, enough)
        if filtered and not enough():
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            while poll.poll(HANDSHAKE) and not enough():
                self._accept_all(accepted, enough)

    def _accept_all(self, accepted: Callable[[int, bytes], object], enough: Callable[[], bool]) -> None:
        while not enough():
            try:
                connected, peer = self.socket.accept()
            except OSError:
                return
            connected.setblocking(False)
            family = connected.family
            accepted(connected.detach(), packed_sockaddr(family, peer))

    def close(self) -> None:
        """Stop listening, and remove the file of a Unix socket unless somebody else has replaced it."""
        if self._acceptor is not None:
            self._acceptor.stop()
            self._acceptor = None
        self._file.remove()
        self.socket.close()


def listen(
    address: Address,
    numeric: Sequence[Address],
    *,
    backlog: int = BACKLOG,
    options: Mapping[str, object] | None = None,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
) -> list[ListeningSocket]:
    """Listen on every address of `numeric`, which is what `address` resolved to; one port 0 gives all the same port.

    `mode` (such as 0o660) and `owner` (user and group id, -1: as it is) are those of a Unix socket's file.

    :raises BindError: the address is taken (`holder` tells by whom, when that can be seen) or not to be had
    :raises UnsupportedError: this platform has no such sockets"""
    if SCHEMES[address.scheme].parts == "path":
        return [_listen_unix(address, backlog, options, mode, owner)]

    def bind(each: Address) -> ListeningSocket:
        sock = _bound(address, each, options)
        try:
            sock.listen(backlog)
            return ListeningSocket(sock, Address.from_sockaddr(address.scheme, sock.family, sock.getsockname()))
        except OSError as error:
            sock.close()
            raise bind_error(error, each) from error

    return on_every_address(address, numeric, bind)


class Bound(Protocol):
    """A socket that is bound."""

    @property
    def address(self) -> Address:
        """Where, port 0 replaced by the port it became."""
        ...

    def close(self) -> None:
        """Give the address up."""
        ...


B = TypeVar("B", bound=Bound)


def on_every_address(address: Address, numeric: Sequence[Address], bind: Callable[[Address], B]) -> list[B]:
    """Return what `bind` makes of every address of `numeric`, which is what `address` resolved to. One port 0 gives all
    the same port; of several, those that this machine has not are left out.

    :raises BindError: one is taken, or there is none that can be had"""
    for attempt in range(SAME_PORT_ATTEMPTS):
        try:
            return _on_every_address(address, numeric, bind)
        except BindError as error:
            again = address.port == 0 and len(numeric) > 1 and error.errno == errno.EADDRINUSE
            if not again or attempt == SAME_PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _on_every_address(address: Address, numeric: Sequence[Address], bind: Callable[[Address], B]) -> list[B]:
    made: list[B] = []
    missing: BindError | None = None
    port = address.port
    try:
        for each in numeric:
            try:
                made.append(bind(each if port is None else each.with_port(port)))
            except BindError as error:
                if len(numeric) == 1 or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error  # a name may mean more than this machine has, such as ::1 in a container without IPv6
            else:
                port = port or made[-1].address.port
    except BaseException:
        for bound in made:
            bound.close()
        raise
    if missing is not None:
        if not made:
            raise missing
        logger.warning("%s; it goes on with %s", missing, ", ".join(str(each.address) for each in made))
    return made


def _bound(address: Address, numeric: Address, options: Mapping[str, object] | None) -> socket.socket:
    if address.scheme == "vsock":
        return _bound_vsock(numeric, options)
    dual = numeric.is_wildcard and numeric.family == socket.AF_INET6 and address.host == ""
    family = numeric.family or socket.AF_INET
    if dual and not has_ipv6():
        family, dual = socket.AF_INET, False
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise bind_error(error, address) from error
    try:
        sock.setblocking(False)
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux hands it on to each accepted socket
        set_options(sock, options)
        sock.bind(numeric.sockaddr if family == numeric.family else ("0.0.0.0", numeric.port or 0))
    except OSError as error:
        sock.close()
        raise error if isinstance(error, PorticoError) else bind_error(error, numeric) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _bound_vsock(address: Address, options: Mapping[str, object] | None) -> socket.socket:
    if AF_VSOCK == socket.AF_UNSPEC:
        raise unsupported_family("vsock")
    try:
        sock = socket.socket(AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        raise bind_error(error, address) from error
    try:
        sock.setblocking(False)
        set_options(sock, options)
        sock.bind(address.sockaddr)
    except OSError as error:
        sock.close()
        raise error if isinstance(error, PorticoError) else bind_error(error, address) from error
    return sock


def has_ipv6() -> bool:
    """Tell whether IPv6 sockets can be bound here; containers often have none."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _listen_unix(
    address: Address,
    backlog: int,
    options: Mapping[str, object] | None,
    mode: int | None,
    owner: tuple[int, int] | None,
) -> ListeningSocket:
    if not hasattr(socket, "AF_UNIX"):
        raise unsupported_family("Unix")
    abstract = address.path.startswith("@")
    kind = socket.SOCK_SEQPACKET if address.scheme == "unixpacket" else socket.SOCK_STREAM
    remove_stale(address, kind)
    sock = socket.socket(socket.AF_UNIX, kind)
    bound = False
    try:
        sock.setblocking(False)
        set_options(sock, options)
        bind_unix(sock, address, mode)
        bound = True
        if owner is not None and not abstract:
            os.chown(address.path, *owner)
        sock.listen(backlog)
    except BaseException as error:
        sock.close()
        if bound and not abstract:
            with contextlib.suppress(OSError):
                os.unlink(address.path)
        if isinstance(error, OSError) and not isinstance(error, PorticoError):
            raise bind_error(error, address) from error
        raise
    return ListeningSocket(sock, address)


def bind_unix(sock: socket.socket, address: Address, mode: int | None) -> None:
    """Bind so that the file never has more permissions than `mode` says, not even for a moment."""
    if mode is None or address.path.startswith("@"):
        sock.bind(address.sockaddr)
        return
    before = os.umask(0o777)
    try:
        sock.bind(address.sockaddr)
    finally:
        os.umask(before)
    os.chmod(address.path, mode)


def remove_stale(address: Address, kind: int) -> None:
    """Remove the file that a dead server left; a live one is refused. `kind` is the type, such as SOCK_STREAM."""
    if address.path.startswith("@"):
        return
    try:
        found = os.stat(address.path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise bind_error(error, address) from error
    if not stat.S_ISSOCK(found):
        raise BindError(
            errno.EEXIST, "the path is taken by something that is no socket", address, hint="choose another"
        )
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.sockaddr)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address.path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise bind_error(error, address) from error
    from portico.transports.holders import unix_holder

    raise BindError(
        errno.EADDRINUSE,
        "address already in use",
        address,
        holder=unix_holder(address.path),
        hint="a server answers there",
    )


HINTS = {
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EADDRINUSE: "stop it, or listen on another port",
    errno.ENOENT: "the directory does not exist",
    errno.EAFNOSUPPORT: "this machine has no such addresses",
    errno.ENODEV: "no such interface",
}


def bind_error(error: OSError, address: Address) -> BindError:
    """Return what `error` means for somebody who wanted to listen on `address`."""
    code = error.errno or errno.EINVAL
    holder = None
    if code == errno.EADDRINUSE and SCHEMES[address.scheme].is_internet:
        from portico.transports.holders import port_holder

        holder = port_holder(address.port or 0)
    hint = HINTS.get(code, "")
    is_unix = SCHEMES[address.scheme].parts == "path"
    if code == errno.EACCES and is_unix:
        hint = "the directory does not let this user write"
    if code == errno.EPERM and is_unix:
        hint = "only root gives a file to another user"
    if code == errno.EADDRINUSE and holder is None:
        hint = "listen on another port, or stop what has it"
    return BindError(code, os.strerror(code).lower(), address, holder=holder, hint=hint)
