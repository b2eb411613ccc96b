"""I9: the same log makes the same state, on every node and through every snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life
    from chaos.sim.raft.world import World


class Digests:
    def __init__(self, world: World) -> None:
        self._world = world
        self._by_index: dict[int, int] = {}
        self._restored: dict[Life, int] = {}

    def applied(self, life: Life, index: int, digest: int) -> None:
        known = self._by_index.setdefault(index, digest)
        if known != digest:
            self._world.fail(f"{life.id} has digest {digest:08x} at {index}, others {known:08x}")

    def restored(self, life: Life, digest: int) -> None:
        """A snapshot was loaded; how far it reaches shows when the node has taken it on."""
        self._restored[life] = digest

    def look(self, life: Life) -> None:
        digest = self._restored.pop(life, None)
        if digest is None or life.probe is None:
            return
        index = applied = life.probe.mark()[4]
        while index > 1 and index not in self._by_index:
            index -= 1
        if index > 1 and self._by_index[index] != digest:
            self._world.fail(
                f"{life.id} restored digest {digest:08x} at {applied}, "
                f"others had {self._by_index[index]:08x} at {index}"
            )
