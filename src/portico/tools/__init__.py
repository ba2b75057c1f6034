"""The command `portico`."""
