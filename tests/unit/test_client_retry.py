import asyncio
import errno
import itertools
import socket
import ssl
from collections.abc import Callable

import pytest
from client_kit import FakeClock, FakeResolver, accept, clock, listening, on_both_loops
from ports import free_port

from portico.address import Address
from portico.client import Retry, connect, is_temporary
from portico.errors import Attempt, ConfigurationError, ConnectError, ResolveError, TLSError

__all__ = ["clock"]

HERE = Address.parse("tcp://192.0.2.1:80")


def tls_error(cause: BaseException | None) -> TLSError:
    error = TLSError("it failed")
    error.__cause__ = cause
    return error


def failed(*attempts: tuple[str, BaseException]) -> ConnectError:
    return ConnectError(HERE, [Attempt(HERE, stage, error, 0.1) for stage, error in attempts])


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        ConnectionResetError(),
        TimeoutError(),
        OSError(errno.EHOSTUNREACH, "no route"),
        OSError(errno.ENETUNREACH, "no network"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        ResolveError(socket.EAI_AGAIN, "try again"),
        tls_error(EOFError()),
        tls_error(ssl.SSLEOFError()),
        tls_error(ConnectionResetError()),
    ],
    ids=repr,
)
def test_what_passes_is_worth_another_try(error: BaseException) -> None:
    assert is_temporary(error)


@pytest.mark.parametrize(
    "error",
    [
        ResolveError(socket.EAI_NONAME, "unknown"),
        ResolveError(socket.EAI_FAIL, "for ever"),
        PermissionError(errno.EACCES, "no"),
        OSError(errno.EADDRNOTAVAIL, "not ours"),
        OSError(errno.EINVAL, "bad"),
        tls_error(ssl.SSLCertVerificationError()),
        tls_error(ssl.SSLError()),
        tls_error(None),
        ValueError(),
    ],
    ids=repr,
)
def test_what_stays_is_not(error: BaseException) -> None:
    assert not is_temporary(error)


def test_one_good_chance_among_the_attempts_is_enough_but_tls_has_the_last_word() -> None:
    refused, forbidden = ConnectionRefusedError(), PermissionError(errno.EACCES, "no")
    assert Retry().is_worth_it(failed(("connect", refused), ("connect", forbidden)))
    assert not Retry().is_worth_it(failed(("connect", forbidden)))
    assert not Retry().is_worth_it(failed(("connect", refused), ("tls", tls_error(ssl.SSLCertVerificationError()))))
    assert not Retry().is_worth_it(failed())
    assert Retry(retryable=lambda error: True).is_worth_it(failed(("connect", forbidden)))


def test_delays_double_up_to_the_maximum() -> None:
    delays = list(Retry(attempts=6, first=0.5, factor=2.0, maximum=3.0, jitter=0.0).delays(FakeClock()))
    assert delays == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_takes_off_up_to_its_part() -> None:
    def first(jitter: float, random: float) -> float:
        return next(Retry(first=8.0, maximum=30, jitter=jitter).delays(FakeClock(random)))

    assert (first(0.5, 0.0), first(0.5, 0.5), first(1.0, 0.75), first(1.0, 0.0)) == (8.0, 6.0, 2.0, 8.0)


def test_endless_delays_never_overflow() -> None:
    delays = Retry(attempts=None, factor=1e300, maximum=30.0, jitter=0.0).delays(FakeClock())
    assert list(itertools.islice(delays, 1000, 1002)) == [30.0, 30.0]


def test_one_attempt_has_no_delay() -> None:
    assert list(Retry(attempts=1).delays()) == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retry(attempts=0), "attempts=0 cannot be; it must be at least 1"),
        (lambda: Retry(first=-1), "first=-1"),
        (lambda: Retry(factor=0.5), "factor=0.5"),
        (lambda: Retry(first=2, maximum=1), "maximum=1 cannot be; it must be at least first=2"),
        (lambda: Retry(jitter=1.5), "jitter=1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], Retry], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


@on_both_loops
async def test_all_tries_are_told_and_waited_for(clock: FakeClock) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectError) as caught:
        await connect(address, retry=Retry(attempts=3, jitter=0.0))
    assert [str(each.address) for each in caught.value.attempts] == [address] * 3
    assert clock.slept == [0.5, 1.0]
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@on_both_loops
async def test_of_many_tries_the_last_hundred_are_told(clock: FakeClock) -> None:
    with pytest.raises(ConnectError) as caught:
        await connect(f"tcp://127.0.0.1:{free_port()}", retry=Retry(attempts=150))
    assert len(caught.value.attempts) == 100
    assert len(clock.slept) == 149


@on_both_loops
async def test_a_server_that_comes_up_is_found(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with socket.socket() as server:

        async def sleep(seconds: float) -> None:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            server.listen()
            server.setblocking(False)

        monkeypatch.setattr("portico.client.retry.sleep", sleep)
        async with connect(f"tcp://127.0.0.1:{port}", retry=Retry(attempts=None)):
            (await accept(server)).close()


@on_both_loops
async def test_what_stays_is_not_tried_again(clock: FakeClock) -> None:
    resolver = FakeResolver(error=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    with pytest.raises(ConnectError):
        await connect("tcp://nosuch.test:80", resolver=resolver, retry=Retry())
    assert clock.slept == []
    assert len(resolver.asked) == 1


@on_both_loops
async def test_a_name_server_that_is_down_is_asked_again(clock: FakeClock) -> None:
    resolver = FakeResolver(error=socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    with pytest.raises(ConnectError) as caught:
        await connect("tcp://some.test:80", resolver=resolver, retry=Retry(attempts=2))
    assert [each.stage for each in caught.value.attempts] == ["resolve", "resolve"]


@on_both_loops
async def test_each_try_has_the_whole_timeout(clock: FakeClock) -> None:
    resolver = FakeResolver(hangs=True)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(ConnectError, match=r"within 0\.05 s") as caught:
        await connect("tcp://slow.test:80", resolver=resolver, timeout=0.05, retry=Retry(attempts=3))
    assert asyncio.get_running_loop().time() - begun >= 0.14
    assert [type(each.error) for each in caught.value.attempts] == [TimeoutError] * 3


@on_both_loops
async def test_cancelled_while_it_waits_for_the_next_try() -> None:
    with listening() as (_, address):
        pass
    trying = asyncio.ensure_future(_until_connected(address))
    await asyncio.sleep(0.02)
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying


async def _until_connected(address: Address) -> None:
    await connect(address, retry=Retry(attempts=None, first=100.0, maximum=100.0))
