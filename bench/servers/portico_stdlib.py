"""Portico on the loop of the standard library: the same handlers as `portico_server`."""

from portico_server import main

if __name__ == "__main__":
    main("asyncio")
