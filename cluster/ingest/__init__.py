"""Processes that take submissions off the leader's loop: they read, judge and pack, it proposes.

They own the port. What they cannot finish by themselves they pass to the node as an open
connection, with the bytes that came, so the node serves every route exactly as it does alone.
Off unless `ingest` says how many (docs/decisions/009).
"""
