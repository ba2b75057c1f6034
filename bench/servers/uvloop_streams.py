"""asyncio streams on uvloop: the same handlers as `asyncio_streams`."""

import uvloop
from asyncio_streams import serve

if __name__ == "__main__":
    uvloop.run(serve())
