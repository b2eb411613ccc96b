"""The frames of the worker stream: MessagePack arrays `[type, ...]`, decoded into structs in C.

Fields are only ever appended, with defaults: an older peer sends fewer, a newer one more, and both
are understood. Unknown types are ignored by both sides, and types that came later are sent only to
a peer that has said that it `speaks` them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from cluster.actors.services import Assignment, AttemptError, LikeJobs

SUBPROTOCOL = "quorate.msgpack.v1"
LOG_CHARACTERS_MAX = 16_384
MESSAGE_CHARACTERS_MAX = 10_000
JobNumber = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
AttemptNumber = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
CreditCount = Annotated[int, Meta(ge=-100_000, le=100_000)]
LABEL_CHARACTERS_MAX = 128
LABEL = Meta(min_length=1, max_length=LABEL_CHARACTERS_MAX)

COLUMNS = "columns"  # frames `like` and `completed`: jobs in columns

Attempt = tuple[int, int]


class Held(Struct, array_like=True, gc=False):
    """One attempt that a worker has in hand."""

    job_id: JobNumber
    attempt: AttemptNumber


class Offer(Struct):
    """What a worker says of itself. `worker_id` when it was registered before."""

    slots: Annotated[int, Meta(ge=1, le=100_000)] = 1
    name: Annotated[str, Meta(max_length=128)] = ""
    queues: Annotated[list[Annotated[str, LABEL]], Meta(min_length=1)] = field(
        default_factory=lambda: ["default"]
    )
    tasks: list[Annotated[str, LABEL]] = []
    labels: dict[str, str] = {}
    worker_id: str | None = None
    running: list[Held] = []
    speaks: list[str] = []


class Register(Struct, array_like=True, tag="register"):
    offer: Offer


class Credit(Struct, array_like=True, tag="credit", gc=False):
    count: CreditCount


class DoneItem(Struct, array_like=True, gc=False):
    job_id: JobNumber
    attempt: AttemptNumber
    output: bytes | None = None
    log: str | None = None


class Done(Struct, array_like=True, tag="done"):
    seq: int
    items: list[DoneItem]
    credit: CreditCount = 0


class Completed(Struct, array_like=True, tag="completed"):
    """`Done` in columns; `outputs` and `logs` are None when no job has one."""

    seq: int
    job_ids: list[JobNumber]
    attempts: list[AttemptNumber]
    outputs: list[bytes | None] | None = None
    logs: list[str | None] | None = None
    credit: CreditCount = 0

    def __post_init__(self) -> None:
        columns = (self.attempts, self.outputs, self.logs)
        if any(column is not None and len(column) != len(self.job_ids) for column in columns):
            raise ValueError("the columns of a completed frame must have one length")

    @property
    def ids(self) -> list[int]:
        return self.job_ids

    def only(self, indexes: list[int]) -> Completed:
        """Some of these results."""
        outputs, logs = self.outputs, self.logs
        return Completed(
            self.seq,
            [self.job_ids[i] for i in indexes],
            [self.attempts[i] for i in indexes],
            None if outputs is None else [outputs[i] for i in indexes],
            None if logs is None else [logs[i] for i in indexes],
        )

    @classmethod
    def of(cls, frame: Done) -> Completed:
        """The same results in columns."""
        items = frame.items
        outputs, logs = [item.output for item in items], [item.log for item in items]
        return cls(
            frame.seq,
            [item.job_id for item in items],
            [item.attempt for item in items],
            outputs if any(outputs) else None,
            logs if any(logs) else None,
            frame.credit,
        )


def joined(parts: list[Completed]) -> Completed:
    """The results of several frames as one."""
    if len(parts) == 1:
        return parts[0]
    whole = Completed(parts[0].seq, [], [])
    if any(part.outputs for part in parts):
        whole.outputs = []
    if any(part.logs for part in parts):
        whole.logs = []
    for part in parts:
        whole.job_ids += part.job_ids
        whole.attempts += part.attempts
        nothing = [None] * len(part.job_ids)
        if whole.outputs is not None:
            whole.outputs += part.outputs or nothing
        if whole.logs is not None:
            whole.logs += part.logs or nothing
    return whole


class FailedItem(Struct, array_like=True, gc=False):
    job_id: JobNumber
    attempt: AttemptNumber
    error_type: str
    error_message: str
    retryable: bool = True
    log: str | None = None

    def error(self) -> AttemptError:
        """The failure within the limits of what is kept."""
        return AttemptError(
            self.job_id,
            self.attempt,
            self.error_type[:LABEL_CHARACTERS_MAX],
            self.error_message[:MESSAGE_CHARACTERS_MAX],
            self.retryable,
            cut_log(self.log),
        )


class Failed(Struct, array_like=True, tag="failed"):
    seq: int
    items: list[FailedItem]
    credit: CreditCount = 0

    @property
    def ids(self) -> list[int]:
        return [item.job_id for item in self.items]


class Released(Struct, array_like=True, tag="released"):
    seq: int
    items: list[Held]
    credit: CreditCount = 0

    @property
    def ids(self) -> list[int]:
        return [item.job_id for item in self.items]


class ProgressItem(Struct, array_like=True, gc=False):
    job_id: JobNumber
    attempt: AttemptNumber
    fraction: float | None = None
    message: str | None = None


class Progress(Struct, array_like=True, tag="progress"):
    items: list[ProgressItem]


class LogItem(Struct, array_like=True, gc=False):
    job_id: JobNumber
    attempt: AttemptNumber
    text: str


class Log(Struct, array_like=True, tag="log"):
    items: list[LogItem]


class Heartbeat(Struct, array_like=True, tag="heartbeat"):
    """A sign of life."""


class Drain(Struct, array_like=True, tag="drain"):
    """The worker wants nothing more."""


class Bye(Struct, array_like=True, tag="bye"):
    """The worker leaves for good."""


Incoming = (
    Register
    | Credit
    | Done
    | Completed
    | Failed
    | Released
    | Progress
    | Log
    | Heartbeat
    | Drain
    | Bye
)
Results = Completed | Failed | Released
KNOWN = frozenset(
    ("register", "credit", "done", "completed", "failed", "released", "progress", "log",
     "heartbeat", "drain", "bye")
)  # fmt: skip

_decode = msgspec.msgpack.Decoder(Incoming).decode
_decode_any = msgspec.msgpack.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


class BadFrame(Exception):
    """A frame that breaks the protocol; the message goes to the worker."""


def decode(data: bytes) -> Incoming | None:
    """A frame; None for one of a type that this release does not know. Raises BadFrame."""
    try:
        frame: Incoming = _decode(data)
    except msgspec.DecodeError as error:
        if _is_foreign(data):
            return None
        raise BadFrame(str(error)) from None
    except RecursionError:
        raise BadFrame("nested too deeply") from None
    return frame


def _is_foreign(data: bytes) -> bool:
    try:
        frame: Any = _decode_any(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    if not isinstance(frame, list) or not frame or not isinstance(frame[0], str):
        return False
    return frame[0] not in KNOWN


def cut_log(text: str | None) -> str | None:
    """The kept end of a log."""
    return text if text is None or len(text) <= LOG_CHARACTERS_MAX else text[-LOG_CHARACTERS_MAX:]


def registered(worker_id: int, ttl_s: float, drop: list[Attempt], columns: bool) -> bytes:
    answer: tuple[Any, ...] = ("registered", f"w{worker_id}", ttl_s, drop)
    return _encode((*answer, [COLUMNS]) if columns else answer)


def jobs(assignments: list[Assignment]) -> bytes:
    return _encode(("jobs", assignments))


def like(jobs: LikeJobs) -> bytes:
    return _encode(jobs)


def cancel(attempts: list[Attempt]) -> bytes:
    return _encode(("cancel", attempts))


def stop(attempts: list[Attempt]) -> bytes:
    return _encode(("stop", attempts))


def ack(seq: int, refused: list[int]) -> bytes:
    return _encode(("ack", seq, refused))


def moved(leader: str | None) -> bytes:
    return _encode(("moved", leader))


def error(code: str, message: str) -> bytes:
    return _encode(("error", code, message))


DRAIN = _encode(("drain",))
HEARTBEAT = _encode(("heartbeat",))
