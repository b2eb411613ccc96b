"""Whole-system benchmarks: real processes, real sockets, outcomes checked."""
