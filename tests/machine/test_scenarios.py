"""Stories of jobs, told in `scenarios/*.txt`."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import get_args

import machine_schedule_verbs  # noqa: F401  (registers the verbs)
import machine_verbs  # noqa: F401
import pytest
from machine_story import VERBS, play

from cluster.machine.commands import Command
from cluster.machine.registry import REDUCERS

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, rewrite: bool) -> None:
    play(path, rewrite)


def test_every_command_has_a_reducer() -> None:
    assert set(get_args(Command)) <= set(REDUCERS)


def test_every_verb_is_used() -> None:
    told = {
        line.split()[0]
        for path in SCENARIOS
        for line, after in pairwise(path.read_text().splitlines())
        if after == "----"
    }
    assert set(VERBS) == told
