"""Keeps actors alive: a crashed one is restarted, one that keeps crashing ends the whole group.

The tree is data: a group is a list of actors, and groups start and stop as one. Leader duties are
such a group. At most `RESTARTS_MAX` restarts of an actor in `WINDOW_S`, then `on_give_up`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from cluster.actors.actor import Actor

log = logging.getLogger("quorate.actors")

RESTARTS_MAX = 5
WINDOW_S = 60.0


class Supervisor:
    """One-for-one supervision of a group of actors."""

    def __init__(self, actors: Sequence[Actor], on_give_up: Callable[[str], None]) -> None:
        self._actors = actors
        self._on_give_up = on_give_up
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.restarts_total = 0

    @property
    def is_running(self) -> bool:
        return bool(self._tasks)

    def waiting(self) -> dict[str, int]:
        """Messages in each mailbox."""
        return {f"{actor.name}.mailbox": actor.waiting for actor in self._actors}

    def start(self) -> None:
        """Start every actor of the group. Idempotent."""
        for actor in self._actors:
            if actor.name not in self._tasks:
                self._tasks[actor.name] = asyncio.create_task(
                    self._keep(actor), name=f"actor:{actor.name}"
                )

    def stop(self) -> list[asyncio.Task[None]]:
        """Stop at once; the returned tasks are done when every `on_stop` has run."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        return tasks

    async def stopped(self) -> None:
        tasks = self.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, actor: Actor) -> None:
        loop = asyncio.get_running_loop()
        crashes: deque[float] = deque()
        while True:
            try:
                await actor.run()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("actor %s crashed; restarting it", actor.name)
            now = loop.time()
            crashes.append(now)
            while crashes and now - crashes[0] > WINDOW_S:
                crashes.popleft()
            if len(crashes) > RESTARTS_MAX:
                log.critical("actor %s crashed %d times; giving up", actor.name, len(crashes))
                self._on_give_up(actor.name)
                return
            self.restarts_total += 1
            # Let others run first: an actor that fails in on_start must not spin.
            await asyncio.sleep(0.01 * len(crashes))
