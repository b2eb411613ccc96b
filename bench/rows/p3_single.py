"""P3: one job per POST over 32 connections, against a bare aiohttp echo server, in turn."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp

from bench.harness import (
    QUIET,
    Result,
    Scale,
    bare_echo,
    by_status,
    job_json,
    replicas_equal,
)
from chaos.live.processes import LocalCluster

CONNECTIONS = 32
ROUNDS = 3


async def _post_all(url: str, body: bytes, count: int, expected: int) -> float:
    """Requests per second."""
    left = count
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client() -> None:
            nonlocal left
            headers = {"Content-Type": "application/json"}
            while left > 0:
                left -= 1
                async with session.post(url, data=body, headers=headers) as response:
                    await response.read()
                    if response.status != expected:
                        raise RuntimeError(f"POST {url}: {response.status}")

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
        return count / (time.perf_counter() - started)


async def measure(scale: Scale, folder: Path) -> list[Result]:
    body = job_json("noop")
    async with LocalCluster(folder, flags=QUIET) as cluster, bare_echo(cluster, folder) as echo:
        leader = await cluster.leader()
        ours, theirs = [], []
        for _ in range(ROUNDS):
            count = scale.singles // ROUNDS
            theirs.append(await _post_all(echo, body, count, 200))
            ours.append(await _post_all(f"{leader.url}/v1/jobs", body, count, 201))
        expected = ROUNDS * (scale.singles // ROUNDS)
        holds = (await by_status(cluster))["pending"] == expected and await replicas_equal(cluster)
    rate, echo_rate = sorted(ours)[ROUNDS // 2], sorted(theirs)[ROUNDS // 2]
    figures = {
        "rate": f"{rate:,.0f} jobs/s",
        "bare echo": f"{echo_rate:,.0f} requests/s",
        "ratio": f"{rate / echo_rate:.0%}",
    }
    return [Result("P3", "single-job POST, 32 connections", figures, ">= 60 % of echo", holds)]
