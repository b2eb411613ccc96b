"""Deterministic simulation of consensus as shipped: real journals, snapshots and machine.

`world.py` tells one history; what is real in it and what is not stands in docs/simulation.md.
"""
