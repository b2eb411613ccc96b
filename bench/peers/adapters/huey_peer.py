"""Huey on Redis; no bulk call, so 16 threads enqueue. Takes a job off the queue before it runs."""

from __future__ import annotations

import kit
from huey import RedisHuey

huey = RedisHuey("peers", url=kit.URL or "redis://127.0.0.1", results=False)


@huey.task()
def noop(text: str) -> None:
    kit.ran(text)


def main() -> None:
    kit.drive(lambda texts: noop(texts[0]), huey.pending_count)


if __name__ == "__main__":
    # A message names the task's module, which must be the same in both processes.
    from huey_peer import main as main_by_name

    main_by_name()
