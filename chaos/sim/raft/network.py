"""Connections between simulated nodes: frames in order, late, held back, or lost with their link.

A link is what TCP gives: each direction keeps its order; a cut direction holds what was sent until
it heals (a stalled TCP connection delivers late, not never); a reset loses what is in flight, and
each side learns of it in its own time. Frames are encoded and decoded by the product's own code.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Protocol

from cluster.consensus.mesh import Connected, Disconnected, Event, Received, Refused
from cluster.consensus.refusals import TOLD
from cluster.consensus.wire import EMPTY, Blob, FrameDecoder, Message, encode_frame

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life

REDIAL_S = (0.01, 0.25)
LEARN_OF_RESET_S = 0.05
INTRODUCE_S = 0.5
WRITABLE_BYTES = 32 << 10  # scaled down with everything else, so that windows do close


class Watcher(Protocol):
    """Sees what leaves a node: a promise counts from then on, whether it arrives or not. And what
    arrives, by the connection (`epoch`) it came on."""

    def on_sent(self, life: Life, peer: str, message: Message) -> None: ...
    def on_taken(self, life: Life, peer: str, epoch: int, message: Message) -> None: ...


class Pipe:
    """One direction of a link."""

    def __init__(self, link: Link, source: End, target: End) -> None:
        self.link = link
        self.source = source
        self.target = target
        self.queue: deque[tuple[float, bytes]] = deque()
        self.bytes_waiting = 0
        self.lost = False  # after a reset: nothing new enters
        self._is_scheduled = False

    def push(self, frame: bytes) -> None:
        if self.lost:
            return
        fabric = self.link.fabric
        at = fabric.loop.time() + fabric.latency_s(self.source.life.id, self.target.life.id)
        if self.queue and self.queue[-1][0] > at:
            at = self.queue[-1][0]
        self.queue.append((at, frame))
        self.bytes_waiting += len(frame)
        self.schedule()

    def schedule(self) -> None:
        if self._is_scheduled or not self.queue or self.link.fabric.is_cut(self):
            return
        self._is_scheduled = True
        loop = self.link.fabric.loop
        at = max(self.queue[0][0], loop.time())
        loop.call_at(at, self._arrive, context=self.target.life.context)

    def _arrive(self) -> None:
        self._is_scheduled = False
        if self.link.fabric.is_cut(self):
            return  # held until the cut heals
        now_s = self.link.fabric.loop.time()
        while self.queue and self.queue[0][0] <= now_s:
            frame = self.queue.popleft()[1]
            was_writable = self.bytes_waiting < WRITABLE_BYTES
            self.bytes_waiting -= len(frame)
            if not was_writable and self.bytes_waiting < WRITABLE_BYTES:
                context = self.source.life.context  # not the one who reads here
                self.link.fabric.loop.call_soon(self.source.wake, context=context)
            self.target.take(self.link, frame)
        self.schedule()


class Link:
    """A connection; its ends have their own epochs, and their own moments of birth and death."""

    def __init__(self, fabric: Fabric, first: End, second: End) -> None:
        self.fabric = fabric
        self.ends = (first, second)
        self.pipes = {first.life.id: Pipe(self, first, second)}
        self.pipes[second.life.id] = Pipe(self, second, first)
        self.epochs: dict[str, int] = {}  # by node id; missing: not up there yet
        self.gone = False

    def other(self, end: End) -> End:
        return self.ends[1] if end is self.ends[0] else self.ends[0]


class End:
    """`HostNetwork` of one node from its start to its end."""

    def __init__(
        self, fabric: Fabric, life: Life, wake: Callable[[], None], meta: dict[str, str]
    ) -> None:
        self.life = life
        self.inbox: deque[Event] = deque()
        self._fabric = fabric
        self._wake = wake
        self._own_meta = meta
        self._links: dict[str, Link] = {}
        self._metas: dict[str, dict[str, str]] = {}
        self._heard: dict[str, float] = {}
        self._last_epoch = 0
        self.is_open = False
        self.cluster_id = b""
        self.folder_id = ""
        self.vet: Callable[[str, str], str] = lambda node_id, folder_id: ""

    # What consensus asks -----------------------------------------------------------------------

    def bind(self) -> None:
        """Every simulated node has its port to itself."""

    def release(self) -> None:
        self.is_open = False

    def identify(self, cluster_id: bytes, folder_id: str) -> None:
        self.cluster_id = cluster_id
        self.folder_id = folder_id

    async def introduce(self) -> bytes:
        """Some member that can be reached tells the cluster's id."""
        while not (cluster_id := self._fabric.cluster_id(self.life.id)):  # noqa: ASYNC110
            await asyncio.sleep(INTRODUCE_S)
        return cluster_id

    async def start(self) -> None:
        self.is_open = True
        self._fabric.join(self)

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.is_open = False
        self._fabric.leave(self)

    def send(self, peer: str, message: Message, blob: Blob = EMPTY) -> bool:
        link = self._links.get(peer)
        if link is None or not self.is_open:
            return False
        self._fabric.watcher.on_sent(self.life, peer, message)
        frame = b"".join((encode_frame(message, blob), *blob.parts))
        link.pipes[self.life.id].push(frame)
        return True

    def epoch(self, peer: str) -> int:
        link = self._links.get(peer)
        return link.epochs[self.life.id] if link is not None else 0

    def writable(self, peer: str) -> bool:
        link = self._links.get(peer)
        return link is not None and link.pipes[self.life.id].bytes_waiting < WRITABLE_BYTES

    def is_receiving(self, peer: str) -> bool:
        return False

    def folder(self, peer: str) -> str:
        if peer == self.life.id:
            return self.folder_id
        link = self._links.get(peer)
        return link.other(self).folder_id if link is not None else ""

    def set_peers(self, peers: tuple[str, ...]) -> None:
        """Everybody is connected with everybody here; who is refused decides `vet`."""
        for link in list(self._links.values()):
            if not self._judge(link):
                self.down(link)

    def _judge(self, link: Link) -> bool:
        """As `Mesh.judge`: some are told why they are refused."""
        other = link.other(self)
        reason = self.vet(other.life.id, other.folder_id)
        if reason:
            self._fabric.refuse(link, other, self.life.id, reason)
        return not reason

    def refused(self, peer: str, reason: str) -> None:
        if self.is_open:
            self.inbox.append(Refused(peer, reason))
            self.wake()

    def meta(self, peer: str) -> dict[str, str]:
        return self._metas.get(peer, {})

    def last_contact_ms(self, peer: str) -> float | None:
        heard = self._heard.get(peer)
        return None if heard is None else round((self._fabric.loop.time() - heard) * 1000, 1)

    # What happens to it, in the node's own context ---------------------------------------------

    def wake(self) -> None:
        if self.is_open:
            self._wake()

    def up(self, link: Link) -> None:
        """As `Mesh.link_up`: a link that is still thought to be alive is replaced."""
        peer = link.other(self).life.id
        if not self.is_open or link.gone or not self._judge(link):
            return
        old = self._links.get(peer)
        if old is link:
            return  # its first bytes were faster than the end of the handshake
        if old is not None:
            self.down(old)
            self._fabric.reset(old)
        self._last_epoch += 1
        link.epochs[self.life.id] = self._last_epoch
        self._links[peer] = link
        self._metas[peer] = link.other(self)._own_meta
        self.inbox.append(Connected(peer, self._last_epoch))
        self.wake()

    def down(self, link: Link) -> None:
        peer = link.other(self).life.id
        if self._links.get(peer) is link:
            del self._links[peer]
            self.inbox.append(Disconnected(peer, link.epochs[self.life.id]))
            self.wake()

    def take(self, link: Link, frame: bytes) -> None:
        """A frame came; one of a link that was replaced is still named by its own epoch."""
        if not self.is_open:
            return
        peer = link.other(self).life.id
        epoch = link.epochs.get(self.life.id)
        if epoch is None:
            self.up(link)  # the first bytes of a link show that it is up
            epoch = link.epochs.get(self.life.id)
            if epoch is None:
                return
        self._heard[peer] = self._fabric.loop.time()
        for message, blob in FrameDecoder().feed(frame):
            self._fabric.watcher.on_taken(self.life, peer, epoch, message)
            copies = 2 if self._fabric.repeats() else 1
            for _ in range(copies):
                self.inbox.append(Received(peer, epoch, message, blob))
        self.wake()


class Fabric:
    """All links, what is cut, and how slow it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: Random, watcher: Watcher) -> None:
        self.loop = loop
        self.watcher = watcher
        self._rng = rng
        self._ends: dict[str, End] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self.cuts: dict[tuple[str, str], int] = {}  # (from, to): how many faults cut it
        self.base_s = (0.0002, 0.002)
        self.spike_p = 0.0
        self.spike_s = 0.3
        self.repeat_p = 0.0
        self.late_p = 0.0  # what a reset leaves in flight still arrives

    # Delays ------------------------------------------------------------------------------------

    def latency_s(self, source: str, target: str) -> float:
        if self.spike_p and self._rng.random() < self.spike_p:
            return self._rng.uniform(0.0, self.spike_s)
        return self._rng.uniform(*self.base_s)

    def repeats(self) -> bool:
        return bool(self.repeat_p) and self._rng.random() < self.repeat_p

    # Life --------------------------------------------------------------------------------------

    def cluster_id(self, asker: str) -> bytes:
        """As one of the nodes that `asker` can reach knows it."""
        for node_id, end in self._ends.items():
            if not self.cuts.get((asker, node_id)) and not self.cuts.get((node_id, asker)):
                return end.cluster_id
        return b""

    def join(self, end: End) -> None:
        self._ends[end.life.id] = end
        for other in self._ends.values():
            if other is not end:
                self._dial_later(end.life.id, other.life.id)

    def leave(self, end: End) -> None:
        """The process ends: its sockets close, so the others learn of it soon."""
        if self._ends.get(end.life.id) is end:
            del self._ends[end.life.id]
        for link in list(self._links.values()):
            if end in link.ends:
                self.reset(link)

    def _dial_later(self, first: str, second: str) -> None:
        self.loop.call_later(self._rng.uniform(*REDIAL_S), self._dial, first, second)

    def _dial(self, first: str, second: str) -> None:
        one, two = self._ends.get(first), self._ends.get(second)
        key = (min(first, second), max(first, second))
        if one is None or two is None or (key in self._links and not self._links[key].gone):
            return
        if self.cuts.get((first, second)) or self.cuts.get((second, first)):
            self._dial_later(first, second)
            return
        link = self._links[key] = Link(self, one, two)
        # The listener knows first; the dialer with the listener's hello.
        self.loop.call_later(self.latency_s(first, second), two.up, link, context=two.life.context)
        delay_s = self.latency_s(first, second) + self.latency_s(second, first)
        self.loop.call_later(delay_s, one.up, link, context=one.life.context)

    def reset(self, link: Link, *, tell: bool = True) -> None:
        """The link is over. What is in flight is lost, or arrives before its end is known; with
        `tell` False (a host without power) nobody says so until a new link takes its place."""
        if link.gone:
            return
        link.gone = True
        for pipe in link.pipes.values():
            pipe.lost = True
            if self._rng.random() >= self.late_p:
                pipe.queue.clear()
                pipe.bytes_waiting = 0
        for end in link.ends:
            if tell or self._ends.get(end.life.id) is None:
                delay_s = self._rng.uniform(0, LEARN_OF_RESET_S)
            else:
                delay_s = self._rng.uniform(0.3, 3.0)
            self.loop.call_later(delay_s, end.down, link, context=end.life.context)
        self._dial_later(link.ends[0].life.id, link.ends[1].life.id)

    def refuse(self, link: Link, other: End, judge: str, reason: str) -> None:
        if reason in TOLD:
            delay_s = self.latency_s(judge, other.life.id)
            self.loop.call_later(delay_s, other.refused, judge, reason, context=other.life.context)
        self.reset(link)

    def links_of(self, node_id: str) -> list[Link]:
        return [link for key, link in self._links.items() if node_id in key and not link.gone]

    def power_off(self, node_id: str) -> None:
        end = self._ends.pop(node_id, None)
        for link in self.links_of(node_id):
            self.reset(link, tell=False)
        if end is not None:
            end.is_open = False

    # Cuts --------------------------------------------------------------------------------------

    def is_cut(self, pipe: Pipe) -> bool:
        return bool(self.cuts) and (pipe.source.life.id, pipe.target.life.id) in self.cuts

    def cut(self, source: str, target: str) -> None:
        """From now on everything this way waits."""
        self.cuts[source, target] = self.cuts.get((source, target), 0) + 1

    def heal(self, source: str, target: str) -> None:
        count = self.cuts.get((source, target), 0) - 1
        if count > 0:
            self.cuts[source, target] = count
            return
        self.cuts.pop((source, target), None)
        link = self._links.get((min(source, target), max(source, target)))
        if link is not None:
            link.pipes[source].schedule()

    def heal_all(self) -> None:
        for source, target in list(self.cuts):
            self.cuts.pop((source, target))
            self.heal(source, target)

    def forge(self, source: str, target: str, message: Message) -> None:
        """Something arrives that the source never said, if the two are connected."""
        link = self._links.get((min(source, target), max(source, target)))
        if link is not None and not link.gone:
            link.pipes[source].push(encode_frame(message, EMPTY))

    def reset_between(self, first: str, second: str) -> None:
        link = self._links.get((min(first, second), max(first, second)))
        if link is not None:
            self.reset(link)
