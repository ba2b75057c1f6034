"""Sockets of the operating system: addresses to wires."""
