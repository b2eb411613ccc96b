"""What is kept of a finished job.

Fields are only ever appended, with defaults, so that old rows stay readable. Times are epoch
milliseconds, 0 means none. Payload and output are opaque.
"""

from collections.abc import Sequence

import msgspec


class HistoryError(Exception):
    """The history cannot be read or written; the message names the file and the fix."""


class HistoryDamagedError(HistoryError):
    """What is in the file is not what was written; trying again does not help. `chunk_id` names the
    one chunk that it is about, 0: it is not about one."""

    chunk_id = 0


class PastAttempt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One attempt that did not complete the job."""

    attempt: int
    worker_id: int
    started_ms: int
    ended_ms: int
    outcome: str
    error_type: str = ""
    error_message: str = ""
    log: str = ""


class FinishedJob(msgspec.Struct, array_like=True, frozen=True, gc=False, kw_only=True):
    """A job's last row. `index` is the position in the Raft log that finished it."""

    job_id: int
    index: int
    status: str
    name: str
    queue: str = "default"
    tags: tuple[str, ...] = ()
    finished_ms: int = 0
    created_ms: int = 0
    run_at_ms: int = 0
    started_ms: int = 0
    attempt: int = 0
    failures: int = 0
    worker_id: int = 0
    payload: bytes = b""
    output: bytes | None = None
    error_type: str = ""
    error_message: str = ""
    log: str = ""
    schedule_id: str = ""
    nominal_ms: int = 0
    unique_key: str = ""
    expires_at_ms: int = 0
    deadline_ms: int = 0
    attempts: tuple[PastAttempt, ...] = ()
    spec: bytes = b""  # whatever else the view of a job needs


class PastEvent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What happened to a schedule, `count` times in a row. `seq` is its place in the Raft log."""

    seq: int
    schedule_id: str
    at_ms: int
    kind: str
    nominal_ms: int = 0
    last_ms: int = 0
    count: int = 1
    reason: str = ""
    job_id: int = 0


class Query(msgspec.Struct, frozen=True):
    """What a listing asks for; None matches everything."""

    status: str | None = None
    queue: str | None = None
    name: str | None = None
    tag: str | None = None

    def accepts(self, status: str, queue: str, name: str, tags: Sequence[str]) -> bool:
        return (
            (self.status is None or status == self.status)
            and (self.queue is None or queue == self.queue)
            and (self.name is None or name == self.name)
            and (self.tag is None or self.tag in tags)
        )
