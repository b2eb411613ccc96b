"""Progress and live logs of running jobs, in the leader's memory only.

Bounded and lossy by design: what must survive a failover comes with the job's result.
"""

from __future__ import annotations

from cluster.machine.effects import Effects
from cluster.raft_state import RaftState

LOG_CHARS_MAX = 16_384
JOBS_MAX = 100_000

Progress = tuple[float | None, str | None]


class LiveBoard:
    """What running jobs say about themselves."""

    def __init__(self, raft: RaftState) -> None:
        self._progress: dict[int, Progress] = {}
        self._logs: dict[int, list[tuple[int, str]]] = {}
        raft.on_effects(self._on_effects)

    def set_progress(self, job_id: int, fraction: float | None, message: str | None) -> None:
        if job_id in self._progress or len(self._progress) < JOBS_MAX:
            self._progress[job_id] = (fraction, message)

    def progress(self, job_id: int) -> Progress | None:
        return self._progress.get(job_id)

    def add_log(self, job_id: int, attempt: int, text: str) -> None:
        """Append; the oldest text makes room beyond the bound."""
        if job_id not in self._logs and len(self._logs) >= JOBS_MAX:
            return
        parts = self._logs.setdefault(job_id, [])
        if parts and parts[-1][0] == attempt:
            parts[-1] = (attempt, (parts[-1][1] + text)[-LOG_CHARS_MAX:])
        else:
            parts.append((attempt, text[-LOG_CHARS_MAX:]))

    def log_text(self, job_id: int) -> list[tuple[int, str]]:
        """`(attempt, text)` of what has arrived live so far."""
        return list(self._logs.get(job_id, ()))

    def _on_effects(self, effects: Effects, index: int) -> None:
        if not self._progress and not self._logs:
            return
        for finished in effects.jobs_finished:
            self._progress.pop(finished.job.id, None)
            self._logs.pop(finished.job.id, None)
        for job in effects.jobs_ready:
            # The attempt is over; its log came with the failure, if there was one.
            self._progress.pop(job.id, None)
            self._logs.pop(job.id, None)
