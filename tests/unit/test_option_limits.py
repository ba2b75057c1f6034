"""What the kernel's settings say about options."""

import socket
import sys
from pathlib import Path

import pytest

from portico import option_limits
from portico.errors import ConfigurationError
from portico.option_limits import kernel_limits
from portico.options import OPTIONS, get_option

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sysctl of Linux")


def test_kernel_limits_are_what_sysctl_has() -> None:
    def read(name: str) -> list[str]:
        file = Path("/proc/sys", *name.split("."))
        if not file.exists():
            pytest.skip(f"{name} is not shown in this network namespace")
        return file.read_text().split()

    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        of_tcp, of_udp = kernel_limits("receive_buffer", tcp), kernel_limits("receive_buffer", udp)
        assert of_tcp.maximum == of_udp.maximum == int(read("net.core.rmem_max")[0])
        assert (of_tcp.default, of_tcp.default_setting) == (int(read("net.ipv4.tcp_rmem")[1]), "net.ipv4.tcp_rmem")
        assert of_udp.default == int(read("net.core.rmem_default")[0]) == get_option(udp, "receive_buffer")
        assert kernel_limits("receive_buffer").default_setting == "net.core.rmem_default"
        assert kernel_limits("keepalive_idle").default == get_option(tcp, "keepalive_idle")
        assert kernel_limits("ttl").default == get_option(udp, "ttl")
        assert kernel_limits("congestion").default == get_option(tcp, "congestion")
    assert kernel_limits("fast_open").maximum == int(read("net.core.somaxconn")[0])
    nothing = kernel_limits("no_delay")
    assert (nothing.default, nothing.maximum, nothing.default_setting) == (None, None, "")
    with pytest.raises(ConfigurationError, match="did you mean 'receive_buffer'"):
        kernel_limits("recieve_buffer")


def test_kernel_settings_that_cannot_be_read_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(option_limits, "SETTINGS", tmp_path)
    limits = kernel_limits("receive_buffer")
    assert (limits.default, limits.maximum, limits.maximum_setting) == (None, None, "net.core.rmem_max")


def test_every_setting_that_the_table_names_is_there() -> None:
    young = {"net.ipv4.tcp_rto_max_ms", "net.ipv4.tcp_rto_min_us"}
    for option in OPTIONS.values():
        for each in option.sysctls:
            hidden = each.name.startswith("net.core.")  # from other network namespaces, by older kernels
            assert hidden or each.name in young or Path("/proc/sys", *each.name.split(".")).exists(), each.name
