"""Quorate's server side. The map, from the top down (each layer imports only what stands below):

    main, node      one process, one node: settings -> raft_state -> actors -> api
    api/            HTTP edge and worker stream (aiohttp)
    actors/         leader duties and node services (asyncio)
    raft_state      joins the machine with consensus; one replicated entry point, a batch
    projections/    what each node derives from effects: ready queues, metrics
    history/        finished jobs of this node, in SQLite
    machine/        the pure replicated state machine
    consensus/      pysyncobj behind an adapter: transport, journal, snapshots, guards
    policy/         decisions of the leader: retries, fire times
    timerwheel, settings, clock

To embed a node in another asyncio program:

    from cluster import Node
    async with Node.from_toml("node.toml") as node:
        await node.ready()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.settings import Settings, SettingsError

__all__ = ["Node", "Settings", "SettingsError"]


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that `import cluster` costs nothing."""
    if name == "Node":
        from cluster.node import Node

        return Node
    if name in ("Settings", "SettingsError"):
        from cluster import settings

        return getattr(settings, name)
    raise AttributeError(f"module 'cluster' has no attribute {name!r}")
