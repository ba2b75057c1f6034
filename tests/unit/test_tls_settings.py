import datetime
import logging
import os
import pickle
import ssl
import stat
from pathlib import Path

import pytest
import trustme

from portico.errors import ConfigurationError, TLSError, UnsupportedError
from portico.transports import tls, tls_errors
from portico.transports.tls import TLS, TLSInfo, explain, throwaway_certificate

# The network here is two MemoryBIOs, so that a handshake takes no socket and no time.


class Pair:
    """A TLS server and client back to back."""

    def __init__(self, server: TLS, client: TLS, name: str | None = "localhost") -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.server_context().wrap_bio(to_server, to_client, server_side=True)
        self.client = client.client_context().wrap_bio(to_client, to_server, server_hostname=name)

    def handshake(self) -> "Pair":
        unfinished = {"client": self.client, "server": self.server}
        for _ in range(10):
            for role, side in list(unfinished.items()):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                except ssl.SSLError as error:
                    error.role = role  # type: ignore[attr-defined]
                    raise
                del unfinished[role]
            if not unfinished:
                return self
        raise AssertionError("the handshake does not end")


def refusal(server: TLS, client: TLS, *, name: str | None = "localhost", role: str) -> TLSError:
    """Return what `role` says of a handshake that fails on its side, or that the other side refused."""
    pair = Pair(server, client, name)
    sides = {"client": pair.client, "server": pair.server}
    failed: dict[str, ssl.SSLError] = {}
    for _ in range(10):
        for each, side in sides.items():
            if each in failed:
                continue
            try:
                side.do_handshake()
                side.read(1)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                failed[each] = error
    return explain(failed[role], server_name=name, server_side=role == "server")


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def no_key_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)


def write(directory: Path, stem: str, leaf: trustme.LeafCert) -> tuple[str, str]:
    certificate, key = directory / f"{stem}.pem", directory / f"{stem}.key"
    for index, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(certificate, append=index > 0)
    leaf.private_key_pem.write_to_path(key)
    return str(certificate), str(key)


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> tuple[str, str]:
    return write(tmp_path, "server", authority.issue_cert("localhost", "127.0.0.1"))


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def server(files: tuple[str, str]) -> TLS:
    return TLS(*files)


@pytest.fixture
def client(ca: str) -> TLS:
    return TLS(ca=ca)


# Settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpn": "h2"}, "one string"),
        ({"alpn": [""]}, "1 to 255"),
        ({"alpn": ["x" * 256]}, "1 to 255"),
        ({"alpn": ["é"]}, "1 to 255"),
        ({"key": "k"}, "without certificate="),
        ({"minimum_version": "1.1"}, "'1.1' is neither"),
        ({"client_certificate": "maybe"}, "'maybe' is neither"),
        ({"client_certificate": "optional"}, "needs client_authority="),
        ({"server_name": ""}, "no name"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        TLS(**settings)  # type: ignore[arg-type]


def test_settings_are_hashable_comparable_and_hide_the_password() -> None:
    assert TLS(alpn=["h2"]) == TLS(alpn=("h2",)) and hash(TLS(alpn=["h2"])) == hash(TLS(alpn=("h2",)))
    assert "secret" not in repr(TLS("c", "k", key_password="secret"))


def test_settings_travel_to_another_process(files: tuple[str, str]) -> None:
    settings = TLS(*files)
    settings.server_context()
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert copy.server_context() is not settings.server_context()


def test_context_has_the_safe_options(server: TLS, client: TLS) -> None:
    for context in (server.server_context(), client.client_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    assert client.client_context().check_hostname
    assert server.server_context() is server.server_context()


def test_client_without_ca_trusts_the_system() -> None:
    context = TLS().client_context()
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname


@pytest.mark.parametrize(
    ("host", "name"),
    [("example.org", "example.org"), ("example.org.", "example.org"), ("fe80::1%eth0", "fe80::1")],
)
def test_name_for_takes_the_host_of_the_address(host: str, name: str) -> None:
    assert TLS().name_for(host) == name
    assert TLS(server_name="other").name_for(host) == "other"


def test_name_for_needs_a_name_to_verify() -> None:
    with pytest.raises(ConfigurationError, match="set server_name="):
        TLS().name_for("")
    assert TLS(verify=False).name_for("") is None


# Handshakes that work


def test_handshake_gives_version_cipher_and_peer(server: TLS, client: TLS) -> None:
    pair = Pair(server, client).handshake()
    seen, told = TLSInfo.of(pair.client), TLSInfo.of(pair.server)
    assert seen.version == told.version == "TLSv1.3"
    assert seen.cipher == told.cipher and seen.cipher.startswith("TLS_")
    assert seen.server_name == told.server_name == "localhost"
    assert seen.alpn is None
    assert seen.peer_certificate and ("DNS", "localhost") in seen.peer_certificate["subjectAltName"]
    assert seen.peer_certificate_der and told.peer_certificate is None and told.peer_certificate_der is None


def test_unverified_peer_shows_its_bytes_only(server: TLS) -> None:
    info = TLSInfo.of(Pair(server, TLS(verify=False), "elsewhere").handshake().client)
    assert info.peer_certificate is None and info.peer_certificate_der


@pytest.mark.parametrize("kind", ["text", "plain directory", "hashed directory"])
def test_authority_as_text_or_directory(kind: str, server: TLS, ca: str, tmp_path: Path) -> None:
    directory = tmp_path / "trusted"
    directory.mkdir()
    text = Path(ca).read_text()
    if kind == "hashed directory":
        import subprocess

        (directory / "ca.pem").write_text(text)
        subprocess.run(["openssl", "rehash", str(directory)], check=True)
    elif kind == "plain directory":
        (directory / "mine.crt").write_text(text)
    Pair(server, TLS(ca=text if kind == "text" else directory)).handshake()


def test_alpn_takes_the_first_of_the_server_s_names(files: tuple[str, str], ca: str) -> None:
    pair = Pair(TLS(*files, alpn=["h2", "http/1.1"]), TLS(ca=ca, alpn=["x", "http/1.1", "h2"])).handshake()
    assert TLSInfo.of(pair.client).alpn == TLSInfo.of(pair.server).alpn == "h2"


def test_minimum_version_and_ciphers(files: tuple[str, str], ca: str) -> None:
    newest = TLS(*files, minimum_version="1.3").server_context()
    assert newest.minimum_version == ssl.TLSVersion.TLSv1_3
    client = TLS(ca=ca, ciphers="ECDHE+CHACHA20")
    client.client_context().maximum_version = ssl.TLSVersion.TLSv1_2
    assert "CHACHA20" in TLSInfo.of(Pair(TLS(*files), client).handshake().client).cipher
    with pytest.raises(ConfigurationError, match="ciphers='nonsense'"):
        TLS(*files, ciphers="nonsense").server_context()


def test_mutual_tls(authority: trustme.CA, files: tuple[str, str], ca: str, tmp_path: Path) -> None:
    mine = write(tmp_path, "client", authority.issue_cert("client.example"))
    pair = Pair(TLS(*files, client_authority=ca), TLS(*mine, ca=ca)).handshake()
    peer = TLSInfo.of(pair.server).peer_certificate
    assert peer and ("DNS", "client.example") in peer["subjectAltName"]


def test_optional_client_certificate(files: tuple[str, str], client: TLS, ca: str) -> None:
    server = TLS(*files, client_authority=ca, client_certificate="optional")
    assert TLSInfo.of(Pair(server, client).handshake().server).peer_certificate_der is None


def test_encrypted_key(files: tuple[str, str], client: TLS) -> None:
    certificate, key = files
    encrypt(key, b"open sesame")
    Pair(TLS(certificate, key, key_password="open sesame"), client).handshake()
    Pair(TLS(certificate, key, key_password=lambda: b"open sesame"), client).handshake()


def test_key_log_is_private_and_appended_to(server: TLS, ca: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    Pair(server, TLS(ca=ca, key_log=path)).handshake()
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_key_log_of_the_environment(server: TLS, ca: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    Pair(server, TLS(ca=ca)).handshake()
    assert (tmp_path / "keys").stat().st_size > 0


def test_key_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"key_log .*no such file"):
        TLS(key_log=tmp_path / "no" / "keys").client_context()


# Reload


class Time:
    """A clock that moves when told to."""

    def __init__(self, settings: TLS) -> None:
        self.now = 0.0
        settings._contexts.now = lambda: self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def names_shown(server: TLS, client: TLS) -> set[str]:
    peer = TLSInfo.of(Pair(server, client).handshake().client).peer_certificate
    assert peer
    return {value for _, value in peer["subjectAltName"]}


def test_changed_files_are_picked_up_within_a_second(authority: trustme.CA, client: TLS, tmp_path: Path) -> None:
    server = TLS(*write(tmp_path, "s", authority.issue_cert("localhost", "old.example")))
    time = Time(server)
    assert names_shown(server, client) == {"localhost", "old.example"}
    write(tmp_path, "s", authority.issue_cert("localhost", "new.example"))
    time.advance(0.9)
    assert names_shown(server, client) == {"localhost", "old.example"}
    time.advance(0.1)
    assert names_shown(server, client) == {"localhost", "new.example"}
    assert (server.reloads, server.failed_reloads) == (1, 0)
    context = server.server_context()
    time.advance(5)
    assert server.server_context() is context


def test_changed_authority_is_picked_up_by_the_client(server: TLS, tmp_path: Path, ca: str) -> None:
    trusted = tmp_path / "trusted.pem"
    trustme.CA().cert_pem.write_to_path(trusted)
    client = TLS(ca=trusted)
    time = Time(client)
    with pytest.raises(ssl.SSLCertVerificationError):
        Pair(server, client).handshake()
    os.replace(ca, trusted)
    time.advance(1)
    Pair(server, client).handshake()


def test_broken_files_keep_the_old_certificate_and_warn_once(
    authority: trustme.CA, client: TLS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = write(tmp_path, "s", authority.issue_cert("localhost"))
    server = TLS(certificate, key)
    time = Time(server)
    context = server.server_context()
    good = Path(certificate).read_text()
    with caplog.at_level(logging.WARNING, "portico"):
        for _ in range(3):
            Path(certificate).unlink(missing_ok=True)
            time.advance(1)
            assert server.server_context() is context
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert certificate in caplog.text and "no such file" in caplog.text
        Path(certificate).write_text("half a cert")
        time.advance(1)
        assert server.server_context() is context
    assert (server.reloads, server.failed_reloads) == (0, 2)
    Path(certificate).write_text(good)
    time.advance(1)
    assert server.server_context() is not context
    assert server.reloads == 1
    Pair(server, client).handshake()


# Bad files


def encrypt(path: str, password: bytes) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    Path(path).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )
    )


def complaint(settings: TLS, role: str = "server") -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings.server_context() if role == "server" else settings.client_context()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_missing_file_is_named(files: tuple[str, str], tmp_path: Path) -> None:
    assert complaint(TLS()) == "a TLS server needs certificate= (and key=, if that is another file)"
    gone = str(tmp_path / "gone.pem")
    assert complaint(TLS(gone)) == f"cannot read certificate {gone!r}: no such file or directory; check the path"
    assert f"cannot read key {gone!r}" in complaint(TLS(files[0], gone))
    assert f"cannot read ca {gone!r}" in complaint(TLS(ca=gone), "client")
    assert f"cannot read client_authority {gone!r}" in complaint(TLS(*files, client_authority=gone))


def test_unreadable_file_is_named(files: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, whom no mode stops: the refusal is played.
    import builtins

    def refuse(path: object, *args: object, **kwargs: object) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(builtins, "open", refuse)
    text = complaint(TLS(*files))
    assert files[0] in text and "permission denied" in text and "chmod" in text


def test_file_that_is_not_pem(files: tuple[str, str], tmp_path: Path) -> None:
    der = tmp_path / "der"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(Path(files[0]).read_text()))
    assert "is not a PEM file" in complaint(TLS(der, files[1])) and str(der) in complaint(TLS(der))
    assert "is not a PEM file" in complaint(TLS(ca=der), "client")
    assert "holds no private key" in complaint(TLS(files[0], der))
    damaged = tmp_path / "damaged"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "damaged" in complaint(TLS(damaged, files[1]))
    assert "no certificate that loads" in complaint(TLS(ca=damaged), "client")
    assert "(PEM text)" in complaint(TLS(ca=damaged.read_text()), "client")


def test_empty_authority_directory(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "holds no .pem" in complaint(TLS(ca=tmp_path / "none"), "client")


def test_key_where_the_certificate_should_be(files: tuple[str, str]) -> None:
    assert "holds no certificate" in complaint(TLS(files[1]))
    assert "holds no private key; set key=" in complaint(TLS(files[0]))


def test_key_of_another_certificate(authority: trustme.CA, files: tuple[str, str], tmp_path: Path) -> None:
    other = write(tmp_path, "other", authority.issue_cert("other"))
    text = complaint(TLS(files[0], other[1]))
    assert f"key {other[1]!r} does not belong to certificate {files[0]!r}" in text


def test_key_password_missing_or_wrong(files: tuple[str, str]) -> None:
    encrypt(files[1], b"right")
    assert complaint(TLS(*files)) == f"key {files[1]!r} needs a password; set key_password="
    assert "key_password= is wrong" in complaint(TLS(*files, key_password="wrong"))


# Handshakes that fail, explained


def test_unknown_authority(server: TLS, tmp_path: Path) -> None:
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    error = refusal(server, TLS(ca=path), role="client")
    assert "signed by an unknown authority" in error.reason and "ca=" in error.hint
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    told = refusal(server, TLS(ca=path), role="server")
    assert told.reason == "the client does not know the authority that signed the server's certificate"


def test_self_signed(tmp_path: Path, client: TLS) -> None:
    server = TLS(*throwaway_certificate(directory=tmp_path))
    error = refusal(server, client, role="client")
    assert "is self-signed" in error.reason and "give it as ca=" in error.hint


def issue(authority: trustme.CA, directory: Path, **times: datetime.datetime) -> TLS:
    return TLS(*write(directory, "timed", authority.issue_cert("localhost", **times)))


def test_expired_and_not_yet_valid(authority: trustme.CA, client: TLS, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    week = datetime.timedelta(days=7)
    expired = issue(authority, tmp_path, not_before=now - 2 * week, not_after=now - week)
    assert "has expired" in refusal(expired, client, role="client").reason
    assert "has expired" in refusal(expired, client, role="server").reason
    early = issue(authority, tmp_path, not_before=now + week, not_after=now + 2 * week)
    assert "is not valid yet" in refusal(early, client, role="client").reason


@pytest.mark.parametrize("name", ["elsewhere.example", "10.0.0.1"])
def test_wrong_host(server: TLS, client: TLS, name: str) -> None:
    error = refusal(server, client, name=name, role="client")
    assert error.reason == f"the certificate of the server is not for {name!r}"
    assert "server_name=" in error.hint


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificate_required(files: tuple[str, str], client: TLS, ca: str, version: ssl.TLSVersion) -> None:
    server = TLS(*files, client_authority=ca)
    server.server_context().maximum_version = version
    told = refusal(server, client, role="server")
    assert told.reason == "the client sent no certificate, and this server requires one"
    assert "certificate=" in refusal(server, client, role="client").hint


def test_client_of_an_unknown_authority(files: tuple[str, str], ca: str, tmp_path: Path) -> None:
    mine = write(tmp_path, "client", trustme.CA().issue_cert("client.example"))
    server, client = TLS(*files, client_authority=ca), TLS(*mine, ca=ca)
    error = refusal(server, client, role="server")
    assert "the certificate of the client is signed by" in error.reason and "client_authority=" in error.hint
    told = refusal(server, client, role="client")
    assert "does not know the authority that signed this client's certificate" in told.reason


def test_no_common_version_or_cipher(files: tuple[str, str], ca: str) -> None:
    old, new = TLS(ca=ca), TLS(*files, minimum_version="1.3")
    old.client_context().maximum_version = ssl.TLSVersion.TLSv1_2
    for role in ("client", "server"):
        assert "no TLS version in common" in refusal(new, old, role=role).reason
    fussy = TLS(*files, ciphers="ECDHE+CHACHA20")
    other = TLS(ca=ca, ciphers="ECDHE+AESGCM")
    other.client_context().maximum_version = ssl.TLSVersion.TLSv1_2
    assert "no cipher in common" in refusal(fussy, other, role="server").reason
    assert "no settings that suit both sides" in refusal(fussy, other, role="client").reason


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"hello, is anybody there?\r\n",
    b"\0" * 64,
    b"\x16\x03\x01\xff\xff" * 9,
]


@pytest.mark.parametrize("data", [*GARBAGE, b"CONNECT a:1 HTTP/1.1\r\n\r\n"])
def test_garbage_instead_of_tls_to_a_server(server: TLS, data: bytes) -> None:
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    with pytest.raises(ssl.SSLError) as caught:
        server.server_context().wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    error = explain(caught.value, address="tcp://192.0.2.1:5", server_side=True)
    assert str(error) == (
        "TLS failed with tcp://192.0.2.1:5: the client does not speak TLS: what it sent is plain text or another "
        "protocol; the client should connect with TLS"
    )


@pytest.mark.parametrize("data", [*GARBAGE, b"220 mail.example ESMTP\r\n", b"SSH-2.0-x\r\n"])
def test_garbage_instead_of_tls_to_a_client(client: TLS, data: bytes) -> None:
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    with pytest.raises(ssl.SSLError) as caught:
        client.client_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost").do_handshake()
    error = explain(caught.value)
    assert "the server does not speak TLS" in error.reason and "check the port" in error.hint


def test_end_of_stream_in_the_handshake(client: TLS) -> None:
    incoming = ssl.MemoryBIO()
    incoming.write_eof()
    with pytest.raises(ssl.SSLError) as caught:
        client.client_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost").do_handshake()
    assert "hung up in the middle" in explain(caught.value).reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "did not finish the handshake in time"),
        (ConnectionAbortedError("SSL handshake is taking longer than 1.0 seconds"), "in time"),
        (ConnectionResetError(104, "Connection reset by peer"), "hung up in the middle"),
        (EOFError(), "hung up in the middle"),
        (OSError(113, "No route to host"), "no route to host"),
        (ValueError("odd {braces}\nand lines"), "odd (braces) and lines"),
        (ssl.SSLError(1, "[SSL] something new (_ssl.c:1006)"), "something new"),
    ],
)
def test_every_other_error_is_one_sentence(error: Exception, said: str) -> None:
    result = explain(error, address="tls://example.org:443", server_name="example.org")
    assert said in result.reason and "\n" not in str(result) and result.__cause__ is error
    assert explain(result) is result


def test_every_alert_and_reason_fills_its_words() -> None:
    for reason in [
        *tls_errors._REASONS,
        *(f"TLSV1_ALERT_{name}" for name in tls_errors._ALERTS),
        "SSLV3_ALERT_NEW_ONE",
    ]:
        for server_side in (False, True):
            error = ssl.SSLError(1, "told (_ssl.c:1)")
            error.reason = reason
            text = str(explain(error, server_side=server_side, server_name="x"))
            assert "{" not in text and "told" not in text


# The throw-away certificate


def test_throwaway_certificate_works_for_all_its_names(tmp_path: Path) -> None:
    certificate, key = throwaway_certificate(directory=tmp_path / "made")
    for path in (certificate, key):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    server, client = TLS(certificate, key), TLS(ca=certificate)
    client.client_context().verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
    for name in ("localhost", "127.0.0.1", "::1"):
        Pair(server, client, name).handshake()
    peer = TLSInfo.of(Pair(server, client).handshake().client).peer_certificate
    assert peer
    lasts = ssl.cert_time_to_seconds(peer["notAfter"]) - ssl.cert_time_to_seconds(peer["notBefore"])
    assert 7 * 86400 <= lasts <= 7 * 86400 + 3600


def test_throwaway_certificate_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in [name for name in sys.modules if name.startswith("cryptography.hazmat.primitives")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'portico\[cli\]'"):
        throwaway_certificate(directory=tmp_path)
    with pytest.raises(ConfigurationError):
        monkeypatch.undo()
        throwaway_certificate((), directory=tmp_path)


def test_importing_the_module_does_not_import_ssl() -> None:
    for module in (tls, tls_errors):
        assert "ssl" not in vars(module)
