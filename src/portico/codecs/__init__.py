"""Messages in bytes, without I/O."""
