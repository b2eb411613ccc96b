"""A web service that carries its own scheduler: one node inside the same process.

    python examples/sidecar.py          # then: curl -X POST localhost:8090/orders/42

No broker, no second service: the node keeps its jobs in ./data and listens on 127.0.0.1:8000, where
more workers may join. Three copies of the service with QUORATE_PEERS set form a cluster.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from aiohttp import web

from cluster import Node, Settings
from quorate import Context, Scheduler, Worker

settings = Settings.load([], os.environ)
app = Scheduler(f"http://{settings.advertise_http}")


@app.task(queue="orders", max_retries=5, timeout=30)
async def ship(order_id: str, ctx: Context) -> str:
    ctx.progress(0.5, "packing")
    await asyncio.sleep(0.2)
    return f"order {order_id} shipped at attempt {ctx.attempt}"


async def scheduler(service: web.Application) -> AsyncIterator[None]:
    """The node and a worker live exactly as long as the service."""
    async with Node(settings) as node:
        await node.ready()
        async with Worker(app, slots=4, queues=["orders"]):
            yield
            await app.close()
        await app.close()


async def order(request: web.Request) -> web.Response:
    order_id = request.match_info["order_id"]
    handle = await ship.submit(order_id, key=f"order-{order_id}")
    return web.json_response({"job": handle.id, "result": await handle.result(timeout=30)})


def main() -> None:
    service = web.Application()
    service.cleanup_ctx.append(scheduler)
    service.router.add_post("/orders/{order_id}", order)
    port = int(os.environ.get("SIDECAR_PORT", "8090"))
    web.run_app(service, host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
