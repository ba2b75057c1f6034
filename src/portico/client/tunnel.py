"""What is said to a proxy before it carries: SOCKS 4, 4a, 5 and HTTP CONNECT over a Stream.

The messages are python-socks' own, without its I/O; here is in which order they go, how long an answer may be, and what
each refusal means. Every answer is read to its last byte and no further: what the target sent behind it stays.
"""

import math
import re
from typing import Final, NoReturn

from portico.address import Address
from portico.client.proxies import Proxy
from portico.errors import ClosedError, ConfigurationError, EndOfStream, MessageTooLarge, ProxyError, describe
from portico.transports.connection import Stream
from portico.transports.tls import TLS

__all__ = ["ask", "is_about_target", "secure"]

MAX_HEAD: Final = 32 * 1024
"""Bytes of the head of an HTTP answer; nginx and HAProxy take 8 to 32 KiB of it by default."""
MAX_SHOWN: Final = 80
"""Letters of an HTTP answer that an error quotes."""
LOGIN_CODES: Final = frozenset({92, 93, 255, 401, 407})
"""Answers about this side, not about whom it wants: of SOCKS4 on identd, SOCKS5's NO ACCEPTABLE METHODS, of HTTP."""

SOCKS4_WORDS: Final = {
    91: "could not reach {target}, or does not allow it; check that it is up, as seen from the proxy",
    92: "wants to ask the identd of this machine, and reaches none; run one, or use a proxy that does not ask",
    93: "refused the user id, as identd tells another one; correct it in socks4://user@host:port",
}
SOCKS5_WORDS: Final = {  # RFC 1928, section 6
    1: "could not reach {target}: general failure; look into the proxy's log",
    2: "does not allow connections to {target}; ask whoever runs it",
    3: "could not reach {target}: network unreachable; check the proxy's network",
    4: "could not reach {target}: host unreachable; check its name, and that it is up, as seen from the proxy",
    5: "could not reach {target}: connection refused; check that it listens, as seen from the proxy",
    6: "could not reach {target}: TTL expired; check the proxy's network",
    7: "does not know CONNECT; use another proxy",
    8: "does not take this kind of address: {target}; give a name where it is a number, or the other way round",
}
SOCKS5_SIZES: Final = {1: 6, 4: 18}
"""How much follows an address type of fixed length: an IPv4 or IPv6 address, and a port."""
UNREACHED: Final = "could not reach {target}: {answer}; check that it is up, as seen from the proxy"
NOT_A_PROXY: Final = "does not know CONNECT: {answer}; check the port, it may be a web server"
HTTP_WORDS: Final = {  # RFC 9110, section 15
    400: NOT_A_PROXY,
    403: "does not allow connections to {target}: {answer}; ask whoever runs it",
    404: NOT_A_PROXY,
    405: NOT_A_PROXY,
    500: UNREACHED,
    501: NOT_A_PROXY,
    502: UNREACHED,
    503: UNREACHED,
    504: UNREACHED,
}
WANTS_LOGIN: Final = "wants a user and a password; give them in its URL, {scheme}://user:password@host:port"
UNKNOWN_LOGIN: Final = "takes no login that is known here: neither none nor a user and a password; use another proxy"
REFUSED_LOGIN: Final = "refused the user {user!r} or the password; correct them"


async def ask(stream: Stream, proxy: Proxy, target: Address) -> None:
    """Have `proxy`, to which `stream` leads, connect to `target`: from then on `stream` leads there.

    :raises ProxyError: it does not; the connection is of no further use"""
    from python_socks._protocols.errors import ReplyError

    talk, name = {"socks4": (_socks4, "SOCKS4"), "socks5": (_socks5, "SOCKS5"), "http": (_http, "HTTP")}[proxy.kind]
    hint = f"check that {name} is spoken there, {'with' if proxy.tls else 'without'} TLS"
    try:
        await talk(stream, proxy, target)
    except EndOfStream as error:
        raise ProxyError(f"closed the connection before it had answered; {hint}", proxy.address) from error
    except ClosedError as error:
        raise ProxyError(f"did not answer: {describe(error)}; {hint}", proxy.address) from error
    except (ReplyError, MessageTooLarge, ValueError) as error:
        raise ProxyError(f"answered what is not {name}; {hint}", proxy.address) from error


def is_about_target(error: ProxyError) -> bool:
    """Whether the proxy had something against the target, so that another address of it may do."""
    return error.code is not None and error.code not in LOGIN_CODES


async def secure(stream: Stream, tls: TLS, host: str) -> None:
    """Speak TLS with whom `stream` leads to, called `host`.

    :raises TLSError: the handshake failed
    :raises ConfigurationError: OpenSSL does not take the name"""
    name = tls.name_for(host)
    try:
        await stream.start_tls(tls, server_name=name, timeout=math.inf)
    except ConfigurationError:
        raise
    except ValueError as refused:  # by OpenSSL, before anything was sent
        raise ConfigurationError(f"server_name={name!r} cannot be sent to a TLS server: {refused}") from refused


async def _socks4(stream: Stream, proxy: Proxy, target: Address) -> None:
    from python_socks._protocols import socks4

    talk = socks4.Connection()
    await stream.send(talk.send(socks4.ConnectRequest(target.host, _port(target), proxy.username)))
    answer = await stream.recv_exactly(1)
    if answer == b"\0":
        answer += await stream.recv_exactly(socks4.ConnectReply.SIZE - 1)
        if answer[1] in SOCKS4_WORDS:
            _refuse(SOCKS4_WORDS[answer[1]], proxy, target, answer[1])
    talk.receive(answer)


async def _socks5(stream: Stream, proxy: Proxy, target: Address) -> None:
    from python_socks._protocols import socks5

    talk = socks5.Connection()
    await stream.send(talk.send(socks5.AuthMethodsRequest(proxy.username, proxy.password)))
    answer = await _socks5_answer(stream, 5, 2)
    if answer[1] == socks5.AuthMethod.NO_ACCEPTABLE:
        _refuse(UNKNOWN_LOGIN if proxy.username else WANTS_LOGIN, proxy, target, answer[1])
    talk.receive(answer)
    if answer[1] == socks5.AuthMethod.USERNAME_PASSWORD:
        assert proxy.username is not None and proxy.password is not None  # or it would not have been offered
        await stream.send(talk.send(socks5.AuthRequest(proxy.username, proxy.password)))
        answer = await _socks5_answer(stream, 1, 2)
        if answer[1] != 0:
            _refuse(REFUSED_LOGIN, proxy, target, None)
        talk.receive(answer)
    await stream.send(talk.send(socks5.ConnectRequest(target.host, _port(target))))
    answer = await _socks5_answer(stream, 5, 2)
    if answer[1] != 0:
        _refuse(SOCKS5_WORDS.get(answer[1], "answered with the unknown code {answer}"), proxy, target, answer[1])
    answer += await stream.recv_exactly(2)
    if answer[3] == socks5.AddressType.DOMAIN:
        answer += await stream.recv_exactly(1)
        answer += await stream.recv_exactly(answer[4] + 2)
    else:
        answer += await stream.recv_exactly(SOCKS5_SIZES.get(answer[3], 0))
    talk.receive(answer)


async def _socks5_answer(stream: Stream, version: int, size: int) -> bytes:
    """Return the start of an answer; one that is of another version is told at once, not waited for."""
    first = await stream.recv_exactly(1)
    if first[0] != version:
        raise ValueError(f"the version is {first[0]}, not {version}")
    return first + await stream.recv_exactly(size - 1)


async def _http(stream: Stream, proxy: Proxy, target: Address) -> None:
    from python_socks._protocols import http
    from python_socks._protocols.errors import ReplyError

    talk = http.Connection()
    # python-socks writes both in Latin-1; RFC 7617, section 2.1 prefers UTF-8
    user, password = (each and each.encode().decode("latin-1") for each in (proxy.username, proxy.password))
    await stream.send(talk.send(http.ConnectRequest(target.host, _port(target), user, password)))
    line, fields = await _head(stream)
    try:
        talk.receive(line)
    except ReplyError as error:
        code = error.error_code
        if code is None:
            raise
        if 200 <= code < 300:  # any of them is a yes (RFC 9110, section 9.3.6)
            return
        words = HTTP_WORDS.get(code, "answered {answer}; check that it is a proxy, and what it allows")
        if code in (401, 407):  # tinyproxy says 401 of a wrong password
            words = _login_words(proxy, fields)
        said = " ".join(re.sub(r"[^ -~]", " ", str(error)).split())[:MAX_SHOWN]
        _refuse(words, proxy, target, code, said)


async def _head(stream: Stream) -> tuple[bytes, list[bytes]]:
    """Return the status line and the fields of an HTTP answer."""
    start = b"HTTP/1."
    for place in range(len(start)):
        if await stream.recv_exactly(1) != start[place : place + 1]:
            raise ValueError("this is not HTTP/1")
    left = MAX_HEAD
    lines = []
    while True:
        line = (await stream.recv_until(b"\n", left)).removesuffix(b"\r")
        if not line:
            break
        lines.append(line)
        left -= len(line)
    return start + (lines[0] if lines else b""), lines[1:]


def _login_words(proxy: Proxy, fields: list[bytes]) -> str:
    """What a 407 or 401 says: RFC 9110, section 11.7.1, Proxy-Authenticate."""
    offers = [
        value.split()[:1]
        for name, _, value in (each.partition(b":") for each in fields)
        if name.strip().lower() == b"proxy-authenticate"
    ]
    names = sorted({re.sub(r"[^A-Za-z0-9._-]", "", each[0].decode("latin-1"))[:20] for each in offers if each})
    if names and "basic" not in {each.lower() for each in names}:
        return f"wants a login by {' or '.join(names)}, and here is only Basic; ask for that, or use another proxy"
    return REFUSED_LOGIN if proxy.username else WANTS_LOGIN


def _port(target: Address) -> int:
    assert target.port is not None  # of tcp and tls
    return target.port


def _refuse(words: str, proxy: Proxy, target: Address, code: int | None, said: str = "") -> NoReturn:
    scheme = "http" if proxy.kind == "http" else "socks5"
    reason = words.format(target=target, scheme=scheme, user=proxy.username, answer=said or code)
    raise ProxyError(reason, proxy.address, code=code)
