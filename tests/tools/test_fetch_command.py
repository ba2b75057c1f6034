"""`portico fetch`, as a shell runs it, against Python's own HTTP server."""

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from server.support import Certificates, certificates

from .command import PORTICO, in_shell, portico, started

__all__ = ["certificates"]

BINARY = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path; POST and PUT say what they got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/binary":
            self.answer(200, BINARY, "application/octet-stream")
        elif self.path == "/moved":
            self.answer(302, b"", Location="/binary")
        elif self.path == "/cut":
            self.answer(200, b"only half", length=18)
        elif self.path == "/barred":
            self.answer(401, b"who are you\n")
        elif self.path == "/headers":
            self.answer(200, str(self.headers).encode())
        else:
            self.answer(404, b"no such room\nlook elsewhere\n")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/moved":
            self.answer(307, b"", Location="/here")
        else:
            self.answer(200, f"{self.command} {self.headers['Content-Type']} ".encode() + body)

    do_PUT = do_POST

    def answer(self, status: int, body: bytes, kind: str = "text/plain", *, length: int = -1, **fields: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **fields}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    with serving() as place:
        yield place


def test_the_body_goes_to_standard_output_as_it_is(place: str) -> None:
    for url in (f"http://{place}/binary", f"{place}/binary", f"{place}/moved"):
        done = portico("fetch", url)
        assert (done.returncode, done.stdout, done.stderr) == (0, BINARY, b"")


def test_include_writes_the_head_before_the_body(place: str) -> None:
    done = portico("fetch", "-i", f"{place}/binary")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"Content-Length: 1024000" in head and body == BINARY
    done = portico("fetch", "-i", "-X", "HEAD", f"{place}/binary", "--no-check")
    assert done.stdout.startswith(b"HTTP/1.1 501 ") and done.stdout.endswith(b"\r\n\r\n")


def test_output_goes_to_a_file_once_the_server_has_answered(place: str, tmp_path: Path) -> None:
    file = tmp_path / "out"
    done = portico("fetch", f"{place}/binary", "-o", str(file))
    assert (done.returncode, done.stdout, file.read_bytes()) == (0, b"", BINARY)
    assert portico("fetch", f"{place}/none", "-o", str(file)).returncode == 22 and file.read_bytes() == BINARY
    done = portico("fetch", f"{place}/binary", "-o", str(tmp_path / "no" / "out"))
    assert done.returncode == 1 and b"no such file or directory" in done.stderr


def test_a_refusal_has_an_exit_code_of_its_own(place: str) -> None:
    done = portico("fetch", f"{place}/none")
    assert (done.returncode, done.stdout) == (22, b"")
    assert done.stderr.decode() == f"portico: http://{place}/none answered 404 Not Found: no such room\n"
    done = portico("fetch", f"{place}/none", "--no-check")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"no such room\nlook elsewhere\n", b"")


def test_data_is_sent_from_the_line_a_file_and_standard_input(place: str, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(BINARY)
    text = portico("fetch", f"{place}/x", "-d", "é", "-H", "content-type: text/x")
    assert text.stdout == b"POST text/x " + "é".encode()
    assert portico("fetch", f"{place}/x", "--data", "").stdout == b"POST text/plain; charset=utf-8 "
    for words, stdin in ((f"@{file}", b""), ("-", BINARY)):
        done = portico("fetch", f"{place}/x", "-X", "PUT", "-d", words, stdin=stdin)
        assert done.stdout == b"PUT application/octet-stream " + BINARY and not done.stderr
    assert portico("fetch", f"{place}/moved", "-d", f"@{file}").stdout.endswith(BINARY)
    done = portico("fetch", f"{place}/moved", "-d", "-", stdin=b"x")
    assert done.returncode == 2 and b"this body can be sent only once" in done.stderr


def test_headers_are_sent_too(place: str) -> None:
    done = portico("fetch", f"{place}/headers", "-H", "X-One: 1", "-H", "User-Agent:mine", "-H", "Empty:")
    assert {b"X-One: 1", b"User-Agent: mine", b"Empty:"} <= {line.strip() for line in done.stdout.splitlines()}
    assert done.stdout.count(b"User-Agent") == 1


def test_user_and_bearer_log_in(place: str) -> None:
    basic = b"Authorization: Basic YW5uOnNlOmNyZXQ="  # ann:se:cret
    assert basic in portico("fetch", f"{place}/headers", "--user", "ann:se:cret").stdout.splitlines()
    token = portico("fetch", f"{place}/headers", "--bearer", "abc").stdout
    assert b"Authorization: Bearer abc" in token.splitlines()
    done = portico("fetch", f"{place}/barred")
    assert (done.returncode, done.stderr.count(b"\n")) == (22, 1)
    assert b"answered 401 Unauthorized: who are you" in done.stderr
    assert done.stderr.endswith(b"; log in with --user NAME:PASSWORD or --bearer TOKEN\n")


def test_an_answer_cut_short_is_an_error(place: str) -> None:
    done = portico("fetch", f"{place}/cut")
    assert done.returncode == 1 and done.stdout == b"only half"
    assert b"was gone in the middle of its answer: the server closed the connection" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["localhost:1"], 1, "connection refused"),
        (["http+unix:/nope:/"], 1, "unix:/nope: connect: no such file or directory"),
        (["ws://localhost:1"], 2, "no URL of http"),
        (["localhost:1", "-H", "x"], 2, "--header 'x' has no colon; write it as 'Name: value'"),
        (["localhost:1", "-H", "Connection: x"], 2, "fetch's own business"),
        (["localhost:1", "-d", "@/nope"], 1, "no such file or directory: '/nope'"),
        (["localhost:1", "-X", "A B"], 2, "no HTTP method"),
        (["localhost:1", "--user", "ann"], 2, "--user has no password; write it as NAME:PASSWORD"),
        (["localhost:1", "--user", "a:b", "--bearer", "x"], 2, "--user and --bearer exclude one another"),
        (["localhost:1", "--bearer", "x", "-H", "Authorization: y"], 2, "say the same; give one of them"),
        (["localhost:1", "--timeout", "-1"], 2, "is less than 0"),
        (["localhost:1", "--cert", "/nope"], 1, "connection refused"),
        (["https://localhost:1", "--cert", "/nope"], 2, "cannot read certificate '/nope'"),
        (["localhost:1", "--proxy", "x"], 2, "the URL of a proxy"),
        ([], 2, "Missing argument 'URL'"),
    ],
)
def test_errors_are_one_line(words: list[str], code: int, said: str) -> None:
    done = portico("fetch", *words)
    assert done.returncode == code and said in done.stderr.decode() and not done.stdout
    assert done.stderr.startswith(b"portico: ") and done.stderr.count(b"\n") == 1


def test_the_time_for_everything_is_bounded() -> None:
    with started(*PORTICO, "listen", "127.0.0.1:0", "--keep-open") as silent:
        place = silent.listening().removeprefix("tcp://")
        done = portico("fetch", place, "--timeout", "0.2")
        assert done.returncode == 1 and b"did not answer within 0.2 s; give it more --timeout" in done.stderr


def test_tls_options(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.issue("there.example"))
    with serving(context) as place:
        url = f"https://{place}/binary"
        named = ("--server-name", "there.example")
        assert portico("fetch", url, "--ca", certificates.ca, *named).stdout == BINARY
        assert portico("fetch", url, "--insecure").stdout == BINARY
        for words in (["--ca", certificates.ca], named):
            done = portico("fetch", url, *words)
            assert done.returncode == 1 and b"tls: " in done.stderr and not done.stdout


def test_nobody_reads_the_output_any_more(place: str) -> None:
    words = " ".join(PORTICO)
    with in_shell(
        f"bash -c '{words} fetch {place}/binary | head -c 10; code=${{PIPESTATUS[0]}}; echo; echo $code'"
    ) as shell:
        assert shell.stdout.all() == BINARY[:10] + b"\n141\n"


def test_the_help_says_what_there_is() -> None:
    done = portico("fetch", "--help", COLUMNS="80")
    text = done.stdout.decode()
    assert done.returncode == 0 and max(map(len, text.splitlines())) <= 80
    for word in (
        "--method",
        "--header",
        "--data",
        "--include",
        "--output",
        "--timeout",
        "--proxy",
        "--user",
        "--bearer",
        "--no-check",
        "22 ",
    ):
        assert word in text
    assert "fetch" in portico("--help").stdout.decode()
