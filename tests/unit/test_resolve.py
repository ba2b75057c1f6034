import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from portico.address import Address
from portico.errors import AddressError, ResolveError
from portico.transports.resolve import SystemResolver, default_resolver, name_of, resolve

T = TypeVar("T")
PATIENCE = 10.0  # seconds until a test that waits for an event calls it lost


def within(seconds: float, task: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await asyncio.wait_for(task(), seconds)

    return asyncio.run(main())


def run(task: Callable[[], Awaitable[T]]) -> T:
    return within(PATIENCE, task)


def resolver_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "portico-resolver"]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    default_resolver().close()
    for thread in resolver_threads():
        thread.join(PATIENCE)
    assert not resolver_threads()


class System:
    """A getaddrinfo and getnameinfo that hang on demand and remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.began = threading.Semaphore(0)
        self.release = threading.Event()
        self.found: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]

    def getaddrinfo(self, host: str, *_: object) -> list[Any]:
        self.asked.append(host)
        self.threads.add(threading.current_thread())
        if host.startswith("slow"):
            self.began.release()
            assert self.release.wait(PATIENCE)
        return self.found

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        self.asked.append(sockaddr[0])
        return "name.example", "domain-udp" if flags & socket.NI_DGRAM else "domain-tcp"

    async def wait_for_slow(self, count: int = 1) -> None:
        for _ in range(count):
            assert await asyncio.to_thread(self.began.acquire, timeout=PATIENCE)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    fake = System()
    monkeypatch.setattr(socket, "getaddrinfo", fake.getaddrinfo)
    monkeypatch.setattr(socket, "getnameinfo", fake.getnameinfo)
    yield fake
    fake.release.set()


class NoOne:
    """A resolver that must not be asked."""

    async def resolve(self, address: Address, *, family: int = 0) -> Sequence[Address]:
        raise AssertionError(f"asked for {address}")

    async def name_of(self, address: Address) -> tuple[str, str]:
        raise AssertionError(f"asked for {address}")


class Hosts:
    """A resolver as a user writes it."""

    async def resolve(self, address: Address, *, family: int = 0) -> Sequence[Address]:
        table = {"one": ["192.0.2.1"], "two": ["2001:db8::2", "192.0.2.2", "2001:db8::2"], "none": []}
        if address.host == "down":
            raise ConnectionRefusedError(111, "Connection refused")
        if address.host == "bug":
            raise ZeroDivisionError
        if address.host == "hang":
            await asyncio.Event().wait()
        found = [address.replace(host=host) for host in table[address.host]]
        return [each for each in found if family in (0, each.family)]

    async def name_of(self, address: Address) -> tuple[str, str]:
        return "two.example", "http"


def failure(*args: Any, **settings: Any) -> ResolveError:
    with pytest.raises(ResolveError) as caught:
        run(lambda: resolve(*args, **settings))
    error = caught.value
    assert isinstance(error, socket.gaierror)
    assert error.args == (error.code, error.text)
    return error


# -- names to addresses


def test_localhost_resolves_to_loopback() -> None:
    found = run(lambda: resolve("localhost", 80, family=socket.AF_INET))
    assert found == [Address("tcp", "127.0.0.1", 80)]


def test_results_come_in_the_order_of_the_system_and_once_each(system: System) -> None:
    system.found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 80, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 80, 0, 0)),
        (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/x"),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.2", 80)),
    ]
    found = run(lambda: resolve("host.example", 80))
    assert [each.host for each in found] == ["2001:db8::1", "192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_the_system_is_asked_for_the_kind_and_family(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    def getaddrinfo(host: str, port: int, family: int, kind: int) -> list[Any]:
        assert (host, port, family) == ("host.example", 53, socket.AF_INET)
        assert kind == (socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)
        return [(family, kind, 0, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = run(lambda: resolve("host.example", 53, scheme=scheme, family=socket.AF_INET))
    assert found == [Address(scheme, "192.0.2.1", 53)]


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("127.0.0.1", 80, "tcp://127.0.0.1:80"),
        ("127.0.0.1", None, "tcp://127.0.0.1:0"),
        ("::1", None, "tcp://[::1]:0"),
        ("[::1]", 80, "tcp://[::1]:80"),
        ("[::1]", None, "tcp://[::1]:0"),
        ("fe80::1%eth0", 80, "tcp://[fe80::1%eth0]:80"),
        ("[fe80::1%eth0?flow=5]:80", None, "tcp://[fe80::1%eth0?flow=5]:80"),
        ("127.0.0.1:80", None, "tcp://127.0.0.1:80"),
        ("udp://127.0.0.1:53", None, "udp://127.0.0.1:53"),
        ("*", 80, "tcp://*:80"),
        (":80", None, "tcp://*:80"),
        ("/run/x", None, "unix:/run/x"),
        ("unix:x", None, "unix:x"),
        ("@x", None, "unix:@x"),
        ("mem:x", None, "mem:x"),
        ("unixgram:/run/x", None, "unixgram:/run/x"),
        ("fifo:/run/x", None, "fifo:/run/x"),
        ("packet://lo:arp", None, "packet://lo:0x0806"),
        ("vsock://host:9", None, "vsock://2:9"),
        ("raw://127.0.0.1:icmp", None, "raw://127.0.0.1:1"),
        (Address("raw", "127.0.0.1", 0), "udp", "raw://127.0.0.1:17"),
        (Address("tls", "::1", 443), None, "tls://[::1]:443"),
        (Address("tls", "::1", 443), 444, "tls://[::1]:444"),
        (Address("unix"), None, "unix:<unnamed>"),
    ],
)
def test_nobody_is_asked_what_needs_no_asking(host: str | Address, port: int | str | None, expected: str) -> None:
    for numeric_only in (False, True):
        found = run(lambda only=numeric_only: resolve(host, port, numeric_only=only, resolver=NoOne()))
        assert [str(each) for each in found] == [expected]
    assert not resolver_threads()


def test_every_interface_of_one_family() -> None:
    any_host = Address("tcp", "", 80)
    assert run(lambda: resolve(any_host, family=socket.AF_INET)) == [Address("tcp", "0.0.0.0", 80)]
    assert run(lambda: resolve(any_host, family=socket.AF_INET6)) == [any_host]
    assert run(lambda: resolve("raw://*:udp", family=socket.AF_INET6)) == [Address("raw", "::", 17)]


def test_a_service_name_as_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getservbyname", lambda name, protocol: {"tcp": 1, "udp": 2}[protocol])
    assert run(lambda: resolve("127.0.0.1", "game"))[0].port == 1
    assert run(lambda: resolve("127.0.0.1", "game", scheme="udp"))[0].port == 2


def test_numeric_only_never_asks_anyone() -> None:
    error = failure("localhost", 80, numeric_only=True, resolver=NoOne())
    assert (error.code, error.host) == (socket.EAI_NONAME, "localhost")
    address = Address.parse("[fe80::1%eth0]:53")
    assert run(lambda: name_of(address, numeric_only=True, resolver=NoOne())) == ("fe80::1%eth0", "53")
    assert run(lambda: name_of(Address("tcp", "", 53), numeric_only=True, resolver=NoOne())) == ("::", "53")
    assert not resolver_threads()


# -- addresses to names


def test_name_of_asks_the_system_for_the_scheme_s_services(system: System) -> None:
    assert run(lambda: name_of(Address("tcp", "192.0.2.1", 53))) == ("name.example", "domain-tcp")
    assert run(lambda: name_of(Address("udp", "192.0.2.1", 53))) == ("name.example", "domain-udp")


def test_name_of_loopback_is_a_name() -> None:
    host, _ = run(lambda: name_of(Address("tcp", "127.0.0.1", 80)))
    assert host == socket.getnameinfo(("127.0.0.1", 80), 0)[0]


def test_name_of_what_has_no_host() -> None:
    assert run(lambda: name_of(Address("unix", path="/x"), resolver=NoOne())) == ("/x", "")
    assert run(lambda: name_of(Address("mem", path="x"), resolver=NoOne())) == ("x", "")
    assert run(lambda: name_of(Address("fifo", path="/x"), resolver=NoOne())) == ("/x", "")
    assert run(lambda: name_of(Address("vsock", "2", 9), resolver=NoOne())) == ("2", "9")
    assert run(lambda: name_of(Address("packet"), resolver=NoOne())) == ("*", "3")


def test_name_of_a_raw_address_leaves_the_protocol_a_number() -> None:
    host, protocol = run(lambda: name_of(Address("raw", "127.0.0.1", 17)))
    assert (host, protocol) == (socket.getnameinfo(("127.0.0.1", 0), 0)[0], "17")


def test_name_of_a_name_is_an_error() -> None:
    with pytest.raises(ResolveError, match="a name already"):
        run(lambda: name_of(Address("tcp", "localhost", 80)))


def test_name_of_that_fails_is_a_resolve_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def getnameinfo(*_: object) -> tuple[str, str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getnameinfo", getnameinfo)
    with pytest.raises(ResolveError) as caught:
        run(lambda: name_of(Address("tcp", "192.0.2.1", 80)))
    assert caught.value.args == (socket.EAI_AGAIN, "Temporary failure in name resolution")
    with pytest.raises(ResolveError, match="no network interface"):
        run(lambda: name_of(Address.parse("[fe80::1%nope0]:80")))


# -- failures


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            socket.EAI_AGAIN,
            "Temporary failure",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            socket.EAI_NONAME,
            "Name or service not known",
        ),
        (UnicodeError("label too long"), socket.EAI_NONAME, "label too long"),
        (OSError(24, "Too many open files"), socket.EAI_SYSTEM, "too many open files"),
    ],
)
def test_what_the_system_fails_with_is_a_resolve_error(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int, text: str
) -> None:
    def getaddrinfo(*_: object) -> list[Any]:
        raise raised

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    error = failure("host.example", 80)
    assert (error.code, error.host) == (code, "host.example")
    assert text in error.text
    assert str(error) == f"cannot resolve 'host.example': {error.text}"
    assert error.__cause__ is raised


@pytest.mark.parametrize("host", ["", "a..b", "a b", "a" * 64, "ü" * 64, "127.1", "8080", "a\0b", "\ud800", "[::1"])
def test_what_cannot_be_a_host_is_a_resolve_error(host: str) -> None:
    assert failure(host, 80, resolver=NoOne()).code == socket.EAI_NONAME


@pytest.mark.parametrize("port", [-1, 65536, "no-such-service", "", "80/x"])
def test_what_cannot_be_a_port_is_a_resolve_error(port: int | str) -> None:
    assert failure("127.0.0.1", port).code == socket.EAI_SERVICE


def test_a_numeric_address_of_another_family_is_a_resolve_error() -> None:
    assert "not an IPv6 address" in failure("127.0.0.1", 80, family=socket.AF_INET6).text
    assert "not an IPv4 address" in failure("::1", 80, family=socket.AF_INET).text


def test_the_text_of_an_address_that_does_not_parse_is_an_address_error() -> None:
    for text in ("tcp://h:99999", "h:99999", "nope://h:1"):
        with pytest.raises(AddressError):
            run(lambda text=text: resolve(text))


def test_no_address_is_a_resolve_error(system: System) -> None:
    system.found = []
    assert failure("host.example", 80).code == socket.EAI_NONAME


def test_timeout_is_a_resolve_error_and_the_late_answer_is_dropped(system: System) -> None:
    error = failure("slow.example", 80, timeout=0.01)
    assert (error.code, error.host) == (socket.EAI_AGAIN, "slow.example")
    assert "no answer within 0.01 s" in error.text


# -- another resolver


def test_any_object_with_the_two_methods_is_a_resolver() -> None:
    async def main() -> None:
        assert await resolve("tls://one:443", resolver=Hosts()) == [Address("tls", "192.0.2.1", 443)]
        found = await resolve("two", 80, resolver=Hosts())
        assert [each.host for each in found] == ["2001:db8::2", "192.0.2.2"]
        found = await resolve("two", 80, family=socket.AF_INET, resolver=Hosts())
        assert [each.host for each in found] == ["192.0.2.2"]
        assert await name_of(found[0], resolver=Hosts()) == ("two.example", "http")

    run(main)
    assert not resolver_threads()


def test_failures_of_another_resolver_are_resolve_errors() -> None:
    assert failure("down", 80, resolver=Hosts()).text == "connection refused"
    assert failure("none", 80, resolver=Hosts()).code == socket.EAI_NONAME
    assert failure("hang", 80, resolver=Hosts(), timeout=0.01).code == socket.EAI_AGAIN
    with pytest.raises(ZeroDivisionError):
        run(lambda: resolve("bug", 80, resolver=Hosts()))


# -- the pool


def test_a_slow_lookup_stalls_neither_the_loop_nor_other_lookups(system: System) -> None:
    async def main() -> None:
        slow = asyncio.ensure_future(resolve("slow.example", 80))
        await system.wait_for_slow()
        assert await resolve("fast.example", 80)
        assert await name_of(Address("tcp", "192.0.2.1", 80))
        assert not slow.done()
        system.release.set()
        assert await slow

    run(main)


def test_lookups_beyond_the_pool_wait_in_line_and_can_be_cancelled(system: System) -> None:
    async def main() -> None:
        resolver = SystemResolver(workers=2)
        slow = [asyncio.ensure_future(resolve(f"slow{n}", 80, resolver=resolver)) for n in ("a", "b")]
        await system.wait_for_slow(2)
        queued = [asyncio.ensure_future(resolve(f"queued-{n}", 80, resolver=resolver)) for n in ("a", "b", "c")]
        await asyncio.sleep(0)
        queued[1].cancel()
        await asyncio.wait([queued[1]])
        assert queued[1].cancelled()
        assert system.asked == ["slowa", "slowb"]
        assert len(resolver_threads()) == 2
        system.release.set()
        await asyncio.gather(*slow, queued[0], queued[2])
        assert sorted(system.asked[2:]) == ["queued-a", "queued-c"]
        resolver.close()

    run(main)


def test_a_cancelled_lookup_that_runs_returns_at_once_and_its_result_is_dropped(system: System) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        resolver = SystemResolver(workers=1)
        slow = asyncio.ensure_future(resolve("slow", 80, resolver=resolver))
        await system.wait_for_slow()
        slow.cancel()
        await asyncio.wait([slow])
        assert slow.cancelled()
        system.release.set()
        assert await resolve("next", 80, resolver=resolver)
        resolver.close()

    complaints: list[object] = []
    run(main)
    assert not complaints


def test_a_lookup_that_outlives_its_loop_is_dropped(system: System) -> None:
    async def main() -> None:
        lookups.append(asyncio.ensure_future(resolve("slow", 80, resolver=resolver)))
        await system.wait_for_slow()

    resolver = SystemResolver(workers=1)
    lookups: list[asyncio.Future[list[Address]]] = []
    run(main)
    assert lookups[0].cancelled()
    system.release.set()
    assert run(lambda: resolve("next", 80, resolver=resolver))
    resolver.close()


def test_one_resolver_serves_many_loops_at_once(system: System) -> None:
    resolver = SystemResolver(workers=2)
    results: list[list[Address]] = []
    loops = [
        threading.Thread(target=lambda: results.append(run(lambda: resolve("h", 80, resolver=resolver))))
        for _ in range(8)
    ]
    for each in loops:
        each.start()
    for each in loops:
        each.join()
    assert len(results) == 8
    resolver.close()


def test_a_thread_is_used_again(system: System) -> None:
    async def main() -> None:
        for n in range(5):
            await resolve(f"h{n}", 80)

    run(main)
    assert len(system.threads) == 1


def test_threads_without_work_end_by_themselves(system: System) -> None:
    resolver = SystemResolver(idle_timeout=0.01)
    run(lambda: resolve("h", 80, resolver=resolver))
    for thread in system.threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert run(lambda: resolve("h", 80, resolver=resolver))
    resolver.close()


def test_close_leaves_no_thread_and_fails_what_waits_in_line(system: System) -> None:
    async def main() -> None:
        resolver = SystemResolver(workers=1)
        slow = asyncio.ensure_future(resolve("slow", 80, resolver=resolver))
        await system.wait_for_slow()
        queued = asyncio.ensure_future(resolve("queued", 80, resolver=resolver))
        await asyncio.sleep(0)
        resolver.close()
        resolver.close()
        assert resolver.closed
        with pytest.raises(ResolveError, match="closed"):
            await queued
        with pytest.raises(ResolveError, match="closed"):
            await resolve("late", 80, resolver=resolver)
        system.release.set()
        assert await slow

    run(main)


def test_close_upon_a_result_leaves_no_thread_at_all(system: System) -> None:
    async def main() -> None:
        for _ in range(50):
            resolver = SystemResolver()
            await asyncio.gather(*(resolve(f"h{n}", 80, resolver=resolver) for n in range(4)))
            resolver.close()
            assert not resolver_threads()

    run(main)


def test_the_default_resolver_is_one_until_it_is_closed() -> None:
    first = default_resolver()
    assert default_resolver() is first
    first.close()
    assert default_resolver() is not first


def test_a_machine_out_of_threads_is_a_resolve_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert failure("host.example", 80).code == socket.EAI_MEMORY
    assert run(lambda: resolve("localhost", 80))


def test_a_pool_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SystemResolver(workers=0)


CHILD = """
import asyncio, os, socket, sys, threading
from portico.transports.resolve import resolve
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD + code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_hung_lookup_does_not_hold_up_the_end_of_the_interpreter() -> None:
    code = """
socket.getaddrinfo = lambda *_: threading.Event().wait()
async def main():
    try:
        await resolve("h.example", 80, timeout=0.05)
    except OSError as error:
        print(error)
asyncio.run(main())
"""
    assert "no answer" in python(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_default_resolver_works_in_a_forked_child() -> None:
    code = """
assert asyncio.run(resolve("localhost", 80))
child = os.fork()
if not child:
    found = asyncio.run(resolve("localhost", 80, timeout=10))
    os._exit(0 if found else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if sys.version_info >= (3, 12):
        code = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + code
    python(code)
