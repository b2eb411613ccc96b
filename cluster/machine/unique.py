"""Keys that make submission idempotent: per request and per job.

A request key remembers the answer of one submission; a unique key names one live job and outlives
it by its TTL. Both live in the replicated state, or they would break at the first failover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.commands import SubmitJobs
from cluster.machine.results import Rejected, Submitted
from cluster.machine.tables import JobExtra, KeyRecord, UniqueRecord

if TYPE_CHECKING:
    from cluster.machine.state import State

REQUEST, UNIQUE = "r:", "u:"


def find_request(state: State, command: SubmitJobs) -> Submitted | Rejected | None:
    """What this request key answered before, if it did."""
    record = state.tables.requests.get(command.request_key)
    if record is None:
        return None
    if record.fingerprint != command.fingerprint:
        return Rejected.KEY_MISMATCH
    return Submitted(record.first, record.count, record.ids, replayed=True)


def remember_request(state: State, command: SubmitJobs, result: Submitted) -> None:
    expires_ms = max(state.now_ms + command.request_ttl_ms, 1)  # 0 would mean never
    state.tables.requests[command.request_key] = KeyRecord(
        command.fingerprint, result.first, result.count, result.ids, expires_ms
    )
    state.timers.expire_key(REQUEST + command.request_key, expires_ms)


def hold_unique(state: State, key: str, job_id: int) -> None:
    state.tables.uniques[key] = UniqueRecord(job_id, 0)


def can_hold_again(state: State, extra: JobExtra, job_id: int) -> bool:
    """Whether a finished job may come back under its key: nobody else has it."""
    record = state.tables.uniques.get(extra.unique_key)
    return record is None or record.job_id == job_id


def release_unique(state: State, extra: JobExtra, job_id: int) -> None:
    """The job is finished: its key goes at once, or stays for its TTL."""
    record = state.tables.uniques.get(extra.unique_key)
    if record is None or record.job_id != job_id:
        return
    if extra.unique_ttl_ms <= 0:
        del state.tables.uniques[extra.unique_key]
        return
    record.expires_ms = state.now_ms + extra.unique_ttl_ms
    state.timers.expire_key(UNIQUE + extra.unique_key, record.expires_ms)


def forget_keys(state: State, bucket_ms: int) -> None:
    """The bucket's keys expire, but for those renewed since."""
    for prefixed in state.timers.take_keys(bucket_ms):
        prefix, key = prefixed[:2], prefixed[2:]
        table: dict[str, KeyRecord] | dict[str, UniqueRecord] = (
            state.tables.requests if prefix == REQUEST else state.tables.uniques
        )
        record = table.get(key)
        if record is not None and 0 < record.expires_ms <= bucket_ms:
            del table[key]
