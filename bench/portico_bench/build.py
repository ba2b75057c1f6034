"""Compiles the C programs, makes a certificate and a file to serve, into bench/build; installs the packages of Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from portico_bench.catalogue import BENCH, BUILD, SERVERS

FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra"]


TLS = ["-DWITH_TLS", "-lssl", "-lcrypto"]
ZLIB = ["-DWITH_ZLIB", "-lz"]
LOADS = {
    "stream": ["closed_loop.c"],
    "churn": [],
    "group": ["websocket_client.c"],
    "idle": ["websocket_client.c", "deflate.c"],
    "flood": [],
    "datagrams": [],
    "websocket": ["closed_loop.c", "websocket_client.c", "deflate.c"],
    "http": ["closed_loop.c"],
}
"""The load programs, and what each has beside its own source and common.c."""

SMALL_FILE_SIZE = 2048


def _has(header: str, call: str, flags: list[str]) -> bool:
    """Whether a program can be built with a library."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.c"
        probe.write_text(f"#include <{header}>\nint main(void) {{ return {call} == 0; }}\n")
        command = ["gcc", str(probe), "-o", str(probe.with_suffix("")), *flags]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _compile(sources: list[Path], output: Path, extra: list[str]) -> None:
    newest = max(path.stat().st_mtime for path in [*sources, *BENCH.glob("load/*.h")])
    if output.exists() and output.stat().st_mtime > newest:
        return
    libraries = [flag for flag in extra if flag.startswith("-l")]
    defines = [flag for flag in extra if not flag.startswith("-l")]
    subprocess.run(["gcc", *FLAGS, *defines, *map(str, sources), "-o", str(output), *libraries], check=True)


def build() -> None:
    """Bring all programs up to date. What lacks headers (OpenSSL, zlib) or npm fails alone; the others work."""
    BUILD.mkdir(exist_ok=True)
    tls = TLS if _has("openssl/ssl.h", "SSL_CTX_new(TLS_method())", TLS) else []
    zlib = ZLIB if _has("zlib.h", "zlibVersion()", ZLIB) else []
    load = BENCH / "load"
    for name, parts in LOADS.items():
        extra = [*(tls if name == "stream" else []), *(zlib if "deflate.c" in parts else [])]
        sources = [load / f"{name}.c", load / "common.c", *(load / part for part in parts)]
        _compile(sources, BUILD / f"load_{name}", extra)
    for name in ("echo", "echo_udp"):
        _compile([SERVERS / f"{name}.c"], BUILD / name, [])
    if tls:
        _compile([SERVERS / "echo_tls.c"], BUILD / "echo_tls", tls)
    if not (BUILD / "cert.pem").exists():
        _make_certificate()
    (BUILD / "small.txt").write_text("".join(f"This is line {line:4}.\n" for line in range(SMALL_FILE_SIZE)))
    os.truncate(BUILD / "small.txt", SMALL_FILE_SIZE)
    _install_node_packages()


def _install_node_packages() -> None:
    """Those that package-lock.json names, into servers/node_modules."""
    lock, installed = SERVERS / "package-lock.json", SERVERS / "node_modules" / ".package-lock.json"
    if shutil.which("npm") is None or (installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime):
        return
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"]
    subprocess.run(command, cwd=SERVERS, check=False)


def _make_certificate() -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "3650", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(BUILD / "key.pem"), "-out", str(BUILD / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
