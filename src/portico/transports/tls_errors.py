"""Handshake errors in plain words: what the ssl module raises, as one sentence and a hint."""

import re
from typing import TYPE_CHECKING, Final

from portico.errors import PorticoError, TLSError, describe

if TYPE_CHECKING:
    import ssl

__all__ = ["explain", "is_tls", "without_tls"]

# Sentence and hint, for each cause. `_fill` puts in the words in braces.

_TRUST_HINT: Final = "if it is the right one, give the certificate of the authority that signed it as {trust}="

_VERIFY: Final[dict[int, tuple[str, str]]] = {  # codes of X509_STORE_CTX_get_error(3)
    2: ("the certificate of {peer} is signed by an unknown authority", _TRUST_HINT),
    9: ("the certificate of {peer} is not valid yet", "check the clocks of both machines"),
    10: ("the certificate of {peer} has expired", "renew it, or check the clock of this machine"),
    18: ("the certificate of {peer} is self-signed and not known here", "if it is the right one, give it as {trust}="),
    19: ("the certificate of {peer} is signed by a self-signed authority not known here", _TRUST_HINT),
    20: ("the certificate of {peer} is signed by an unknown authority", _TRUST_HINT),
    21: ("the certificate of {peer} cannot be verified: its chain is incomplete", _TRUST_HINT),
    23: ("the certificate of {peer} has been revoked", "get a new one"),
    26: ("the certificate of {peer} is not made for this role", "get one with the right extended key usage"),
    62: ("the certificate of {peer} is not for {name}", "connect by a name that it lists, or set server_name= to one"),
    64: ("the certificate of {peer} is not for {name}", "connect by a name that it lists, or set server_name= to one"),
}

_PLAIN: Final = "check the port, connect without TLS, or use STARTTLS if the protocol has it"

_NOT_TLS: Final = ("{peer} does not speak TLS: what it sent is plain text or another protocol", "{plain}")
_NO_VERSION: Final = ("{peer} and this side have no TLS version in common", "this side wants {minimum} or newer")
_NO_CIPHER: Final = ("{peer} and this side have no cipher in common", "compare ciphers= and the kind of key")
_NO_ALPN: Final = ("{peer} and this side have no application protocol (ALPN) in common", "compare alpn= of both sides")

_REASONS: Final[dict[str, tuple[str, str]]] = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "HTTP_REQUEST": _NOT_TLS,
    "HTTPS_PROXY_REQUEST": _NOT_TLS,
    "UNKNOWN_PROTOCOL": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_TOO_SMALL": _NOT_TLS,
    "RECORD_LENGTH_MISMATCH": _NOT_TLS,
    "LENGTH_TOO_SHORT": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "UNSUPPORTED_PROTOCOL": _NO_VERSION,
    "WRONG_SSL_VERSION": _NO_VERSION,
    "VERSION_TOO_LOW": _NO_VERSION,
    "UNSUPPORTED_SSL_VERSION": _NO_VERSION,
    "NO_PROTOCOLS_AVAILABLE": _NO_VERSION,
    "NO_SHARED_CIPHER": _NO_CIPHER,
    "NO_CIPHERS_AVAILABLE": _NO_CIPHER,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _NO_CIPHER,
    "NO_SUITABLE_KEY_SHARE": _NO_CIPHER,
    "NO_APPLICATION_PROTOCOL": _NO_ALPN,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "{peer} sent no certificate, and this server requires one",
        "give the client a certificate= and key= that client_authority= signed",
    ),
    "NO_CERTIFICATES_RETURNED": ("{peer} sent no certificate", "give it a certificate and key"),
    "NO_CERTIFICATE_SET": ("this side has no certificate", "set certificate= and key="),
    "UNEXPECTED_EOF_WHILE_READING": ("{peer} hung up in the middle of the handshake", "{eof}"),
    "NO_RENEGOTIATION": ("{peer} asked for renegotiation, which is switched off", ""),
}

_ALERTS: Final[dict[str, tuple[str, str]]] = {  # RFC 8446, section 6.2
    "UNKNOWN_CA": ("{peer} does not know the authority that signed {mine}", "{refused}"),
    "BAD_CERTIFICATE": ("{peer} refused {mine} as bad", "{refused}"),
    "UNSUPPORTED_CERTIFICATE": ("{peer} refused {mine}: it is of a kind that cannot be used here", "{refused}"),
    "CERTIFICATE_UNKNOWN": ("{peer} refused {mine}", "{refused}"),
    "CERTIFICATE_EXPIRED": ("{peer} refused {mine}: it has expired or is not valid yet", "renew it"),
    "CERTIFICATE_REVOKED": ("{peer} refused {mine}: it has been revoked", "get a new one"),
    "CERTIFICATE_REQUIRED": ("{peer} requires a certificate from this side", "set certificate= and key="),
    "HANDSHAKE_FAILURE": (
        "{peer} found no settings that suit both sides",
        "compare ciphers and versions, and whether it wants a certificate from this side (certificate=, key=)",
    ),
    "INSUFFICIENT_SECURITY": ("{peer} wants stronger ciphers than this side offers", "compare ciphers="),
    "PROTOCOL_VERSION": _NO_VERSION,
    "NO_APPLICATION_PROTOCOL": _NO_ALPN,
    "UNRECOGNIZED_NAME": ("{peer} does not serve the name {name}", "set server_name= to one that it serves"),
    "ACCESS_DENIED": ("{peer} denies access to the holder of {mine}", ""),
}


def explain(
    error: BaseException,
    *,
    address: object = None,
    server_name: str | None = None,
    server_side: bool = False,
    minimum_version: str = "1.2",
) -> TLSError:
    """Turn what a handshake, or the first read after it, raised into one sentence with a hint; `error` is its cause.

    :param address: the peer, for the message.
    :param server_name: the name that the client expected.
    :param server_side: whether this side is the server.
    :param minimum_version: the oldest version that this side accepts, for the message.
    """
    if isinstance(error, TLSError):
        return error
    reason, hint = _diagnose(error)
    words = {
        "peer": "the client" if server_side else "the server",
        "mine": "the server's certificate" if server_side else "this client's certificate",
        "name": repr(server_name) if server_name else "the name asked for",
        "trust": "client_authority" if server_side else "ca",
        "minimum": minimum_version,
        "plain": ("the client should connect with TLS" if server_side else _PLAIN),
        "eof": (
            "it may not trust this certificate, or it only probed the port"
            if server_side
            else "it may speak no TLS on this port, or want another server_name="
        ),
        "refused": (
            "give the client the authority that signed it (ca=), and send the whole chain in certificate="
            if server_side
            else "use a certificate= that the server's client authority signed"
        ),
    }
    result = TLSError(_fill(reason, words), address=address, hint=_fill(hint, words))
    result.__cause__ = error
    return result


def is_tls(first: bytes) -> bool:
    """Say whether a peer whose answer begins with `first` speaks TLS: that is an alert, or the start of a handshake
    (RFC 8446, section 5.1)."""
    return first[:1] in (b"\x15", b"\x16") and first[1:2] in (b"", b"\x03")


def without_tls(error: TLSError, scheme: str) -> None:
    """Let `error`, where the peer speaks no TLS, name the `scheme` that does without."""
    if error.hint == _PLAIN:
        error.hint = f"check the port, or connect without TLS: {scheme}://"
        error.args = (str(error).replace(_PLAIN, error.hint),)


def _fill(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: words[match[1]], text)


def _literal(text: str) -> str:
    return " ".join(text.replace("{", "(").replace("}", ")").split())


def _diagnose(error: BaseException) -> tuple[str, str]:
    """Return the sentence and the hint, not filled in yet."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        code = getattr(error, "verify_code", 0)
        told = _literal(getattr(error, "verify_message", "") or str(error))
        return _VERIFY.get(code) or (f"the certificate of {{peer}} is not accepted: {told}", "")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | EOFError):
        return _REASONS["UNEXPECTED_EOF_WHILE_READING"]
    if isinstance(error, ssl.SSLError):
        return _diagnose_reason(error)
    if isinstance(error, TimeoutError) or "handshake is taking longer" in str(error):
        return "{peer} did not finish the handshake in time", "check that it speaks TLS on this port"
    if isinstance(error, ConnectionError) and not isinstance(error, PorticoError):
        return "{peer} hung up in the middle of the handshake", "{eof}"
    return _literal(describe(error)), ""


def _diagnose_reason(error: "ssl.SSLError") -> tuple[str, str]:
    text = re.sub(r"^\[[^\]]*\]\s*|\s*\(_ssl\.c:\d+\)$", "", str(error.args[-1] if error.args else ""))
    reason = getattr(error, "reason", None) or text.upper().replace(" ", "_")
    if reason in _REASONS:
        return _REASONS[reason]
    alert = re.fullmatch(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(\w+)", reason)
    if alert:
        said = alert[1].lower().replace("_", " ")
        return _ALERTS.get(alert[1]) or (f"{{peer}} broke off the handshake with the alert {said!r}", "")
    return f"the handshake with {{peer}} failed: {_literal(text) or reason or 'unknown error'}", ""
