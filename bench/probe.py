"""A process of its own that asks /livez again and again: a loop that stands still says nothing.

`python -m bench.probe URL PAUSE_MS`, until its standard input ends; then it prints the answers'
times in milliseconds, in the order in which they came. In a process of its own because the load
generator's loop has stalls, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from bench.histogram import Latencies

PAUSE_MS = 10


def main() -> None:
    url, pause_ms = urlsplit(sys.argv[1]), float(sys.argv[2])
    stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    took_ms = []
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    while not stopped.wait(pause_ms / 1000):
        started = time.perf_counter()
        connection.request("GET", "/livez")
        connection.getresponse().read()
        took_ms.append((time.perf_counter() - started) * 1000)
    json.dump(took_ms, sys.stdout)


@contextlib.asynccontextmanager
async def probed(url: str, pause_ms: float = PAUSE_MS) -> AsyncIterator[Latencies]:
    """How long a node took to say that it lives; filled in at the end of the block."""
    answers = Latencies()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.probe", url, str(pause_ms),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield answers
    finally:
        output, _ = await process.communicate(b"")  # ends its input
    for took_ms in json.loads(output):
        answers.add_ms(took_ms)


if __name__ == "__main__":
    main()
