"""A few cycles of `python -m chaos.live.kills`; hundreds of them are `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.live.kills import cycles

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SEED = 41  # a pause of the leader, kill -9 of the leader, of all nodes, of two


async def test_nothing_acknowledged_is_lost_over_kills_and_pauses(tmp_path: Path) -> None:
    report = await cycles(tmp_path, SEED, count=4, clients=3)
    assert report.faults == [], str(report)
    assert report.cycles == 4
    assert report.figures["jobs acknowledged"] > 100
    assert report.figures["registers checked"] > 0
