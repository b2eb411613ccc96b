"""What every adapter shares; runs in a peer's own environment, so only the standard library.

An adapter is both sides of a peer: the client, which takes orders from the harness on stdin, and
the task. Both write the same records, so that every peer is judged by the same clock and ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

RECORD = struct.Struct("<qq")  # number of the job, nanoseconds since 1970
PAYLOAD_BYTES = 100
NUMBER_DIGITS = 12
PACE_THREADS = 8

Order = dict[str, Any]
Answer = dict[str, int]

URL = os.environ.get("PEERS_URL", "")
_ran: int | None = None


def payload(number: int) -> str:
    """The job's number, padded to 100 bytes."""
    return f"{number:0{NUMBER_DIGITS}d}".ljust(PAYLOAD_BYTES, "x")


def ran(text: str) -> None:
    """All that a task does: write down which job started, and when. One write, so never torn."""
    global _ran
    now_ns = time.time_ns()
    if _ran is None:
        path = Path(os.environ["PEERS_RECORDS"], f"ran-{os.getpid()}.bin")
        _ran = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(_ran, RECORD.pack(int(text[:NUMBER_DIGITS]), now_ns))


def sent(records: list[tuple[int, int]]) -> None:
    with Path(os.environ["PEERS_RECORDS"], "sent.bin").open("ab") as file:
        file.writelines(RECORD.pack(number, at_ns) for number, at_ns in records)


def orders() -> Iterator[Order]:
    """The harness's orders, one JSON object per line, until it closes the pipe."""
    print(json.dumps({"ready": 1}), flush=True)
    for line in sys.stdin:
        yield json.loads(line)


def chunks(order: Order, chunk: int) -> Iterator[list[str]]:
    """Payloads made beforehand, so that making them is not measured."""
    first, count = order["first"], order["count"]
    texts = iter([payload(number) for number in range(first, first + count)])
    return iter(lambda: list(islice(texts, chunk)), [])


def due(order: Order) -> Iterator[tuple[int, float]]:
    """Number and monotonic due time of each job of a paced run."""
    start = time.monotonic()
    for index in range(order["count"]):
        yield order["first"] + index, start + index / order["rate"]


def drive(
    submit: Callable[[list[str]], object], left: Callable[[], int], *, chunk: int = 1,
    lanes: int = 16,
) -> None:  # fmt: skip
    """Serve orders with a blocking client: `lanes` threads submit `chunk` payloads per call."""
    for order in orders():
        if order["do"] == "submit":
            answer = _submit(order, submit, chunk, lanes)
        elif order["do"] == "pace":
            answer = _pace(order, submit)
        else:
            answer = {"left": left()}
        print(json.dumps(answer), flush=True)


def _submit(order: Order, submit: Callable[[list[str]], object], chunk: int, lanes: int) -> Answer:
    todo, lock = chunks(order, chunk), threading.Lock()

    def lane() -> None:
        while True:
            with lock:
                texts = next(todo, None)
            if texts is None:
                return
            submit(texts)

    with ThreadPoolExecutor(lanes) as pool:
        began_ns = time.time_ns()
        for future in [pool.submit(lane) for _ in range(lanes)]:
            future.result()
    return {"began_ns": began_ns, "ended_ns": time.time_ns()}


def _pace(order: Order, submit: Callable[[list[str]], object]) -> Answer:
    def one(number: int) -> tuple[int, int]:
        text, now_ns = payload(number), time.time_ns()
        submit([text])
        return number, now_ns

    with ThreadPoolExecutor(PACE_THREADS) as pool:
        began_ns, futures = time.time_ns(), []
        for number, at in due(order):
            time.sleep(max(at - time.monotonic(), 0))
            futures.append(pool.submit(one, number))
        sent([future.result() for future in futures])
    return {"began_ns": began_ns, "ended_ns": time.time_ns()}


async def drive_async(
    submit: Callable[[list[str]], Awaitable[object]], left: Callable[[], Awaitable[int]], *,
    chunk: int = 1, lanes: int = 32,
) -> None:  # fmt: skip
    """Serve orders with an asyncio client: `lanes` tasks submit `chunk` payloads per call."""
    todo = orders()
    while (order := await asyncio.to_thread(next, todo, None)) is not None:
        if order["do"] == "submit":
            answer = await _submit_async(order, submit, chunk, lanes)
        elif order["do"] == "pace":
            answer = await _pace_async(order, submit)
        else:
            answer = {"left": await left()}
        print(json.dumps(answer), flush=True)


async def _submit_async(
    order: Order, submit: Callable[[list[str]], Awaitable[object]], chunk: int, lanes: int
) -> Answer:
    todo = chunks(order, chunk)

    async def lane() -> None:
        for texts in todo:
            await submit(texts)

    began_ns = time.time_ns()
    await asyncio.gather(*(lane() for _ in range(lanes)))
    return {"began_ns": began_ns, "ended_ns": time.time_ns()}


async def _pace_async(order: Order, submit: Callable[[list[str]], Awaitable[object]]) -> Answer:
    async def one(number: int) -> tuple[int, int]:
        text, now_ns = payload(number), time.time_ns()
        await submit([text])
        return number, now_ns

    began_ns, tasks = time.time_ns(), []
    for number, at in due(order):
        await asyncio.sleep(max(at - time.monotonic(), 0))
        tasks.append(asyncio.create_task(one(number)))
    sent(await asyncio.gather(*tasks))
    return {"began_ns": began_ns, "ended_ns": time.time_ns()}
