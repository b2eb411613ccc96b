"""A web service that carries its own scheduler: one node inside the same process.

    python examples/sidecar.py          # then: curl -X POST localhost:8090/orders/42

No broker, no second service: the node listens on 127.0.0.1:8000 for workers and keeps its jobs in
./data-sidecar. Three copies of the service with `peers` set would form a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from cluster import Node, Settings
from quorate import Context, Scheduler, Worker

app = Scheduler("http://127.0.0.1:8000")


@app.task(queue="orders", max_retries=5, timeout=30)
async def ship(order_id: str, ctx: Context) -> str:
    ctx.progress(0.5, "packing")
    await asyncio.sleep(0.2)
    return f"order {order_id} shipped at attempt {ctx.attempt}"


async def scheduler(service: web.Application) -> AsyncIterator[None]:
    """The node and a worker live exactly as long as the service."""
    settings = Settings(listen="127.0.0.1:7000", data=Path("data-sidecar"))
    async with Node(settings) as node:
        await node.ready()
        async with Worker(app, slots=4, queues=["orders"]):
            yield


async def order(request: web.Request) -> web.Response:
    order_id = request.match_info["order_id"]
    handle = await ship.submit(order_id, key=f"order-{order_id}")
    return web.json_response({"job": handle.id, "result": await handle.result(timeout=30)})


def main() -> None:
    service = web.Application()
    service.cleanup_ctx.append(scheduler)
    service.router.add_post("/orders/{order_id}", order)
    web.run_app(service, host="127.0.0.1", port=8090)


if __name__ == "__main__":
    main()
