"""The replicated state machine: pure, deterministic, total.

`apply(state, batch)` is the only way in. Nothing here reads a clock, draws a random number, does
input or output, or knows that a network exists: every node that applies the same batches holds the
same state, and a replay of the log is exact.
"""
