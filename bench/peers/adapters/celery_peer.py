"""Celery on Redis; no bulk call, so 16 threads apply_async. Acks early, as is its default."""

from __future__ import annotations

import kit
import redis
from celery import Celery

app = Celery("celery_peer", broker=kit.URL)
app.conf.update(
    task_ignore_result=True,
    broker_pool_limit=16,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=100,
)


@app.task(name="noop")
def noop(text: str) -> None:
    kit.ran(text)


def main() -> None:
    server = redis.Redis.from_url(kit.URL)
    kit.drive(
        lambda texts: noop.delay(texts[0]),
        lambda: server.llen("celery") + server.hlen("unacked"),
    )


if __name__ == "__main__":
    main()
