"""What is known of one run once it is over: told by clients, by workers and by the nodes.

Plain data without a process behind it, so that tests can doctor it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]  # a job as a node lists it
ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Request:
    """A submission or a cancellation by one client, over all its repetitions.

    `sent_s` is when it was asked first; `job_ids` holds what each definite answer named."""

    sent_s: float
    key: str
    payloads: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...] = ()
    delay_s: float = 0.0
    unique_key: str = ""

    def __str__(self) -> str:
        answers = " and ".join(", ".join(ids) for ids in self.answers) or "nothing"
        return f"{self.sent_s:.3f} submitted under {self.key}, answered {answers}"


@dataclass(frozen=True)
class Cancel:
    sent_s: float
    job_id: str
    outcome: str  # "done", "refused" or "unknown"


@dataclass
class Run:
    """One execution on a worker; `ended_s` stays empty when the worker died in it."""

    job_id: str
    attempt: int
    worker: str
    begun_s: float
    ended_s: float | None = None
    outcome: str = ""  # what the worker was going to report


@dataclass(frozen=True)
class Omission:
    """Occurrences that were not launched, from the first to the last, and why."""

    first_ms: int
    last_ms: int
    count: int
    reason: str


@dataclass
class Recurrence:
    """A schedule with one occurrence every `step_ms`, and the time that it is answerable for."""

    step_ms: int
    from_ms: int
    until_ms: int
    launched: list[tuple[int, str]] = field(default_factory=list)  # nominal time, job id
    omitted: list[Omission] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)  # nominal times that wait for another run


@dataclass
class History:
    requests: list[Request] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    nodes: dict[str, dict[str, Row]] = field(default_factory=dict)  # node name -> job id -> row
    timelines: dict[str, list[Row]] = field(default_factory=dict)  # job id -> events
    recurrences: dict[str, Recurrence] = field(default_factory=dict)
    digests: dict[str, tuple[int, str]] = field(default_factory=dict)  # node name -> at, digest
    clocks_apart_s: float = 0.0  # that nodes were to believe, one after the other
    slots: int = 0  # of each worker; 0: not known
    # Nodes that lost their data: they need not know what ended before they came back.
    replaced: set[str] = field(default_factory=set)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Every job as every node has it."""
        for name, rows in self.nodes.items():
            for row in rows.values():
                yield name, row

    @property
    def jobs(self) -> dict[str, Row]:
        """Every job once, as whichever node tells it."""
        return {job_id: row for rows in self.nodes.values() for job_id, row in rows.items()}


@dataclass(frozen=True)
class Fault:
    """A promise that was broken. `job_id` may be empty."""

    rule: str
    text: str
    job_id: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"
