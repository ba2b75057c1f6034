"""Runs codecs in the native engine: a memory pair with raw bytes at one end and a channel at the other."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from portico._core import ChannelBase, Codec, Settings, StreamBase, hub_of, memory_wires
from portico.errors import EndOfStream, MessageTooLarge, ProtocolError

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def pair(codec: Codec[Any]) -> tuple[StreamBase, ChannelBase[Any]]:
    """Return the two ends of a fresh connection."""
    one, other = memory_wires(hub_of(asyncio.get_running_loop()))
    settings = Settings()
    return StreamBase(one, settings), ChannelBase(other, codec, settings)


async def close(*connections: StreamBase | ChannelBase[Any]) -> None:
    for connection in connections:
        connection.abort()
    for connection in connections:
        await connection.wait_closed()


async def outcomes(codec: Codec[Any], pieces: Iterable[bytes]) -> list[object]:
    """Feed each of `pieces` as one arrival, then the end; return the messages and errors that the channel gives.

    The last is EndOfStream, or the error after which nothing can be understood."""
    raw, channel = pair(codec)
    for piece in pieces:
        raw.send(piece)
        raw.flush()
    raw.send_eof()
    found: list[object] = []
    while True:
        try:
            found.append(await channel.recv())
        except EndOfStream as error:
            found.append(error)
            break
        except (MessageTooLarge, ProtocolError) as error:
            if found and found[-1] is error:  # it stays
                break
            found.append(error)
    await close(raw, channel)
    return found


async def sent(codec: Codec[Any], send: Callable[[ChannelBase[Any]], object]) -> bytes:
    """Return the bytes that `send(channel)` puts on the wire."""
    raw, channel = pair(codec)
    send(channel)
    channel.send_eof()
    data = b"".join([chunk async for chunk in raw])
    await close(raw, channel)
    return data


def shape(outcome: object) -> object:
    """Return what of an outcome may not depend on how the bytes were cut."""
    if isinstance(outcome, EndOfStream):
        return EndOfStream, outcome.partial
    if isinstance(outcome, ProtocolError):
        return ProtocolError, outcome.reason, outcome.offset
    if isinstance(outcome, MessageTooLarge):
        return MessageTooLarge, outcome.limit
    return outcome
