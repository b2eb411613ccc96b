"""What the proxies between nodes do to bytes, on echoing listeners in place of nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from chaos.live.processes import free_ports
from chaos.live.sockets import holds, inode_of
from chaos.live.wires import Wires


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@pytest.fixture
async def wires() -> AsyncIterator[Wires]:
    made = Wires(3, seed=1)
    servers = []
    async with made:
        for place in made.places:
            host, port = place.raft.rsplit(":", 1)
            servers.append(await asyncio.start_server(echo, host, int(port)))
        yield made
    for server in servers:
        server.close()


class Caller:
    """The node n1, on a connection to another node's proxy."""

    def __init__(self, wires: Wires, to: int) -> None:
        self._port = int(wires.places[to].advertise.rsplit(":", 1)[1])
        self.name = wires.places[0].advertise.encode()

    async def dial(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert await self.say(self.name) == self.name

    async def say(self, data: bytes) -> bytes:
        self.writer.write(data)
        return await self.reader.readexactly(len(data))


async def dialed(wires: Wires, to: int) -> Caller:
    caller = Caller(wires, to)
    await caller.dial()
    return caller


@pytest.mark.parametrize("direction", [("n1", "n2"), ("n2", "n1")])
async def test_a_cut_wire_holds_what_is_sent_until_it_is_healed(
    wires: Wires, direction: tuple[str, str]
) -> None:
    caller, bystander = await dialed(wires, 1), await dialed(wires, 2)
    wire = wires.wire(*direction)
    assert wire is not None
    wire.set(cut=True)
    held = asyncio.create_task(caller.say(b"late"))
    assert await bystander.say(b"on time") == b"on time"  # and in that time, held was not
    assert not held.done()
    wire.heal()
    assert await held == b"late"


async def test_a_reset_ends_open_connections_and_permits_new_ones(wires: Wires) -> None:
    caller = await dialed(wires, 1)
    wires.reset()
    with pytest.raises((asyncio.IncompleteReadError, OSError)):
        await caller.say(b"gone")
    assert await (await dialed(wires, 1)).say(b"again") == b"again"


async def test_a_lossy_wire_loses_nothing_for_good(wires: Wires) -> None:
    caller = await dialed(wires, 1)
    for wire in wires.around("n2"):
        wire.set(delay_s=0.001, lost=0.02)
    assert await caller.say(b"0123456789") == b"0123456789"


async def test_a_caller_who_is_nobody_is_not_cut_off(wires: Wires) -> None:
    for wire in wires.all:
        wire.set(cut=True)
    stranger = Caller(wires, 1)
    stranger.name = b"hello"
    await stranger.dial()
    assert await stranger.say(b"anything") == b"anything"


async def test_http_is_cut_for_the_node_that_dialed_and_nobody_else() -> None:
    async with Wires(2, seed=1) as wires:
        server = await asyncio.start_server(echo, *wires.places[1].http.rsplit(":", 1))
        port = int(wires.places[1].advertise_http.rsplit(":", 1)[1])
        number = free_ports(1)[0]
        wires.owner = lambda dialer: "n1" if dialer == number else ""
        node = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.1", number))
        client = await asyncio.open_connection("127.0.0.1", port)
        for wire in wires.between("n1", "n2"):
            wire.set(cut=True)
        for end in (node, client):
            end[1].write(b"hello")
        assert await client[0].readexactly(5) == b"hello"
        assert inode_of(number) != ""
        assert holds(os.getpid(), inode_of(number))
        held = asyncio.create_task(node[0].readexactly(5))
        await asyncio.sleep(0)
        assert not held.done()
        wires.heal()
        assert await held == b"hello"
        for end in (node, client):
            end[1].close()
        server.close()
