"""Compiles the C programs and makes a certificate, into bench/build."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from portico_bench.catalogue import BENCH, BUILD, SERVERS

FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra"]


def _has_openssl() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.c"
        probe.write_text("#include <openssl/ssl.h>\nint main(void) { return SSL_CTX_new(TLS_method()) == 0; }\n")
        command = ["gcc", str(probe), "-o", str(probe.with_suffix("")), "-lssl", "-lcrypto"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _compile(sources: list[Path], output: Path, extra: list[str]) -> None:
    newest = max(path.stat().st_mtime for path in [*sources, *BENCH.glob("load/*.h")])
    if output.exists() and output.stat().st_mtime > newest:
        return
    libraries = [flag for flag in extra if flag.startswith("-l")]
    defines = [flag for flag in extra if not flag.startswith("-l")]
    subprocess.run(["gcc", *FLAGS, *defines, *map(str, sources), "-o", str(output), *libraries], check=True)


def build() -> None:
    """Bring all programs up to date. Without the headers of OpenSSL the TLS workload fails, the others work."""
    BUILD.mkdir(exist_ok=True)
    tls = ["-lssl", "-lcrypto"] if _has_openssl() else []
    common = BENCH / "load" / "common.c"
    for name in ("stream", "churn", "group", "idle", "flood", "datagrams"):
        extra = ["-DWITH_TLS", *tls] if tls and name == "stream" else []
        _compile([BENCH / "load" / f"{name}.c", common], BUILD / f"load_{name}", extra)
    for name in ("echo", "echo_udp"):
        _compile([SERVERS / f"{name}.c"], BUILD / name, [])
    if tls:
        _compile([SERVERS / "echo_tls.c"], BUILD / "echo_tls", tls)
    if not (BUILD / "cert.pem").exists():
        _make_certificate()


def _make_certificate() -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "3650", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(BUILD / "key.pem"), "-out", str(BUILD / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
