"""The command line of a node: settings, logging, signals, exit codes.

Exit codes: 0 stopped as asked, 1 could not start, 2 bad settings, 70 broken disk or invariant.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence

from cluster.consensus.interface import exit_process
from cluster.history import HistoryError
from cluster.node import Node
from cluster.preflight import NodeStartError
from cluster.settings import Settings, SettingsError
from cluster.vitals.descriptors import raise_limit, shortage
from cluster.vitals.heap import share_one_heap

# Rows are not tracked by the collector and nothing in the node forms cycles on the hot path, so
# collections are rare; start-up garbage is frozen out of every later one. The first two generations
# are small, because a collection stops the loop for a tenth of a microsecond per object or more.
GC_THRESHOLDS = (5_000, 4, 2_500)

log = logging.getLogger("quorate")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a node until SIGTERM or SIGINT. Returns the exit code."""
    share_one_heap()
    try:
        settings = Settings.load(sys.argv[1:] if argv is None else argv, os.environ)
    except SettingsError as error:
        print(f"quorate: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)s %(name)s [{settings.name}] %(message)s",
    )
    try:
        return _run(settings)
    except KeyboardInterrupt:
        return 0


def _run(settings: Settings) -> int:
    try:
        import uvloop
    except ImportError:  # not to be had on this platform; asyncio's own loop does as well
        return asyncio.run(_serve(settings))
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    for warning in settings.warnings():
        log.warning(warning)
    raise_limit()
    scarce = shortage(settings.connections_expected)
    if scarce is not None:
        log.warning(scarce)
    node = Node(settings, on_stuck=exit_process, once_serving=_settle_memory)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        started = await _start(node, stop)
    except (NodeStartError, HistoryError) as error:
        print(f"quorate: {error}", file=sys.stderr)
        return 1
    if not started:
        return 0
    await stop.wait()
    log.info("stopping")
    await node.stop()
    return 0


def _settle_memory() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _start(node: Node, stop: asyncio.Event) -> bool:
    """False if the node was asked to stop first: one that waits to be let in may wait for long."""
    starting = asyncio.create_task(node.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        starting.result()
        return True
    log.info("stopping before the start was complete")
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError, NodeStartError, HistoryError):
        await starting
        await node.stop()
    return False


if __name__ == "__main__":
    sys.exit(main())
