"""RQ on Redis: enqueue_many through a pipeline; SimpleWorker, which does not fork for each job."""

from __future__ import annotations

import kit
import redis
from rq import Queue


def noop(text: str) -> None:
    kit.ran(text)


def main() -> None:
    server = redis.Redis.from_url(kit.URL)
    queue = Queue("default", connection=server)

    def submit(texts: list[str]) -> None:
        if len(texts) == 1:
            queue.enqueue("rq_peer.noop", texts[0], result_ttl=0)
        else:
            queue.enqueue_many(
                [Queue.prepare_data("rq_peer.noop", (text,), result_ttl=0) for text in texts]
            )

    kit.drive(submit, lambda: queue.count + queue.started_job_registry.count, chunk=1_000, lanes=2)


if __name__ == "__main__":
    main()
