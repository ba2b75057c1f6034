"""Every socket option by name: reading and setting it on a live socket. The table is in `option_table`."""

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Final

from portico.errors import ClosedError, ConfigurationError, PorticoError, UnsupportedError, describe
from portico.option_row import Option, describe_scope
from portico.option_table import OPTIONS
from portico.option_values import pack, room, unpack

__all__ = ["OPTIONS", "Option", "Options", "find_option", "get_option", "set_option"]


def get_option(sock: socket.socket, name: str) -> object:
    """Return the live value of an option; see `Option` for its type.

    The kernel may have changed what was set: receive_buffer reads back twice what was asked for, or what the maximum
    allows.

    :raises ConfigurationError: if there is no such option, it is not for this kind of socket or only to be set, or the
        system refuses to tell it now.
    :raises UnsupportedError: if this platform does not have it.
    :raises ClosedError: if the socket is closed.
    """
    option = _find(sock, name)
    assert option.number is not None
    if not option.readable:
        raise ConfigurationError(_with(f"option {name!r} ({option.constant}) can only be set", option.hint))
    try:
        with _plain(sock) as plain:
            data = plain.getsockopt(option.level, option.number, room(option))
    except OSError as error:
        raise _refusal(option, "cannot be read", error) from error
    return unpack(option, data)


def set_option(sock: socket.socket, name: str, value: object) -> None:
    """Set an option; see `Option` for the type of its value.

    :raises ConfigurationError: if there is no such option, it is not for this kind of socket or only to be read, the
        value is of the wrong type or out of range, or the system refuses it; the message names the privilege that is
        missing.
    :raises UnsupportedError: if this platform does not have it.
    :raises ClosedError: if the socket is closed.
    """
    option = _find(sock, name)
    assert option.number is not None
    if not option.settable:
        raise ConfigurationError(f"option {name!r} ({option.constant}) can only be read")
    packed = pack(option, value)
    try:
        with _plain(sock) as plain:
            plain.setsockopt(option.level, option.number, packed)
    except OSError as error:
        raise _refusal(option, f"cannot be set to {value!r}", error) from error


def find_option(name: str) -> Option:
    """Return the row of an option.

    :raises ConfigurationError: if there is none of that name; the message tells the nearest one."""
    option = OPTIONS.get(name)
    if option is None:
        import difflib  # takes 5 ms, for those who mistype only

        near = difflib.get_close_matches(str(name).lower(), OPTIONS, 1, 0.5)
        raise ConfigurationError(f"there is no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return option


def _find(sock: socket.socket, name: str) -> Option:
    option = find_option(name)
    if option.number is None:
        raise UnsupportedError(
            f"option {name!r} ({option.constant}) is not there on this platform; it is on {option.platform}"
        )
    if not option.applies_to(sock):
        raise ConfigurationError(
            f"option {name!r} ({option.constant}) is for {describe_scope(option.scope)}; this one is {_describe(sock)}"
        )
    return option


@contextlib.contextmanager
def _plain(sock: socket.socket) -> Iterator[socket.socket]:
    """Python's calls take nothing but numbers of 8 bytes for a vsock socket, so it goes as one of another family."""
    if sock.family != getattr(socket, "AF_VSOCK", None):
        yield sock
        return
    plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, sock.fileno())
    try:
        yield plain
    finally:
        plain.detach()


def _describe(sock: socket.socket) -> str:
    # The socket that uvloop shows has plain numbers here.
    return f"{socket.AddressFamily(sock.family).name}/{socket.SocketKind(sock.type).name}"


_ENOTSUPP: Final = 524  # of Linux itself, not for programs, yet it gets out to them
_NOT_THERE: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOTSUP, _ENOTSUPP)


def _refusal(option: Option, what: str, error: OSError) -> ClosedError | ConfigurationError | UnsupportedError:
    if error.errno == errno.EBADF:
        return ClosedError(f"option {option.name!r} {what}: the socket is closed")
    reason = "not supported" if error.errno == _ENOTSUPP else describe(error)
    text = f"option {option.name!r} ({option.constant}) {what}: {reason}"
    if error.errno in _NOT_THERE:
        return UnsupportedError(_with(text, option.hint or "this kernel or this kind of socket does not have it"))
    if error.errno in (errno.EPERM, errno.EACCES) and option.privilege:
        return ConfigurationError(f"{text}; it needs {option.privilege}")
    return ConfigurationError(_with(text, option.hint))


def _with(text: str, hint: str) -> str:
    return f"{text}; {hint}" if hint else text


class Options(MutableMapping[str, object]):
    """The live options of one socket, by name: `options["keepalive"]` and `options.keepalive` are the same.

    Nothing is remembered here: each read and each assignment is a system call. Iteration gives the names of
    those that can be read just now. An option cannot be deleted.
    """

    __slots__ = ("_socket",)
    _socket: Callable[[], socket.socket | None]

    def __init__(self, live_socket: Callable[[], socket.socket | None]) -> None:
        """:param live_socket: returns the socket, or None once there is none."""
        object.__setattr__(self, "_socket", live_socket)

    def _live(self) -> socket.socket:
        sock = self._socket()
        if sock is None or sock.fileno() < 0:
            raise ClosedError("the connection is closed; its socket has no options any more")
        return sock

    def __getitem__(self, name: str) -> object:
        find_option(name)
        return get_option(self._live(), name)

    def __setitem__(self, name: str, value: object) -> None:
        find_option(name)
        set_option(self._live(), name, value)

    def __delitem__(self, name: str) -> None:
        raise ConfigurationError(f"option {name!r} cannot be deleted; set it to another value")

    def __getattr__(self, name: str) -> Any:
        if name not in OPTIONS:
            try:
                find_option(name)
            except ConfigurationError as error:
                raise AttributeError(str(error), name=name, obj=self) from None
        return self[name]

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __contains__(self, name: object) -> bool:
        option = OPTIONS.get(name) if isinstance(name, str) else None
        return option is not None and option.applies_to(self._live())

    def __iter__(self) -> Iterator[str]:
        sock = self._live()
        return iter([name for name, option in OPTIONS.items() if _shows(sock, option)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *OPTIONS]

    def __repr__(self) -> str:
        sock = self._socket()
        return f"<Options of {_describe(sock)}>" if sock is not None and sock.fileno() >= 0 else "<Options, closed>"


def _shows(sock: socket.socket, option: Option) -> bool:
    if not (option.listed and option.readable and option.applies_to(sock)):
        return False
    try:
        get_option(sock, option.name)
    except PorticoError:  # this kernel does not have it, or the socket is not connected yet
        return False
    return True
