"""Judges the history of a run: one promise per file, each of which must find a planted fault."""

from __future__ import annotations

from chaos.live.judge import (
    attempts,
    cancelled,
    early,
    ended,
    fenced,
    limits,
    occurrences,
    order,
    replicas,
    requests,
    unique,
)
from chaos.live.judge.history import Fault, History

RULES = (
    ended, requests, attempts, fenced, cancelled, unique, early, order, limits,
    occurrences, replicas,
)  # fmt: skip


def judge(history: History) -> list[Fault]:
    """Everything that breaks a promise."""
    return [fault for rule in RULES for fault in rule.judge(history)]
