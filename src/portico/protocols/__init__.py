"""What is said on a connection before and beside its messages, without I/O."""

from portico.protocols.proxy_header import ProxyHeader as ProxyHeader
