"""Who may come in: lists of addresses and users, connections at a time and rates per address."""

import ipaddress
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence

from portico.errors import ConfigurationError
from portico.server.limits import Limits
from portico.server.stats import Stats

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_REMEMBERED = 65_536
"""Addresses whose accept rate is remembered; beyond it those that came least are forgotten."""

MAPPED = b"\0" * 10 + b"\xff\xff"
LOOPBACK6 = b"\0" * 15 + b"\1"


def packed_host(peer: bytes) -> bytes:
    """Return the address in a struct sockaddr, 4 or 16 bytes; none of a Unix socket."""
    family = peer[0] | peer[1] << 8 if sys.byteorder == "little" else peer[0] << 8 | peer[1]
    if family == socket.AF_INET:
        return peer[4:8]
    if family == socket.AF_INET6:
        host = peer[8:24]
        return host[12:] if host.startswith(MAPPED) else host
    return b""


def customer(host: bytes) -> bytes:
    """Return by what an address is counted: an IPv6 one by its /64."""
    return host[:8] if len(host) == 16 else host


class AddressRule:
    """One entry of `allow`, `deny` or `proxied_by`: a network in CIDR form, `loopback`, `private` or `any`, or for Unix
    peers `user:NAME`, `group:NAME`, `uid:N`, `gid:N`.

    :param setting: what it is an entry of, for the error.
    :raises ConfigurationError: it is none of these"""

    def __init__(self, text: str, setting: str = "allow/deny") -> None:
        self.text = text
        self.network: Network | None = None
        self.matches: Callable[[bytes, tuple[int, int, int] | None], bool]
        word, _, value = text.partition(":")
        if text in ("loopback", "private", "any"):
            self.matches = getattr(self, f"_is_{text}")
        elif word in ("user", "group", "uid", "gid") and value:
            self.place = 1 if word in ("user", "uid") else 2
            self.number = _id_of(setting, word, value)
            self.matches = self._is_id
        else:
            try:
                self.network = ipaddress.ip_network(text)
            except ValueError as error:
                raise ConfigurationError(
                    f"{setting}: {text!r} is no network ({error}) and none of loopback, private, any, user:NAME, "
                    "group:NAME, uid:N, gid:N"
                ) from None
            self.matches = self._is_in_network

    def _is_any(self, host: bytes, credentials: tuple[int, int, int] | None) -> bool:
        return True

    def _is_loopback(self, host: bytes, credentials: tuple[int, int, int] | None) -> bool:
        return not host or ipaddress.ip_address(host).is_loopback

    def _is_private(self, host: bytes, credentials: tuple[int, int, int] | None) -> bool:
        return not host or ipaddress.ip_address(host).is_private

    def _is_id(self, host: bytes, credentials: tuple[int, int, int] | None) -> bool:
        return credentials is not None and credentials[self.place] == self.number

    def _is_in_network(self, host: bytes, credentials: tuple[int, int, int] | None) -> bool:
        return bool(host) and ipaddress.ip_address(host) in self.network  # type: ignore[operator] # set for this rule


def _id_of(setting: str, word: str, value: str) -> int:
    if value.isdigit():
        return int(value)
    try:
        if word == "user":
            import pwd

            return pwd.getpwnam(value).pw_uid
        if word == "group":
            import grp

            return grp.getgrnam(value).gr_gid
    except (ImportError, KeyError):
        raise ConfigurationError(f"{setting}: there is no {word} {value!r} here") from None
    raise ConfigurationError(f"{setting}: {word}:{value} needs a number")


def credentials_of(fd: int) -> tuple[int, int, int] | None:
    """Return process, user and group at the other end of a connected Unix socket, where the platform tells."""
    if sys.platform != "linux" or fd < 0:
        return None
    with socket.socket(fileno=fd) as sock:
        try:
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return struct.unpack("3i", data)
        except OSError:
            return None
        finally:
            sock.detach()


class Admission:
    """Decides about each new connection of a listener, and counts those that are in."""

    def __init__(self, limits: Limits, stats: Stats, allow: Sequence[str] | None, deny: Sequence[str] | None) -> None:
        self.stats = stats
        self.allow = None if allow is None else [AddressRule(text) for text in allow]
        self.deny = [AddressRule(text) for text in deny or ()]
        self.most = limits.max_per_address
        self.interval = 1.0 / limits.accept_rate if limits.accept_rate else 0.0
        self.tolerance = self.interval * ((limits.accept_burst or 1) - 0.5)  # half: sums of floats are not exact
        self.trust_loopback = limits.trust_loopback
        self.counts: dict[bytes, int] = {}
        self.expected: dict[bytes, float] = {}

    def admit(self, host: bytes, fd: int) -> bool | None:
        """Say whether a connection from `host` may come in, and count it; `release` takes it back. False: it is over a
        limit; None: `deny` or `allow` keep it out."""
        if (self.deny or self.allow is not None) and not self.permits(host, fd):
            self.stats.rejected_denied += 1
            return None
        if not host or (self.trust_loopback and (host == LOOPBACK6 or (len(host) == 4 and host[0] == 127))):
            return True
        key = customer(host)
        if self.interval and not self._in_rate(key):
            self.stats.rejected_rate += 1
            return False
        if self.most is not None:
            count = self.counts.get(key, 0)
            if count >= self.most:
                self.stats.rejected_address += 1
                return False
            self.counts[key] = count + 1
        return True

    def permits(self, host: bytes, fd: int) -> bool:
        """Say what `deny` and `allow` say; `deny` comes first."""
        credentials = credentials_of(fd) if not host else None
        if any(rule.matches(host, credentials) for rule in self.deny):
            return False
        return self.allow is None or any(rule.matches(host, credentials) for rule in self.allow)

    def release(self, host: bytes) -> None:
        """Forget a connection that was admitted."""
        key = customer(host)
        count = self.counts.get(key, 0)
        if count > 1:
            self.counts[key] = count - 1
        elif count:
            del self.counts[key]

    def _in_rate(self, key: bytes) -> bool:
        """The generic cell rate algorithm: one time per address says when its bucket is full again (ITU-T I.371)."""
        now = time.monotonic()
        expected = self.expected.get(key, 0.0)
        if expected - now > self.tolerance:
            return False
        if key not in self.expected and len(self.expected) >= MAX_REMEMBERED:
            self._forget(now)
        self.expected[key] = max(expected, now) + self.interval
        return True

    def _forget(self, now: float) -> None:
        owing = sorted(((due, key) for key, due in self.expected.items() if due > now), reverse=True)
        self.expected = {key: due for due, key in owing[: MAX_REMEMBERED // 2]}
