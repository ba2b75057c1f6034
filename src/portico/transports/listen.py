"""Listening sockets: from an address to what accepts, with errors that say who is in the way."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from portico import _core
from portico._core import hub_of
from portico.address import Address
from portico.errors import BindError, PorticoError
from portico.options import set_option
from portico.transports.wires import LoopAcceptor, unsupported_family

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn (4096 since Linux 5.4)."""

SAME_PORT_ATTEMPTS = 10


class ListeningSocket:
    """One listening socket, with the file it is reached by where it is a Unix one."""

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self.socket, self.address = sock, address
        self._acceptor: _core.Acceptor | LoopAcceptor | None = None
        self._inode = _inode(address)

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

    def close(self) -> None:
        """Stop listening, and remove the file of a Unix socket unless somebody else has replaced it."""
        if self._acceptor is not None:
            self._acceptor.stop()
            self._acceptor = None
        if self.socket.fileno() >= 0 and self._inode is not None and _inode(self.address) == self._inode:
            with contextlib.suppress(OSError):
                Path(self.address.path).unlink()
        self.socket.close()


def _inode(address: Address) -> tuple[int, int] | None:
    if address.scheme != "unix" or address.path.startswith("@"):
        return None
    try:
        found = Path(address.path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
    if address.scheme == "unix":
        return [_listen_unix(address, backlog, options, mode, owner)]
    for attempt in range(SAME_PORT_ATTEMPTS):
        try:
            return _listen_inet(address, numeric, backlog, options)
        except BindError as error:
            again = address.port == 0 and len(numeric) > 1 and error.errno == errno.EADDRINUSE
            if not again or attempt == SAME_PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _listen_inet(
    address: Address, numeric: Sequence[Address], backlog: int, options: Mapping[str, object] | None
) -> list[ListeningSocket]:
    made: list[ListeningSocket] = []
    port = address.port or 0
    try:
        for each in numeric:
            sock = _bound(address, each.with_port(port), options)
            try:
                sock.listen(backlog)
                bound = Address.from_sockaddr(address.scheme, sock.family, sock.getsockname())
            except OSError as error:
                sock.close()
                raise bind_error(error, each) from error
            port = port or bound.port or 0
            made.append(ListeningSocket(sock, bound))
    except BaseException:
        for listening in made:
            listening.close()
        raise
    return made


def _bound(address: Address, numeric: Address, options: Mapping[str, object] | None) -> socket.socket:
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
        for name, value in (options or {}).items():
            set_option(sock, name, value)
        sock.bind(numeric.sockaddr if family == numeric.family else ("0.0.0.0", numeric.port or 0))
    except OSError as error:
        sock.close()
        raise error if isinstance(error, PorticoError) else bind_error(error, numeric) from error
    except BaseException:
        sock.close()
        raise
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
    if not abstract:
        _remove_stale(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        for name, value in (options or {}).items():
            set_option(sock, name, value)
        _bind_unix(sock, address, mode)
        if owner is not None and not abstract:
            os.chown(address.path, *owner)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise error if isinstance(error, PorticoError) else bind_error(error, address) from error
    return ListeningSocket(sock, address)


def _bind_unix(sock: socket.socket, address: Address, mode: int | None) -> None:
    """Bind so that the file never has more permissions than `mode` says, not even for a moment."""
    if mode is None or address.path.startswith("@"):
        sock.bind(address.sockaddr)
        return
    before = os.umask(0o777)
    try:
        sock.bind(address.sockaddr)
    finally:
        os.umask(before)
    Path(address.path).chmod(mode)


def _remove_stale(address: Address) -> None:
    """Remove the file that a dead server left; a live one is refused."""
    path = Path(address.path)
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise bind_error(error, address) from error
    if not stat.S_ISSOCK(kind):
        raise BindError(
            errno.EEXIST, "the path is taken by something that is no socket", address, hint="choose another"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.sockaddr)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise bind_error(error, address) from error
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
    holder = port_holder(address.port or 0) if code == errno.EADDRINUSE and address.scheme != "unix" else None
    hint = HINTS.get(code, "")
    if code == errno.EACCES and address.scheme == "unix":
        hint = "the directory does not let this user write"
    if code == errno.EADDRINUSE and holder is None:
        hint = "listen on another port, or stop what has it"
    return BindError(code, os.strerror(code).lower(), address, holder=holder, hint=hint)


def port_holder(port: int) -> str | None:
    """Name the process that listens on the TCP `port`, as far as this user may see (proc(5)); None: unknown."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return _process_with(inodes)


def unix_holder(path: str) -> str | None:
    """Name the process that listens on the Unix socket `path`, as far as this user may see; None: unknown."""
    inodes = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7] == path:
                inodes.add(fields[6])
    return _process_with(inodes)


def _process_with(inodes: set[str]) -> str | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted or sys.platform != "linux":
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for entry in os.scandir(process / "fd"):
                if os.readlink(entry.path) in wanted:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None
