"""Facts of a running core as plain values, for pages and metrics."""

from __future__ import annotations

from .core import Core


def core_status(core: Core) -> dict[str, object]:
    engine, journal, members = core.engine, core.journal, core.roster.current
    own = members.find(core.config.node_id)
    return {
        "node_id": core.config.node_id,
        "term": engine.term(),
        "commit_index": core.known_commit_index(),
        "applied_index": engine.applied_index(),
        "last_index": journal.last_index,
        "durable_index": journal.durable_index,
        "first_index": journal.first_index,
        "log_bytes": journal.log_bytes,
        "proposals_waiting": len(core.proposals),
        "members_epoch": members.epoch,
        "standing": own.standing if own is not None else "none",
        "voters": len(members.voters),
        **core.counters.view(),
    }
