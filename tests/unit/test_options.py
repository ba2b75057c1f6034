import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from portico.errors import ClosedError, ConfigurationError, UnsupportedError
from portico.options import OPTIONS, Option, Options, get_option, set_option


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        yield sock


@pytest.fixture
def unix() -> Iterator[socket.socket]:
    first, second = socket.socketpair()
    with first, second:
        yield first


class Refusing:
    """A TCP socket whose system refuses everything with one error."""

    family, type, proto = socket.AF_INET, socket.SOCK_STREAM, 0

    def __init__(self, code: int) -> None:
        self.error = OSError(code, "Refused")

    def fileno(self) -> int:
        return 3

    def getsockopt(self, *args: object) -> int:
        raise self.error

    setsockopt = getsockopt


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keepalive", True),
        ("keepalive_idle", 30),
        ("keepalive_interval", 5),
        ("keepalive_count", 3),
        ("user_timeout", 20_000),
        ("no_delay", True),
        ("quick_ack", False),
        ("cork", True),
        ("linger", 0),
        ("linger", 7),
        ("linger", None),
        ("receive_lowat", 10),
        ("notsent_lowat", 16384),
        ("notsent_lowat", 2**32 - 1),
        ("reuse_address", True),
        ("reuse_port", True),
        ("type_of_service", 0x10),
        ("ttl", 33),
        ("priority", 3),
        ("bind_to_device", ""),
    ],
)
def test_what_is_set_reads_back(tcp: socket.socket, name: str, value: object) -> None:
    set_option(tcp, name, value)
    assert get_option(tcp, name) == value
    assert type(get_option(tcp, name)) is type(value)


def test_congestion_reads_back(tcp: socket.socket) -> None:
    current = get_option(tcp, "congestion")
    assert isinstance(current, str) and current.isprintable() and current
    set_option(tcp, "congestion", current)


def test_buffers_are_at_least_what_was_asked_for(tcp: socket.socket) -> None:
    for name in ("receive_buffer", "send_buffer"):
        set_option(tcp, name, 65536)
        size = get_option(tcp, name)
        assert isinstance(size, int) and size >= 65536


def test_ipv6_options() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        for name, value in (("v6_only", True), ("traffic_class", 32), ("hop_limit", 5)):
            set_option(sock, name, value)
            assert get_option(sock, name) == value


def test_listener_options() -> None:
    with socket.socket() as sock:
        set_option(sock, "fast_open", 16)
        set_option(sock, "defer_accept", 5)
        assert get_option(sock, "fast_open") == 16
        assert get_option(sock, "accepting") is False
        sock.listen()
        assert get_option(sock, "accepting") is True


def test_what_the_kernel_tells(tcp: socket.socket) -> None:
    told = [get_option(tcp, name) for name in ("type", "domain", "protocol", "error")]
    assert told == [socket.SOCK_STREAM, socket.AF_INET, socket.IPPROTO_TCP, 0]
    with pytest.raises(ConfigurationError, match="can only be read"):
        set_option(tcp, "type", 1)


@pytest.mark.parametrize(
    ("name", "near"), [("keep_alive", "keepalive"), ("NoDelay", "no_delay"), ("recieve_buffer", "receive_buffer")]
)
def test_unknown_name_suggests_the_nearest(tcp: socket.socket, name: str, near: str) -> None:
    for action in (lambda: get_option(tcp, name), lambda: set_option(tcp, name, 1)):
        with pytest.raises(ConfigurationError, match=f"there is no option '{name}'; did you mean '{near}'"):
            action()
    with pytest.raises(ConfigurationError, match=r"no option 'zzzzzzzz'$"):
        get_option(tcp, "zzzzzzzz")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keepalive", "yes"),
        ("keepalive", 2),
        ("keepalive", None),
        ("keepalive_idle", 0),
        ("keepalive_idle", 1.5),
        ("keepalive_idle", 40_000),
        ("keepalive_count", True),
        ("ttl", 256),
        ("receive_buffer", "64k"),
        ("receive_buffer", 2**31),
        ("mark", -1),
        ("mark", 2**32),
        ("linger", -1),
        ("linger", True),
        ("congestion", b"cubic"),
        ("congestion", "x" * 16),
        ("bind_to_device", "a\0b"),
    ],
)
def test_wrong_value_is_refused_before_the_system_sees_it(tcp: socket.socket, name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"option '{name}' takes") as caught:
        set_option(tcp, name, value)
    assert repr(value) in str(caught.value)


def test_whole_float_counts_as_seconds(tcp: socket.socket) -> None:
    set_option(tcp, "keepalive_idle", 30.0)
    assert get_option(tcp, "keepalive_idle") == 30


def test_option_of_another_kind_of_socket(unix: socket.socket, tcp: socket.socket) -> None:
    with pytest.raises(ConfigurationError, match=r"'no_delay' .* is for TCP sockets; this one is AF_UNIX/SOCK_STREAM"):
        set_option(unix, "no_delay", True)
    with pytest.raises(ConfigurationError, match="is for IPv6 sockets"):
        get_option(tcp, "v6_only")


def test_option_that_the_platform_lacks(tcp: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Option("cork", "TCP_CORK", 6, None, "bool", "tcp", "", platform="Linux")
    monkeypatch.setattr("portico.options.OPTIONS", {"cork": lacking})
    with pytest.raises(UnsupportedError, match=r"'cork' \(TCP_CORK\) is not there on this platform; it is on Linux"):
        get_option(tcp, "cork")
    assert list(Options(lambda: tcp)) == []


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [
        (errno.ENOPROTOOPT, UnsupportedError, "does not have it"),
        (errno.EPERM, ConfigurationError, "CAP_NET_ADMIN"),
        (errno.EINVAL, ConfigurationError, "cannot be"),
        (errno.EBADF, ClosedError, "is closed"),
    ],
)
def test_refusal_of_the_system_is_one_line_with_the_name(code: int, expected: type[Exception], said: str) -> None:
    sock: socket.socket = Refusing(code)  # type: ignore[assignment]
    for action in (lambda: get_option(sock, "mark"), lambda: set_option(sock, "mark", 1)):
        with pytest.raises(expected, match="'mark'") as caught:
            action()
        assert said in str(caught.value) and "\n" not in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)


def test_refused_congestion_control_says_where_the_list_is(tcp: socket.socket) -> None:
    with pytest.raises(ConfigurationError, match=r"set to 'nonsense'.*tcp_available_congestion_control"):
        set_option(tcp, "congestion", "nonsense")


# The mapping


def test_items_and_attributes_are_the_same_live_thing(tcp: socket.socket) -> None:
    options = Options(lambda: tcp)
    options.keepalive = True
    assert options["keepalive"] is True and options.keepalive is True
    options["no_delay"] = True
    assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    options.update(keepalive_idle=11, keepalive_count=2)
    assert (options.keepalive_idle, options.keepalive_count) == (11, 2)
    assert "AF_INET/SOCK_STREAM" in repr(options)


def test_unknown_names_in_the_mapping(tcp: socket.socket) -> None:
    options = Options(lambda: tcp)
    with pytest.raises(ConfigurationError, match="did you mean 'keepalive'"):
        options["keepaliv"]
    with pytest.raises(ConfigurationError, match="did you mean 'keepalive'"):
        options.keepaliv = True
    with pytest.raises(AttributeError, match="did you mean 'keepalive'"):
        _ = options.keepaliv
    assert not hasattr(options, "nonsense")
    assert "keepaliv" not in options and 7 not in options
    with pytest.raises(ConfigurationError, match="cannot be deleted"):
        del options["keepalive"]


def test_iteration_gives_what_applies_to_the_socket(tcp: socket.socket, unix: socket.socket) -> None:
    of_tcp, of_unix = Options(lambda: tcp), Options(lambda: unix)
    assert {"keepalive", "no_delay", "ttl", "linger"} <= set(of_tcp)
    assert "v6_only" not in of_tcp and "broadcast" not in of_tcp
    assert "no_delay" not in of_unix and "send_buffer" in of_unix
    assert "pass_credentials" in of_unix and "pass_credentials" not in of_tcp
    assert len(of_tcp) == len(list(of_tcp))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert "broadcast" in Options(lambda: udp) and "no_delay" not in Options(lambda: udp)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_all_that_is_listed_can_be_read(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        for name, value in Options(lambda: sock).items():
            assert value is None or isinstance(value, bool | int | str | bytes | tuple), name


def test_reading_all_leaves_a_pending_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with sock:
        set_option(peer, "linger", 0)
        peer.close()
        dict(Options(lambda: sock))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_closed_socket_says_so(tcp: socket.socket) -> None:
    options = Options(lambda: tcp)
    tcp.close()
    for gone in (options, Options(lambda: None)):
        with pytest.raises(ClosedError, match="closed"):
            gone["keepalive"]
        with pytest.raises(ClosedError, match="closed"):
            gone.keepalive = True
        with pytest.raises(ClosedError, match="closed"):
            list(gone)
        assert repr(gone) == "<Options, closed>"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_sockets_that_transports_show(kind: str) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            options = Options(lambda: writer.get_extra_info("socket"))
            options.keepalive = True
            options.linger = 3
            assert dict(options)["keepalive"] is True and options.linger == 3
            assert options.congestion
            with pytest.raises(ConfigurationError, match="this one is AF_INET/SOCK_STREAM"):
                options.v6_only = True
            writer.close()
            await writer.wait_closed()

    if kind == "uvloop":
        pytest.importorskip("uvloop").run(main())
    else:
        asyncio.run(main())


def test_the_table_is_consistent() -> None:
    for name, option in OPTIONS.items():
        assert name == option.name and name.isidentifier() and option.doc.endswith(".")
        assert not hasattr(Options, name), f"{name} would hide a method of the mapping"
        assert option.minimum <= option.maximum
    constants = [option.constant for option in OPTIONS.values()]
    assert len(constants) == len(set(constants))
