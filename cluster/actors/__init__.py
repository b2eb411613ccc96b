"""Leader duties and node-local services as asyncio actors under a supervisor.

Actors never cross machines: between nodes there is only the Raft log, snapshots and HTTP.
"""
