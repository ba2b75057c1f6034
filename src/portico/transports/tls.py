"""TLS: one settings object for both roles, contexts that follow their files, and what a handshake agreed on.

`ssl` is imported inside functions: a program that uses no TLS does not pay for it.
"""

import errno
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from weakref import WeakKeyDictionary

from portico._core.secure import explain_errors_with
from portico.errors import ConfigurationError, PorticoError, UnsupportedError, describe
from portico.transports.tls_errors import explain as explain

if TYPE_CHECKING:
    import ssl

explain_errors_with(explain)

__all__ = ["TLS", "TLSInfo", "explain", "throwaway_certificate"]

log = logging.getLogger("portico.transports.tls")

FilePath = str | os.PathLike[str]
Password = str | bytes | Callable[[], str | bytes]
Role = Literal["server", "client"]

CHECK_INTERVAL: Final = 1.0
"""Seconds between two looks at the files of a TLS object: one stat(2) per file and second, however many connections."""


@dataclass(frozen=True)
class TLS:
    """How to speak TLS, as a server, as a client or as both.

    Files are read when a context is first asked for, and again when they change; a change that does not load leaves
    the old certificate in use and logs one warning. A directory counts as changed when a file in it is added, removed
    or replaced by rename.

    :param certificate: PEM file with the certificate and its chain, leaf first. A server needs it.
    :param key: PEM file with the private key; without it the key is expected in `certificate`.
    :param key_password: password of an encrypted key, or a function that returns it.
    :param ca: whom a client trusts: a PEM file, a directory of them, or PEM text. Default: the system's authorities.
    :param client_authority: who signs the clients of a server: a PEM file, a directory, or PEM text. Setting it makes
        the server ask for a certificate.
    :param client_certificate: with `client_authority`, whether a client without a certificate is refused.
    :param alpn: application protocols (RFC 7301), most wanted first, such as `("h2", "http/1.1")`.
    :param server_name: the name that a client sends (SNI) and expects in the certificate. Default: the address's host.
    :param verify: `False` accepts any server. It makes TLS worthless against an attacker on the way.
    :param minimum_version: the oldest TLS version accepted (RFC 8996 forbids those before 1.2).
    :param ciphers: OpenSSL cipher list for TLS 1.2; those of TLS 1.3 are fixed.
    :param key_log: file that the session secrets are appended to, for Wireshark. Default: what `SSLKEYLOGFILE` names.
    :raises ConfigurationError: a setting that cannot work; from the context methods also a file that does not load.
    """

    certificate: FilePath | None = None
    key: FilePath | None = None
    key_password: Password | None = field(default=None, repr=False)
    ca: FilePath | None = None
    client_authority: FilePath | None = None
    client_certificate: Literal["required", "optional"] = "required"
    alpn: Sequence[str] = ()
    server_name: str | None = None
    verify: bool = True
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: str | None = None
    key_log: FilePath | None = None
    _contexts: "_Contexts" = field(init=False, repr=False, compare=False, default_factory=lambda: _Contexts())

    def __post_init__(self) -> None:
        if isinstance(self.alpn, str):
            raise ConfigurationError(f"alpn={self.alpn!r} is one string; give a sequence, such as ({self.alpn!r},)")
        object.__setattr__(self, "alpn", tuple(self.alpn))
        for name in self.alpn:
            if not isinstance(name, str) or not name.isascii() or not 1 <= len(name) <= 255:
                raise ConfigurationError(f"alpn name {name!r} is not 1 to 255 ASCII characters (RFC 7301)")
        if self.key is not None and self.certificate is None:
            raise ConfigurationError("key= is set without certificate=; a key is of no use without its certificate")
        if self.minimum_version not in ("1.2", "1.3"):
            raise ConfigurationError(f"minimum_version={self.minimum_version!r} is neither '1.2' nor '1.3'")
        if self.client_certificate not in ("required", "optional"):
            raise ConfigurationError(
                f"client_certificate={self.client_certificate!r} is neither 'required' nor 'optional'"
            )
        if self.client_certificate == "optional" and self.client_authority is None:
            raise ConfigurationError(
                "client_certificate='optional' needs client_authority=, which says whom to believe"
            )
        if self.server_name == "":
            raise ConfigurationError("server_name='' is no name; leave it out to use the address's host")

    def server_context(self) -> "ssl.SSLContext":
        """Return the context for accepted connections, rebuilt if the files changed; ask anew for each connection.

        :raises ConfigurationError: the first time, if a file is missing, unreadable or does not fit.
        """
        return self._contexts.current(self, "server")

    def client_context(self) -> "ssl.SSLContext":
        """Return the context for outgoing connections, rebuilt if the files changed; ask anew for each connection.

        :raises ConfigurationError: the first time, if a file is missing, unreadable or does not fit.
        """
        return self._contexts.current(self, "client")

    def name_for(self, host: str) -> str | None:
        """Return the name to send and to expect (`server_hostname` of ssl) when the address says `host`.

        :raises ConfigurationError: if the server is to be verified and there is no name to compare with.
        """
        name = self.server_name or host.partition("%")[0].rstrip(".")
        if not name and self.verify:
            raise ConfigurationError("this address has no host name to verify; set server_name= to the expected one")
        return name or None

    @property
    def reloads(self) -> int:
        """How many times changed files were taken up."""
        return self._contexts.reloads

    @property
    def failed_reloads(self) -> int:
        """How many times changed files did not load, so that the old ones stayed in use."""
        return self._contexts.failed_reloads


@dataclass(slots=True)
class _Entry:
    """A context, the state of the files that it was made of, and when to look at them again."""

    context: "ssl.SSLContext"
    loaded: tuple[object, ...]
    refused: tuple[object, ...] | None
    check_at: float


class _Contexts:
    """The live contexts of one TLS object, one for each role."""

    def __init__(self) -> None:
        self.reloads = 0
        self.failed_reloads = 0
        self.now: Callable[[], float] = time.monotonic
        self._entries: dict[Role, _Entry] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["_Contexts"], tuple[()]]:
        return _Contexts, ()  # a copy in another process loads for itself

    def current(self, settings: TLS, role: Role) -> "ssl.SSLContext":
        entry = self._entries.get(role)
        if entry is not None and self.now() < entry.check_at:
            return entry.context
        with self._lock:
            entry = self._entries.get(role)
            if entry is None:
                stamps = _stamps(settings)  # before loading: a change during it is seen at the next look
                entry = _Entry(_build(settings, role), stamps, None, self.now() + CHECK_INTERVAL)
                self._entries[role] = entry
            elif self.now() >= entry.check_at:
                self._refresh(entry, settings, role)
            return entry.context

    def _refresh(self, entry: _Entry, settings: TLS, role: Role) -> None:
        entry.check_at = self.now() + CHECK_INTERVAL
        stamps = _stamps(settings)
        if stamps == entry.loaded:
            return
        try:
            entry.context = _build(settings, role)
        except PorticoError as error:
            # Tried again at every look (the cause may pass without the files changing), reported once per change.
            if stamps != entry.refused:
                self.failed_reloads += 1
                log.warning("TLS files changed but do not load, the old ones stay in use: %s", error)
            entry.refused = stamps
        else:
            self.reloads += 1
            entry.loaded, entry.refused = stamps, None
            log.info("TLS files changed and were loaded anew for the %s role", role)


def _stamps(settings: TLS) -> tuple[object, ...]:
    stamps: list[object] = []
    for path in (settings.certificate, settings.key, settings.ca, settings.client_authority):
        if path is None or _is_pem(path):
            continue
        try:
            status = os.stat(path)
        except OSError as error:
            stamps.append(error.errno)
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)


def _build(settings: TLS, role: Role) -> "ssl.SSLContext":
    import ssl

    server_side = role == "server"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Trust in an intermediate or a leaf is enough, as in Python 3.13; X509_STRICT stays off, for private authorities.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if server_side:
        if settings.certificate is None:
            raise ConfigurationError("a TLS server needs certificate= (and key=, if that is another file)")
        if settings.client_authority is not None:
            _trust(context, settings.client_authority, "client_authority")
            required = settings.client_certificate == "required"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        context.sni_callback = _remember_name
    elif not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca is not None:
        _trust(context, settings.ca, "ca")
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if settings.certificate is not None:
        _load_pair(context, settings.certificate, settings.key, settings.key_password)
    if settings.ciphers is not None:
        try:
            context.set_ciphers(settings.ciphers)
        except ssl.SSLError:
            raise ConfigurationError(
                f"ciphers={settings.ciphers!r} selects nothing; `openssl ciphers -v` lists the names"
            ) from None
    if settings.alpn:
        context.set_alpn_protocols(list(settings.alpn))
    _log_keys(context, settings)
    return context


def _log_keys(context: "ssl.SSLContext", settings: TLS) -> None:
    path, setting = settings.key_log, "key_log"
    if path is None and not sys.flags.ignore_environment:
        path, setting = os.environ.get("SSLKEYLOGFILE") or None, "SSLKEYLOGFILE"
    if path is None:
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))  # OpenSSL would leave it to the umask
        context.keylog_filename = os.fspath(path)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {setting} {os.fspath(path)!r}: {describe(error)}") from error


_names_asked_for: WeakKeyDictionary[object, str] = WeakKeyDictionary()


def _remember_name(ssl_object: object, name: str | None, context: object) -> None:
    # ssl tells the name that a client sent to this callback only; TLSInfo.of shows it later.
    if name is not None:
        _names_asked_for[ssl_object] = name


# Loading files, with errors that name the file and the remedy.

_REMEDIES: Final = {
    errno.ENOENT: "check the path",
    errno.EACCES: "let this user read it (chmod, chown), or run as one who may",
    errno.EPERM: "let this user read it (chmod, chown), or run as one who may",
    errno.EISDIR: "name a file in it",
}


def _is_pem(value: FilePath) -> bool:
    return isinstance(value, str) and "-----BEGIN " in value


def _read(path: FilePath, setting: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        remedy = _REMEDIES.get(getattr(error, "errno", 0) or 0, "")
        raise ConfigurationError(
            f"cannot read {setting} {os.fspath(path)!r}: {describe(error)}" + (f"; {remedy}" if remedy else "")
        ) from error


def _load_pair(
    context: "ssl.SSLContext", certificate: FilePath, key: FilePath | None, password: Password | None
) -> None:
    import ssl

    shown = repr(os.fspath(certificate))
    text = _read(certificate, "certificate")
    if b"-----BEGIN" not in text:
        raise ConfigurationError(
            f"certificate {shown} is not a PEM file; `openssl x509 -inform der -in FILE` turns DER into PEM"
        )
    if b"CERTIFICATE-----" not in text:
        raise ConfigurationError(f"certificate {shown} holds no certificate; did you mean it as key=?")
    key_path = certificate if key is None else key
    key_shown = repr(os.fspath(key_path))
    key_text = text if key is None else _read(key, "key")
    if b"PRIVATE KEY-----" not in key_text:
        remedy = (
            "set key= to the file that does" if key is None else "it should be the PEM file of the certificate's key"
        )
        raise ConfigurationError(
            f"{'certificate' if key is None else 'key'} {key_shown} holds no private key; {remedy}"
        )

    def no_password() -> str:  # without a callback OpenSSL would ask on the terminal
        raise ConfigurationError(f"key {key_shown} needs a password; set key_password=")

    try:
        context.load_cert_chain(certificate, key_path, no_password if password is None else password)
    except ssl.SSLError as error:
        reason = error.reason or ""
        encrypted = password is not None and b"ENCRYPTED" in key_text
        raise ConfigurationError(_pair_problem(reason, shown, key_shown, encrypted=encrypted)) from error
    except PorticoError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"cannot load certificate {shown} with key {key_shown}: {describe(error)}") from error


def _pair_problem(reason: str, certificate: str, key: str, *, encrypted: bool) -> str:
    if "MISMATCH" in reason:
        return f"key {key} does not belong to certificate {certificate}; give the key that the certificate was made for"
    if reason.endswith(("KEY_TOO_SMALL", "MD_TOO_WEAK")):
        what = "key is too short" if reason.endswith("SMALL") else "signature is too weak"
        return f"certificate {certificate} is not secure: its {what} ({reason}); make a new one"
    if encrypted:
        return f"key {key} does not open; key_password= is wrong, or the file is damaged ({reason or 'bad decrypt'})"
    return f"certificate {certificate} with key {key} does not load; one of them is damaged ({reason or 'bad PEM'})"


def _trust(context: "ssl.SSLContext", authority: FilePath, setting: str) -> None:
    import ssl

    shown = f"{setting} (PEM text)" if _is_pem(authority) else f"{setting} {os.fspath(authority)!r}"
    try:
        if _is_pem(authority):
            context.load_verify_locations(cadata=os.fspath(authority))
        elif os.path.isdir(authority):
            _trust_directory(context, authority, setting)
        else:
            if b"-----BEGIN" not in _read(authority, setting):
                raise ConfigurationError(f"{shown} is not a PEM file")
            context.load_verify_locations(cafile=authority)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{shown} holds no certificate that loads ({error.reason or 'bad PEM'})") from error
    except PorticoError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{shown} does not load: {describe(error)}") from error


def _trust_directory(context: "ssl.SSLContext", directory: FilePath, setting: str) -> None:
    names = sorted(os.listdir(directory))
    if any(re.fullmatch(r"[0-9a-f]{8}\.\d+", name) for name in names):  # made by `openssl rehash`
        context.load_verify_locations(capath=directory)
        return
    files = [name for name in names if name.endswith((".pem", ".crt", ".cer"))]
    if not files:
        raise ConfigurationError(f"{setting} directory {os.fspath(directory)!r} holds no .pem, .crt or .cer file")
    for name in files:
        _trust(context, os.path.join(directory, name), setting)


# What a handshake told.


class _Secured(Protocol):
    """What `ssl.SSLObject` and `ssl.SSLSocket` have in common, as far as TLSInfo asks."""

    @property
    def server_hostname(self) -> str | None: ...
    def version(self) -> str | None: ...
    def cipher(self) -> tuple[str, str, int] | None: ...
    def selected_alpn_protocol(self) -> str | None: ...
    def getpeercert(self, binary_form: bool, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What a TLS connection agreed on.

    `server_name` is the name that the client sent. `peer_certificate` is the dictionary of `ssl.SSLSocket.getpeercert`:
    there only if the certificate was verified; `peer_certificate_der` is there whenever the peer sent one.
    """

    version: str
    cipher: str
    alpn: str | None
    server_name: str | None
    peer_certificate: dict[str, Any] | None
    peer_certificate_der: bytes | None

    @classmethod
    def of(cls, ssl_object: _Secured) -> "TLSInfo":
        """Read them from an `ssl.SSLObject` or `ssl.SSLSocket` whose handshake is done."""
        cipher = ssl_object.cipher()
        return cls(
            version=ssl_object.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=ssl_object.selected_alpn_protocol(),
            server_name=ssl_object.server_hostname or _names_asked_for.get(ssl_object),
            peer_certificate=ssl_object.getpeercert(False) or None,
            peer_certificate_der=ssl_object.getpeercert(True),
        )


# A certificate to try things out with.


def throwaway_certificate(
    names: Iterable[str] = ("localhost", "127.0.0.1", "::1"), *, directory: FilePath
) -> tuple[str, str]:
    """Make a self-signed EC P-256 certificate for `names`, good for 7 days, and return the paths `(certificate, key)`.

    Clients trust it with `TLS(ca=certificate)`. The files are `certificate.pem` and `key.pem` in `directory` (made if
    missing), mode 0600.

    :raises UnsupportedError: if the `cryptography` package is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise UnsupportedError(
            "a throw-away certificate needs the package 'cryptography'; pip install 'portico[cli]'"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key, list(names)).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    os.makedirs(directory, mode=0o700, exist_ok=True)
    paths = os.path.join(directory, "certificate.pem"), os.path.join(directory, "key.pem")
    for path, data in zip(paths, (certificate, secret), strict=True):
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with open(descriptor, "wb") as file:
            os.chmod(path, 0o600)
            file.write(data)
    return paths


def _self_signed(key: Any, names: list[str]) -> Any:
    import ipaddress
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    if not names:
        raise ConfigurationError("a certificate needs at least one name")

    def general_name(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portico throw-away")])
    now = datetime.now(UTC)
    unused = "content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    usage = dict.fromkeys([*unused.split(), "encipher_only", "decipher_only"], False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # the peer's clock may be behind
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
