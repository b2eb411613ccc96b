"""Dramatiq on Redis; no bulk call, so 16 threads send."""

from __future__ import annotations

import dramatiq
import kit
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=kit.URL)
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(text: str) -> None:
    kit.ran(text)


def left() -> int:
    """Messages stay in the hash from being sent until they are acknowledged."""
    return int(broker.client.hlen("dramatiq:default.msgs"))


if __name__ == "__main__":
    kit.drive(lambda texts: noop.send(texts[0]), left)
