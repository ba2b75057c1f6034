"""Blocking channels: whole messages, with timeouts and without waiting."""

import socket

import pytest

import portico
from portico.errors import BusyError, ClosedError, EndOfStream, MessageTooLarge, WouldBlock

from .support import PATIENCE, Aside, connected, interrupted_answer, pair, until


def lines() -> portico.Lines[str]:
    return portico.Lines(max_size=100)


def test_messages_come_one_by_one_in_order_until_the_end() -> None:
    with connected(codec=lines()) as (channel, peer):
        peer.sendall(b"one\ntwo\nthree\nfour\n")
        assert channel.recv() == "one" and channel.recv(timeout=PATIENCE) == "two"
        peer.shutdown(socket.SHUT_WR)
        assert list(channel) == ["three", "four"]
        with pytest.raises(EndOfStream):
            channel.recv()


def test_an_end_within_a_message_is_an_error() -> None:
    with connected(codec=lines()) as (channel, peer):
        peer.sendall(b"one\ntw")
        peer.shutdown(socket.SHUT_WR)
        received = []
        with pytest.raises(EndOfStream) as raised:
            received.extend(iter(channel))
        assert raised.value.partial == b"tw"


def test_receiving_without_waiting() -> None:
    with connected(codec=lines()) as (channel, peer):
        peer.sendall(b"half")
        for how in ({"wait": False}, {"timeout": 0}, {"timeout": 0.02}):
            with pytest.raises(WouldBlock if "wait" in how else TimeoutError):
                channel.recv(**how)
        peer.sendall(b" and half\n")
        assert channel.recv(wait=False) == "half and half"


def test_many_messages_that_are_there_can_all_be_taken_without_waiting() -> None:
    with connected(codec=lines()) as (channel, peer):
        peer.sendall(b"x\n" * 500)
        peer.shutdown(socket.SHUT_WR)
        until(lambda: channel.state is portico.State.HALF_CLOSED_REMOTE)
        assert [channel.recv(wait=False) for _ in range(500)] == ["x"] * 500


def test_batches_hold_all_that_is_there() -> None:
    with connected(codec=lines()) as (channel, peer):
        peer.sendall(b"one\ntwo\n")
        batches = channel.batches()
        got = next(batches)
        while len(got) < 2:
            got += next(batches)
        assert got == ["one", "two"]
        peer.sendall(b"three\n")
        peer.shutdown(socket.SHUT_WR)
        assert list(batches) == [["three"]]


def test_a_message_is_sent_whole_or_not_at_all() -> None:
    with connected(codec=lines(), high_water=1000) as (channel, peer):
        sent = 0
        with pytest.raises(WouldBlock, match=r"sending to tcp://.* would have to wait"):
            while True:
                channel.send("x" * 99, wait=False)
                sent += 1
        with pytest.raises(TimeoutError):
            channel.send("lost", timeout=0.02)
        last = Aside(lambda: channel.send("last", timeout=PATIENCE))
        with peer.makefile("r") as file:
            for _ in range(sent):
                assert file.readline() == "x" * 99 + "\n"
            assert file.readline() == "last\n"
        assert last.over().error is None


def test_a_message_that_is_too_large_is_not_sent() -> None:
    with connected(codec=lines()) as (channel, _):
        with pytest.raises(MessageTooLarge):
            channel.send("x" * 101)


def test_what_an_interrupted_call_took_comes_first_again() -> None:
    with pair() as (one, other):
        channel = one.channel(lines())
        other.send(b"one\ntwo\nthree\n")
        with interrupted_answer():
            channel.recv()
        with interrupted_answer():
            next(channel.batches())
        with pytest.raises(BusyError, match="an interrupted call left"):
            channel.detach()
        assert channel.recv() == "one"
        with interrupted_answer():
            next(channel.batches())
        with interrupted_answer():
            channel.recv()
        assert channel.recv() == "two" and channel.recv() == "three"


def test_packets_are_messages() -> None:
    with pair(kind="seqpacket") as (one, other):
        one.send(b"first")
        one.send(b"second")
        assert other.recv(timeout=PATIENCE) == b"first"
        with interrupted_answer():
            other.recv_with_ancillary()
        assert other.recv_with_ancillary(timeout=PATIENCE) == (b"second", [])
        with pytest.raises(WouldBlock):
            other.recv_with_ancillary(wait=False)
        other.send_with_ancillary(b"third", [])
        assert one.recv() == b"third"


def test_a_local_close_ends_receiving_with_an_error() -> None:
    with connected(codec=lines()) as (channel, _):
        reader = Aside(lambda: list(channel))
        reader.waits()
        channel.close(wait=False)
        assert isinstance(reader.over().error, ClosedError)
