"""picows on uvloop, its interface like that of websockets: the same handlers as `websockets_server`. Of its compression
only whether there is any can be chosen."""

import uvloop
from picows.websockets.asyncio import server
from websockets_server import serve

if __name__ == "__main__":
    uvloop.run(serve(server, {"compression": "deflate"}))
