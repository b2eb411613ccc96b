"""How far an answer may look ahead at once, when what it found does not run.

A schedule of every second has 86,400 instants on a holiday; asking for the next run must not step
through them. Jumps end at the latest where the offset changes: a local time may come again there.
"""

from __future__ import annotations

from cluster.plan import Plan, Trigger
from cluster.policy.timing.blackouts import blackout_end_ms
from cluster.policy.timing.days import DAY_S, next_day
from cluster.policy.timing.hits import Hit
from cluster.policy.timing.parse import Expression, parse
from cluster.policy.timing.windows import closes_at_s, opens_at_s
from cluster.policy.timing.zones import Zone


def resume_ms(plan: Plan, moment: Zone, hit: Hit, hash_id: str) -> int:
    """After which instant to go on looking: nothing runs between the hit and it."""
    at_s = hit.at_ms // 1000
    upto_s = 0
    if hit.reason == "blackout":
        end_ms = blackout_end_ms(plan, hit.at_ms)
        if end_ms:
            return max(hit.at_ms, end_ms - 1)
        upto_s = closes_at_s(plan.blackout_windows, moment, at_s)
    elif hit.reason == "excluded":
        upto_s = _excluded_until_s(plan, moment, at_s, hash_id)
    elif hit.reason == "window":
        upto_s = opens_at_s(plan.windows, moment, at_s) or 0
    elif hit.reason == "holiday" and plan.on_holiday == "skip":
        upto_s = moment.instant_s((moment.local_s(at_s) // DAY_S + 1) * DAY_S)
        upto_s = min(upto_s, next(moment.stretches(at_s)).end_s)
    return max(hit.at_ms, upto_s * 1000 - 1)


def _excluded_until_s(plan: Plan, moment: Zone, at_s: int, hash_id: str) -> int:
    """The end of the local day if an exception takes out all that the triggers name in it.

    Not near a change of the clocks, nor where another day's run may be moved into this one."""
    if plan.on_holiday not in ("run", "skip") or (plan.windows and plan.outside == "defer"):
        return 0
    stretch = next(moment.stretches(at_s))
    day = (at_s + stretch.offset_s) // DAY_S
    from_s, until_s = day * DAY_S - stretch.offset_s, (day + 1) * DAY_S - stretch.offset_s
    if next(moment.stretches(from_s - DAY_S)).end_s < until_s + DAY_S:
        return 0
    exceptions = [parse(trigger.cron, hash_id) for trigger in plan.unless if trigger.cron]
    whole = any(
        next_day(exception.days, day) == day
        and all(_covers(exception, trigger, hash_id) for trigger in plan.triggers)
        for exception in exceptions
    )
    return until_s if whole else 0


def _covers(exception: Expression, trigger: Trigger, hash_id: str) -> bool:
    """Whether on its days the exception names every time of day that the trigger may name."""
    if trigger.cron:
        other = parse(trigger.cron, hash_id)
        return (
            set(exception.seconds) >= set(other.seconds)
            and set(exception.minutes) >= set(other.minutes)
            and set(exception.hours) >= set(other.hours)
        )
    times = len(exception.seconds) * len(exception.minutes) * len(exception.hours)
    instants = trigger.at_ms or (trigger.anchor_ms, trigger.every_ms)
    return times == DAY_S and not any(at_ms % 1000 for at_ms in instants)
