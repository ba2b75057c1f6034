"""A client with TLS where there is none, and one without where there is: the error names the other scheme."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from server.support import Certificates, certificates, echo, scenario

import portico
from portico.errors import ConnectError, EndOfStream, ProtocolError, TLSError
from portico.transports.tls_errors import explain, is_tls, without_tls

__all__ = ["certificates"]

ALERT = b"\x15\x03\x01\x00\x02\x02\x46"  # fatal, protocol_version (RFC 8446, section 6)


@contextlib.asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[str]:
    """A server that answers `data` whatever is asked, and ends; where it is."""

    async def handle(stream: portico.Stream) -> None:
        await stream.recv()
        await stream.send(data)

    async with portico.serve(handle, "tcp://127.0.0.1:0") as server:
        yield f"127.0.0.1:{server.address.port}"


async def failed(url: str) -> Exception:
    """What a client of `url` fails with."""
    with pytest.raises((ConnectError, EndOfStream, ProtocolError)) as caught:
        await (portico.fetch(url) if url.startswith("http") else portico.connect(url))
    return caught.value


@scenario()
async def test_a_port_with_tls_that_hangs_up_may_want_it(certificates: Certificates) -> None:
    async with portico.serve(echo, "wss://localhost:0/", tls=certificates.server()) as server:
        at = f"127.0.0.1:{server.address.port}"
        for scheme in ("ws", "http"):
            said = str(await failed(f"{scheme}://{at}/"))
            assert f"; check that it is a web server, and whether it wants TLS ({scheme}s://)" in said


@scenario()
@pytest.mark.parametrize("data", [ALERT, b"\x16\x03\x03\x00\x05hello"])
async def test_an_answer_in_tls_names_the_scheme(data: bytes) -> None:
    async with answering(data) as at:
        assert f"ws://{at}/ answers with TLS; write wss:// in place of ws://" in str(await failed(f"ws://{at}/"))
        assert (
            str(await failed(f"http://{at}/")) == f"http://{at}/ answers with TLS; write https:// in place of http://"
        )


@scenario()
@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200", b"\x15\x00\x00"])
async def test_other_answers_do_not_speak_of_tls(data: bytes) -> None:
    async with answering(data) as at:
        for scheme in ("ws", "http"):
            assert "TLS" not in str(await failed(f"{scheme}://{at}/"))


@scenario()
async def test_a_unix_socket_does_not_speak_of_tls(tmp_path: object) -> None:
    async def hang_up(stream: portico.Stream) -> None:
        await stream.recv()

    async with portico.serve(hang_up, f"unix:{tmp_path}/s"):
        for scheme in ("ws", "http"):
            assert "TLS" not in str(await failed(f"{scheme}+unix:{tmp_path}/s:/"))


@scenario()
async def test_a_plain_port_names_the_scheme_without_tls() -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/") as server:
        for scheme, plain in (("wss", "ws"), ("https", "http")):
            error = await failed(f"{scheme}://127.0.0.1:{server.address.port}/")
            assert f"; check the port, or connect without TLS: {plain}://" in str(error) and "STARTTLS" not in str(
                error
            )
            assert isinstance(error.__cause__, TLSError) and error.__cause__.hint.endswith(f"{plain}://")


def test_a_record_is_told_by_its_first_bytes() -> None:
    assert is_tls(ALERT) and is_tls(b"\x15") and is_tls(b"\x16\x03")
    assert not is_tls(b"") and not is_tls(b"\x17\x03") and not is_tls(b"\x15\x02") and not is_tls(b"HTTP/1.1")


def test_only_the_remedy_for_a_plain_port_changes() -> None:
    error = explain(TimeoutError())
    said = str(error)
    without_tls(error, "ws")
    assert str(error) == said and "ws://" not in said
