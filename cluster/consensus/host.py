"""What one consensus node takes from its surroundings, so that they can be simulated.

The real ones are sockets, a disk thread, threads for slow calls and a forked child. Clock and
chance are replaced in `pin`, because the engine reads them as module globals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from .child import AsideWork, ForkedChild
from .counters import Counters
from .disk import Disk, DiskThread
from .interface import ConsensusConfig
from .mesh import Mesh, Network
from .segments import Batch, SegmentFiles
from .storage import FILES, Storage

T = TypeVar("T")
OnDurable = Callable[[Batch, float, int, int], None]


class HostNetwork(Network, Protocol):
    """The network as the shell sees it: with a life, and with facts for the status page."""

    vet: Callable[[str, str], str]  # why (node id, data folder id) is not to be talked with, or ""

    def bind(self) -> None: ...
    def release(self) -> None: ...
    def identify(self, cluster_id: bytes, folder_id: str) -> None:
        """Before `start()`: what this node says of itself."""

    async def introduce(self) -> bytes:
        """The cluster's id, as a member tells it to a node that waits to be added."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    def abort(self) -> None: ...
    def meta(self, peer: str) -> dict[str, str]: ...
    def last_contact_ms(self, peer: str) -> float | None: ...


class HostDisk(Disk, Protocol):
    def abandon(self) -> None: ...


class Aside(Protocol):
    """Work on a frozen copy of the state, beside the running loop."""

    async def run(self, work: AsideWork) -> None: ...
    def kill(self) -> None: ...


class Host(Protocol):
    timer_s: float  # how often a node with work to do looks at its clock
    storage: Storage

    def open_network(
        self,
        config: ConsensusConfig,
        key: bytes,
        counters: Counters,
        wake: Callable[[], None],
    ) -> HostNetwork: ...

    def open_disk(
        self, files: SegmentFiles, on_durable: OnDurable, on_error: Callable[[str], None]
    ) -> HostDisk: ...

    async def offload(self, job: Callable[[], T]) -> T:
        """Runs a slow call where it does not hold up the loop."""

    def aside(self) -> Aside: ...


class RealHost:
    timer_s = 0.01
    storage: Storage = FILES

    def open_network(
        self,
        config: ConsensusConfig,
        key: bytes,
        counters: Counters,
        wake: Callable[[], None],
    ) -> HostNetwork:
        return Mesh(config, key, counters, wake)

    def open_disk(
        self, files: SegmentFiles, on_durable: OnDurable, on_error: Callable[[str], None]
    ) -> HostDisk:
        post = asyncio.get_running_loop().call_soon_threadsafe
        return DiskThread(files, post, on_durable, on_error)

    async def offload(self, job: Callable[[], T]) -> T:
        return await asyncio.to_thread(job)

    def aside(self) -> Aside:
        return ForkedChild()
