"""Deterministic simulation: the real machine and the real leader actors on virtual time.

One seed is one history, byte for byte. What is simulated and what is real, and how a failing seed
is replayed, is told in docs/simulation.md.
"""
