"""Names to addresses and back, without ever holding up the loop or one another."""

import asyncio
import contextlib
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from portico.address import SCHEMES, Address
from portico.errors import AddressError, ResolveError, describe
from portico.interfaces import Resolver

__all__ = ["SystemResolver", "default_resolver", "name_of", "resolve"]

T = TypeVar("T")

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_EAI_ADDRFAMILY: int = getattr(socket, "EAI_ADDRFAMILY", socket.EAI_NONAME)


async def resolve(
    host: str | Address,
    port: int | str | None = None,
    *,
    scheme: str = "tcp",
    family: int = 0,
    numeric_only: bool = False,
    resolver: Resolver | None = None,
    timeout: float | None = None,
) -> list[Address]:
    """Give the addresses to try for `host`, each once, in the order to try them in (RFC 6724, as the system sorts).

    Nobody is asked about numeric, `unix` and `mem` addresses, and every interface (`*`) stays what it is.

    :param host: an `Address`, the text of one (`"localhost:80"`, `"udp://host:53"`), or a host alone.
    :param port: number or service name; for a host alone 0 if not given.
    :param family: `socket.AF_INET` or `socket.AF_INET6` to get only these.
    :param numeric_only: never ask a server or a file: a name does not resolve.
    :param resolver: who is asked, in place of the system.
    :param timeout: seconds until it is given up with the code `EAI_AGAIN`; None leaves that to the resolver.
    :raises ResolveError: if there is no address, with the pair `(code, text)` of getaddrinfo(3).
    :raises AddressError: if `host` is meant as the text of an address and does not parse.
    """
    address = _wanted(host, port, scheme)
    if address.is_numeric:
        return [_of_family(address, family)]
    if numeric_only:
        raise ResolveError(socket.EAI_NONAME, "it is a name, and only numeric addresses are allowed", address.host)
    async with _mapped(address.host, timeout):
        found = await (resolver or default_resolver()).resolve(address, family=family)
    unique = list(dict.fromkeys(found))
    if not unique:
        raise ResolveError(socket.EAI_NONAME, "no address belongs to it", address.host)
    return unique


async def name_of(
    address: Address,
    *,
    numeric_only: bool = False,
    resolver: Resolver | None = None,
    timeout: float | None = None,
) -> tuple[str, str]:
    """Give the names of the host and the service at a numeric `address`; what has no name stays a number.

    What has no IP address gives its path and "", or its interface or context identifier and the number behind it. Of a
    raw address the protocol stays a number.

    :param numeric_only: ask nobody: the numbers as text, the host with its scope.
    :param resolver: who is asked, in place of the system.
    :param timeout: seconds until it is given up with the code `EAI_AGAIN`; None leaves that to the resolver.
    :raises ResolveError: if it cannot be found out, or if `address` is a name already.
    """
    scheme = SCHEMES[address.scheme]
    if scheme.is_path:
        return address.path, ""
    if not scheme.is_internet:
        return address.host or "*", str(address.port)
    if not address.is_numeric:
        raise ResolveError(socket.EAI_NONAME, "it is a name already", address.host)
    if numeric_only:
        scope = f"%{address.scope}" if address.scope else ""
        return (address.host or "::") + scope, str(address.port)
    async with _mapped(address.host, timeout):
        host, service = await (resolver or default_resolver()).name_of(address)
    return host, str(address.port) if scheme.parts == "protocol" else service


def _wanted(host: str | Address, port: int | str | None, scheme: str) -> Address:
    """What `resolve` was asked for, as one address."""
    if isinstance(host, Address):
        return host if port is None else host.with_port(_port_number(port, host.scheme, host.host))
    known = SCHEMES.get(scheme)
    if known is None or not known.is_internet or (port is None and _has_port(host)):
        return Address.parse(host, scheme)
    if not host:
        raise ResolveError(socket.EAI_NONAME, "the host is empty; '*' is every interface", host)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    number = 0 if port is None else _port_number(port, scheme, host)
    try:
        return Address(scheme, bare, number)
    except AddressError as error:
        raise ResolveError(socket.EAI_NONAME, error.reason, host) from error


def _has_port(text: str) -> bool:
    """Whether `text` is more than a host: a whole address."""
    return bool({"/", "@"} & set(text)) or text.count(":") == 1 or (text.startswith("[") and not text.endswith("]"))


def _port_number(port: int | str, scheme: str, host: str) -> int:
    known = SCHEMES[scheme]
    like = scheme if known.parts == "protocol" else "udp" if known.kind == "datagram" else "tcp"
    try:
        number = Address.parse(f"{like}://*:{port}").port
    except AddressError as error:
        raise ResolveError(socket.EAI_SERVICE, error.reason, host) from error
    assert number is not None  # only schemes without a host have none
    return number


def _of_family(address: Address, family: int) -> Address:
    """A numeric `address` as one of `family`, if it can be that."""
    if family == 0 or address.family == family or address.family not in _INTERNET:
        return address
    if not address.host:
        return address.replace(host="0.0.0.0" if family == socket.AF_INET else "::")
    text = f"it is not an {'IPv4' if family == socket.AF_INET else 'IPv6'} address"
    raise ResolveError(_EAI_ADDRFAMILY, text, address.host)


@contextlib.asynccontextmanager
async def _mapped(host: str, timeout: float | None) -> AsyncIterator[None]:
    """Turn whatever a resolver fails with into a `ResolveError`, also that it took more than `timeout` seconds."""
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            yield
    except ResolveError:
        raise
    except TimeoutError as error:
        text = f"no answer within {timeout:g} s" if deadline.expired() and timeout is not None else "timed out"
        raise ResolveError(socket.EAI_AGAIN, text, host) from error
    except socket.gaierror as error:
        code = error.errno if error.errno is not None else socket.EAI_FAIL
        raise ResolveError(code, error.strerror or str(error), host) from error
    except UnicodeError as error:
        raise ResolveError(socket.EAI_NONAME, f"not a host name: {error}", host) from error
    except AddressError as error:
        raise ResolveError(socket.EAI_FAIL, error.reason, host) from error
    except OSError as error:
        raise ResolveError(getattr(socket, "EAI_SYSTEM", socket.EAI_FAIL), describe(error), host) from error


class SystemResolver:
    """The system's getaddrinfo(3) and getnameinfo(3), in threads of its own.

    A lookup that hangs holds one thread; others go on in the rest, and what is beyond that waits in line. A cancelled
    lookup leaves the line; once it runs, the system offers no way to end it, and its result is dropped. The threads
    never hold up the end of the interpreter. May be used from any number of loops, and after a fork.

    :param workers: how many lookups run at once.
    :param idle_timeout: seconds after which a thread without work ends.
    """

    def __init__(self, workers: int = 16, *, idle_timeout: float = 5.0) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._pool = _Pool(workers, idle_timeout)

    @property
    def closed(self) -> bool:
        return self._pool.closed

    async def resolve(self, address: Address, *, family: int = 0) -> list[Address]:
        """See `Resolver.resolve`; raises what `socket.getaddrinfo` raises."""
        kind = socket.SOCK_DGRAM if SCHEMES[address.scheme].kind == "datagram" else socket.SOCK_STREAM
        found = await self._pool.run(lambda: socket.getaddrinfo(address.host, address.port, family, kind))
        addresses = (
            Address.from_sockaddr(address.scheme, each, sockaddr)
            for each, _, _, _, sockaddr in found
            if each in _INTERNET
        )
        return [each.replace(path=address.path) for each in addresses] if address.path else list(addresses)

    async def name_of(self, address: Address) -> tuple[str, str]:
        """See `Resolver.name_of`; raises what `socket.getnameinfo` raises."""
        flags = socket.NI_DGRAM if SCHEMES[address.scheme].kind == "datagram" else 0
        sockaddr = address.sockaddr
        assert isinstance(sockaddr, tuple) and isinstance(sockaddr[0], str)  # the contract: an address of the internet
        return await self._pool.run(lambda: socket.getnameinfo(sockaddr, flags))

    def close(self) -> None:
        """End the threads; lookups in line fail, one that runs still gives its result. May be called twice."""
        self._pool.close()


_default: SystemResolver | None = None


def default_resolver() -> SystemResolver:
    """The `SystemResolver` of this process, made at the first call, and anew after its `close`."""
    global _default
    if _default is None or _default.closed:
        _default = SystemResolver()
    return _default


class _Job(Generic[T]):
    """A call that some loop waits for."""

    __slots__ = ("call", "future", "loop")

    def __init__(self, call: Callable[[], T]) -> None:
        self.call = call
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()

    def run(self) -> Callable[[], None]:
        """Do it, and give what tells the loop so."""
        try:
            result = self.call()
        except BaseException as error:
            failure = error
            return lambda: self.fail(failure)
        return lambda: self._tell(lambda: self.future.set_result(result))

    def fail(self, error: BaseException) -> None:
        self._tell(lambda: self.future.set_exception(error))

    def _tell(self, settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else settle())


class _Pool:
    """At most `limit` daemon threads that take jobs in order.

    concurrent.futures joins its threads when the interpreter ends, which one hung lookup would delay for minutes.
    """

    def __init__(self, limit: int, idle_timeout: float) -> None:
        self._limit, self._idle_timeout = limit, idle_timeout
        self.closed = False
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition(threading.Lock())
        self._waiting: OrderedDict[_Job[Any], None] = OrderedDict()
        self._threads: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()

    def _after_fork(self) -> None:
        """Begin anew in a forked child: threads do not live on in it, and its copy of the lock may be held."""
        if self._process != os.getpid():
            self._reset()

    async def run(self, call: Callable[[], T]) -> T:
        """Do `call` in a thread; cancelled before it begins, it never does."""
        self._after_fork()
        job = _Job(call)
        self._enqueue(job)
        try:
            return await job.future
        finally:
            with self._changed:
                self._waiting.pop(job, None)

    def _enqueue(self, job: _Job[Any]) -> None:
        with self._changed:
            if self.closed:
                raise ResolveError(socket.EAI_AGAIN, "the resolver is closed")
            self._waiting[job] = None
            if len(self._waiting) <= len(self._threads) - len(self._busy):
                self._changed.notify()
            elif len(self._threads) < self._limit:
                self._add_thread(job)

    def _add_thread(self, job: _Job[Any]) -> None:
        thread = threading.Thread(target=self._work, name="portico-resolver", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            self._threads.discard(thread)
            if not self._threads:
                del self._waiting[job]
                raise ResolveError(socket.EAI_MEMORY, "no thread can be started") from error

    def _work(self) -> None:
        me = threading.current_thread()
        while (job := self._next(me)) is not None:
            tell = job.run()
            # before the loop hears of it, so that who closes the pool upon the result finds this thread at rest
            with self._changed:
                self._busy.discard(me)
            tell()
            del job, tell

    def _next(self, me: threading.Thread) -> _Job[Any] | None:
        """Wait for a job; None ends the thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed, self._idle_timeout)
            if not self._waiting:
                self._threads.discard(me)
                return None
            self._busy.add(me)
            return self._waiting.popitem(last=False)[0]

    def close(self) -> None:
        self._after_fork()
        with self._changed:
            self.closed = True
            dropped, resting = list(self._waiting), self._threads - self._busy
            self._waiting.clear()
            self._changed.notify_all()
        for job in dropped:
            job.fail(ResolveError(socket.EAI_AGAIN, "the resolver was closed"))
        for thread in resting:
            thread.join()
