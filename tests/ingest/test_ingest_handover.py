"""Connections given away: whole, in order, also when there is no room for them at once."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from cluster.ingest.handover import PIECE_BYTES, Receiver, Sender


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


class Taken:
    def __init__(self) -> None:
        self.bytes: list[bytes] = []
        self.sockets: list[socket.socket] = []

    def __call__(self, connection: socket.socket, received: bytes) -> None:
        self.sockets.append(connection)
        self.bytes.append(received)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_what_was_read_arrives_with_the_connection(channel) -> None:
    taken, near, far = Taken(), *socket.socketpair()
    Receiver(channel[1], taken)
    Sender(channel[0]).give(far.detach(), b"GET / HTTP/1.1")
    await until(lambda: taken.bytes)
    taken.sockets[0].send(b"hello")
    assert (taken.bytes, near.recv(10)) == ([b"GET / HTTP/1.1"], b"hello")
    taken.sockets[0].close()
    assert near.recv(10) == b""  # nobody else holds it
    near.close()


async def test_large_beginnings_wait_for_room_and_keep_their_order(channel) -> None:
    taken, sender = Taken(), Sender(channel[0])
    wanted = [os.urandom(n) for n in (3 << 20, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES)]
    for received in wanted:
        near, far = socket.socketpair()
        near.close()
        sender.give(far.detach(), received)
    Receiver(channel[1], taken)
    await sender.flushed()
    await until(lambda: len(taken.bytes) == len(wanted))
    assert taken.bytes == wanted
    for each in taken.sockets:
        each.close()


async def test_what_a_dead_process_gave_is_still_taken(channel) -> None:
    taken, sender = Taken(), Sender(channel[0])
    near, far = socket.socketpair()
    sender.give(far.detach(), b"first")
    channel[0].close()
    receiver = Receiver(channel[1], taken)
    receiver.drain()
    assert taken.bytes == [b"first"]
    receiver.drain()
    taken.sockets[0].close()
    near.close()


async def test_a_sender_without_a_receiver_gives_up(channel) -> None:
    channel[1].close()
    near, far = socket.socketpair()
    sender = Sender(channel[0])
    sender.give(far.detach(), b"x")
    await sender.flushed()
    near.close()
