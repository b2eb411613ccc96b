"""Every occurrence of a schedule was launched exactly once, or written down as left out, once, or
the schedule says that it still waits, as it may while it is paused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chaos.live.judge.history import Fault, History, Recurrence

RULE = "occurrences"


def judge(history: History) -> Iterator[Fault]:
    for schedule_id, recurrence in history.recurrences.items():
        yield from _judge(schedule_id, recurrence)


def _judge(schedule_id: str, recurrence: Recurrence) -> Iterator[Fault]:
    launched = Counter(nominal_ms for nominal_ms, _ in recurrence.launched)
    for at_ms in recurrence.waiting:
        if at_ms in launched:
            yield Fault(RULE, f"{schedule_id} launched {at_ms}, which is still to wait")
    last_job = dict(recurrence.launched)
    for nominal_ms, times in launched.items():
        if times > 1:
            text = f"{schedule_id} launched {nominal_ms} {times} times"
            yield Fault(RULE, text, last_job[nominal_ms])
    step_ms = recurrence.step_ms
    omitted: Counter[int] = Counter()
    for omission in recurrence.omitted:
        covered = range(omission.first_ms, omission.last_ms + 1, step_ms)
        # Launches in between are not among those left out.
        free = [at_ms for at_ms in covered if at_ms not in launched]
        told = f"{schedule_id} left out {omission.count} for {omission.reason or 'no reason'}"
        if not omission.reason:
            yield Fault(RULE, f"{told} at {omission.first_ms}")
        if omission.count > len(free):
            yield Fault(RULE, f"{told}, but {len(free)} were to be left out: {omission}")
        omitted.update(free)
    for at_ms in range(recurrence.from_ms, recurrence.until_ms + 1, step_ms):
        is_told = launched[at_ms] or omitted[at_ms] or at_ms in recurrence.waiting
        if not is_told:
            yield Fault(RULE, f"{schedule_id} neither launched {at_ms} nor says why")
