"""How far an answer may look ahead at once, when what it found does not run.

A schedule of every second has 86,400 instants on a holiday; asking for the next run must not step
through them. Jumps end at the latest where the offset changes: a local time may come again there.
"""

from __future__ import annotations

from cluster.plan import Plan
from cluster.policy.timing.blackouts import blackout_end_ms
from cluster.policy.timing.days import DAY_S
from cluster.policy.timing.hits import Hit
from cluster.policy.timing.windows import opens_at_s
from cluster.policy.timing.zones import Zone


def resume_ms(plan: Plan, moment: Zone, hit: Hit) -> int:
    """After which instant to go on looking: nothing runs between the hit and it."""
    at_s = hit.at_ms // 1000
    upto_s = 0
    if hit.reason == "blackout":
        return max(hit.at_ms, blackout_end_ms(plan, hit.at_ms) - 1)
    if hit.reason == "window":
        upto_s = opens_at_s(plan.windows, moment, at_s) or 0
    elif hit.reason == "holiday" and plan.on_holiday == "skip":
        upto_s = moment.instant_s((moment.local_s(at_s) // DAY_S + 1) * DAY_S)
        upto_s = min(upto_s, next(moment.stretches(at_s)).end_s)
    return max(hit.at_ms, upto_s * 1000 - 1)
