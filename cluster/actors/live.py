"""Progress and live logs of running jobs, in the leader's memory only.

Bounded and lossy by design: what must survive a failover comes with the job's result.
"""

from __future__ import annotations

from cluster.machine.effects import Effects
from cluster.machine.state import State
from cluster.machine.tables import Job
from cluster.raft_state import RaftState

LOG_CHARS_MAX = 16_384  # per attempt
LOGS_CHARS_MAX = 64 << 20  # all jobs: beyond it the jobs whose log began first lose theirs
MESSAGE_CHARS_MAX = 1_000
JOBS_MAX = 100_000

Progress = tuple[float | None, str | None]


class LiveBoard:
    """What running jobs say about themselves."""

    def __init__(self, raft: RaftState) -> None:
        self._progress: dict[int, Progress] = {}
        self._logs: dict[int, list[tuple[int, str]]] = {}
        self._logs_chars = 0
        raft.on_effects(self._on_effects)
        raft.on_restored(self._on_restored)

    def set_progress(self, job_id: int, fraction: float | None, message: str | None) -> None:
        if job_id in self._progress or len(self._progress) < JOBS_MAX:
            shown = message[:MESSAGE_CHARS_MAX] if message is not None else None
            self._progress[job_id] = (fraction, shown)

    def progress(self, job_id: int) -> Progress | None:
        return self._progress.get(job_id)

    def add_log(self, job_id: int, attempt: int, text: str) -> None:
        """Append; the oldest text makes room beyond the bound."""
        if job_id not in self._logs and len(self._logs) >= JOBS_MAX:
            return
        parts = self._logs.setdefault(job_id, [])
        if not parts or parts[-1][0] != attempt:
            parts.append((attempt, ""))
        before = parts[-1][1]
        after = (before + text)[-LOG_CHARS_MAX:]
        parts[-1] = (attempt, after)
        self._logs_chars += len(after) - len(before)
        while self._logs_chars > LOGS_CHARS_MAX:
            self._forget_log(next(iter(self._logs)))

    def _forget_log(self, job_id: int) -> None:
        parts = self._logs.pop(job_id, ())
        self._logs_chars -= sum(len(text) for _, text in parts)

    def log_text(self, job_id: int) -> list[tuple[int, str]]:
        """`(attempt, text)` of what has arrived live so far."""
        return list(self._logs.get(job_id, ()))

    def _on_effects(self, effects: Effects, index: int) -> None:
        if not self._progress and not self._logs:
            return
        for finished in effects.jobs_finished:
            self._progress.pop(finished.job.id, None)
            self._forget_log(finished.job.id)
        for job in effects.jobs_ready:
            if isinstance(job, Job):  # nobody in a block ever ran
                # The attempt is over; its log came with the failure, if there was one.
                self._progress.pop(job.id, None)
                self._forget_log(job.id)

    def _on_restored(self, state: State) -> None:
        """A snapshot tells of no effects, and this node does not lead: nobody reads this here."""
        self._progress.clear()
        self._logs.clear()
        self._logs_chars = 0
