"""Who leads, as the nodes tell it."""

from __future__ import annotations

import random

import aiohttp
import msgspec

from .link import LinkLost

CONNECT_SECONDS = 3.0
SECOND_OPINION_SECONDS = 1.0


class LeaderFinder:
    """Asks the nodes, unless one has said where to go: that is the `hint`, and good for once."""

    def __init__(self, nodes: list[str]) -> None:
        self._nodes = nodes
        self.hint: str | None = None
        self.session: aiohttp.ClientSession | None = None

    async def leader(self) -> str:
        """The URL of the node to connect to. LinkLost when none answers."""
        hint, self.hint = self.hint, None
        if hint is not None:
            return hint
        nodes = list(self._nodes)
        random.shuffle(nodes)
        reachable: str | None = None
        for node in nodes:
            try:
                leader = await self._ask(node, CONNECT_SECONDS)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                continue
            if leader is not None:
                return leader
            reachable = node
        if reachable is None:
            raise LinkLost(f"none of {', '.join(self._nodes)} answers")
        return reachable  # it does not know a leader, but may be one by the time we are there

    async def another_leads(self, url: str) -> bool:
        """Whether another node than this, asked at random, follows yet another or leads itself;
        that one is the hint then."""
        others = [node for node in self._nodes if node.rstrip("/") != url]
        if not others:
            return False
        try:
            leader = await self._ask(random.choice(others), SECOND_OPINION_SECONDS)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False
        if leader is None or leader == url:
            return False
        self.hint = leader
        return True

    async def _ask(self, node: str, seconds: float) -> str | None:
        assert self.session is not None
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self.session.get(f"{node}/v1/cluster", timeout=timeout) as answer:
            view = msgspec.json.decode(await answer.read())
        leader = view.get("leader") if isinstance(view, dict) else None
        if isinstance(leader, dict):
            leader = leader.get("http")
        if not isinstance(leader, str) or not leader:
            return None
        return (leader if "://" in leader else f"http://{leader}").rstrip("/")
