"""What the command says of mistakes: in the words of its options, and never a password."""

import ssl

import pytest
from server.support import Certificates, certificates

from portico.tools.report import failure
from portico.transports.tls_errors import explain

from .command import port_of, portico, started_portico

__all__ = ["certificates"]


@pytest.mark.parametrize("words", [("connect", "ws://"), ("fetch", "http://")])
def test_a_login_in_the_url_names_the_options_and_is_not_shown(words: tuple[str, str]) -> None:
    done = portico(words[0], f"{words[1]}joe:secret@127.0.0.1:1/")
    assert done.returncode == 2
    assert b"give them as --user or --bearer: " in done.stderr and b"joe:" in done.stderr
    assert b"secret" not in done.stderr + done.stdout and done.stderr.count(b"\n") == 1


def test_a_client_that_distrusts_is_told_of_in_options(certificates: Certificates) -> None:
    pair = certificates.issue("localhost", "127.0.0.1")
    with started_portico("listen", "wss://127.0.0.1:0/", "--cert", pair, "--keep-open") as server:
        portico("connect", f"wss://127.0.0.1:{port_of(server.listening()).rstrip('/')}/")
        server.stderr.wait_for(r"give the client the authority that signed it \(--ca\), and send .* in --cert\n")


@pytest.mark.parametrize("server_side", [False, True])
@pytest.mark.parametrize(
    "reason",
    [
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "NO_CERTIFICATE_SET",
        "UNEXPECTED_EOF_WHILE_READING",
        "NO_SHARED_CIPHER",
        "NO_APPLICATION_PROTOCOL",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_UNRECOGNIZED_NAME",
    ],
)
def test_no_word_of_tls_is_that_of_a_setting(reason: str, server_side: bool) -> None:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    explained = explain(error, server_side=server_side)
    said, code = failure(explained)
    assert "=" not in said and code == 1
    assert explained.reason in said
