"""One heap for all threads of a node.

glibc gives each thread an arena of its own. What a start reads of the journal in a thread fills
that arena, and when it is let go later the event loop, whose log grows in another, cannot have
it: a node that was restarted kept up to 200 MiB more than one that was not. Threads here hold
Python's lock or wait for a disk most of the time, so they do not get into each other's way.
"""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> None:
    """Before there are threads. Does nothing where the C library is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
