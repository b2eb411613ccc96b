"""Proxies in front of the nodes' ports, which can cut, slow down and lose. Work everywhere.

A node has two: the addresses for Raft and for HTTP that the others know it by. Who dialed a Raft
port is read from the first bytes, where nodes name themselves (without TLS); who dialed an HTTP
port is looked up among the processes (on Linux). So every pair has a wire in each direction.
Clients and workers are not cut: who has learnt a node's proxied address from another passes.

What is cut is held and delivered late, as TCP would after its retries; a lost packet is a pause of
its connection, for the same reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Self

from chaos.live.processes import Place, free_ports

CHUNK_BYTES = 64 << 10
INTRODUCTION_BYTES_MAX = 4 << 10  # a dialer that has not named itself by then stays unknown
RESENT_S = (0.2, 0.8)


@dataclass
class Wire:
    """One direction between two nodes."""

    rng: Random
    delay_s: float = 0.0
    lost: float = 0.0
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.whole.set()

    def set(self, *, cut: bool = False, delay_s: float = 0.0, lost: float = 0.0) -> None:
        self.delay_s, self.lost = delay_s, lost
        if cut:
            self.whole.clear()

    def heal(self) -> None:
        self.delay_s = self.lost = 0.0
        self.whole.set()

    async def carry(self) -> None:
        """Returns when a piece of data has come through."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.lost and self.rng.random() < self.lost:
            await asyncio.sleep(self.rng.uniform(*RESENT_S))
        await self.whole.wait()


class Wires:
    """Use as an async context manager; `places` are what a LocalCluster takes."""

    def __init__(self, nodes: int, seed: int) -> None:
        ports = iter(free_ports(4 * nodes))
        self._own, self._proxied, self._http, self._proxied_http = (
            [next(ports) for _ in range(nodes)] for _ in range(4)
        )
        self.places = [
            Place(*(f"127.0.0.1:{port}" for port in four[:2]), (),
                  *(f"127.0.0.1:{port}" for port in four[2:]))
            for four in zip(
                self._own, self._http, self._proxied, self._proxied_http, strict=True
            )
        ]  # fmt: skip
        self.owner: Callable[[int], str] = lambda port: ""  # the node that has this port open
        self._names = [f"n{n + 1}" for n in range(nodes)]
        rng = Random(f"wires/{seed}")
        self._wires = {
            (one, other): Wire(rng) for one in self._names for other in self._names if one != other
        }
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        for at, name in enumerate(self._names):
            await self._listen(self._proxied[at], _Raft(self, name), self._own[at])
            await self._listen(self._proxied_http[at], _Http(self, name), self._http[at])
        return self

    async def _listen(self, port: int, way: _Way, to: int) -> None:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._join(_Call(self, way), to, reader, writer)

        self._servers.append(await asyncio.start_server(accepted, "127.0.0.1", port))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.close()
        self.heal()
        self.reset()

    # -- which wires -----------------------------------------------------------------------------

    @property
    def all(self) -> list[Wire]:
        return list(self._wires.values())

    def towards(self, name: str) -> list[Wire]:
        return [wire for (_, to), wire in self._wires.items() if to == name]

    def away_from(self, name: str) -> list[Wire]:
        return [wire for (source, _), wire in self._wires.items() if source == name]

    def around(self, name: str) -> list[Wire]:
        return self.towards(name) + self.away_from(name)

    def between(self, one: str, other: str) -> list[Wire]:
        return [self._wires[one, other], self._wires[other, one]]

    def heal(self) -> None:
        for wire in self.all:
            wire.heal()

    def reset(self) -> None:
        """Ends all connections that are open."""
        for writer in list(self._open):
            writer.transport.abort()

    # -- carrying --------------------------------------------------------------------------------

    async def _join(
        self, call: _Call, to: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection that somebody opened to a node, which listens at the port `to`."""
        try:
            there = await asyncio.open_connection("127.0.0.1", to)
        except OSError:
            writer.transport.abort()
            return
        call.meet(writer.get_extra_info("peername")[1])
        both = {writer, there[1]}
        self._open |= both
        pumps = [
            asyncio.create_task(call.pump(reader, there[1], is_dialer=True)),
            asyncio.create_task(call.pump(there[0], writer, is_dialer=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for end in both:
                end.transport.abort()
            self._open -= both

    def who(self, introduction: bytes, but: str) -> str:
        """The node whose address is in there, other than the one that is called."""
        for name, place in zip(self._names, self.places, strict=True):
            if name != but and place.advertise.encode() in introduction:
                return name
        return ""

    def wire(self, source: str, to: str) -> Wire | None:
        return self._wires.get((source, to))


@dataclass(frozen=True)
class _Way:
    """How those who call a node at one of its ports are told apart."""

    wires: Wires
    called: str

    def by_port(self, port: int) -> str:
        return ""

    def by_words(self, introduction: bytes) -> str:
        return ""


class _Raft(_Way):
    def by_words(self, introduction: bytes) -> str:
        return self.wires.who(introduction, self.called)


class _Http(_Way):
    def by_port(self, port: int) -> str:
        name = self.wires.owner(port)
        return name if name != self.called else ""


class _Call:
    """Both directions of one connection; who dialed may be known only after a moment."""

    def __init__(self, wires: Wires, way: _Way) -> None:
        self._wires = wires
        self._way = way
        self._dialer = ""
        self._introduction = b""

    def meet(self, port: int) -> None:
        """The dialer's end of the connection has this port."""
        self._dialer = self._way.by_port(port)

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_dialer: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if is_dialer and not self._dialer:
                    self._listen(data)
                ends = (self._dialer, self._way.called)
                wire = self._wires.wire(*(ends if is_dialer else ends[::-1]))
                if wire is not None:
                    await wire.carry()
                writer.write(data)
                await writer.drain()

    def _listen(self, data: bytes) -> None:
        if len(self._introduction) < INTRODUCTION_BYTES_MAX:
            self._introduction += data
            self._dialer = self._way.by_words(self._introduction)
