"""Whether a node is worth talking to, and if not, why: one reason for each check that fails."""

from __future__ import annotations

from cluster.actors.services import Services


def checks_of(services: Services) -> dict[str, str]:
    """Every check by its name, with the reason why it fails, or an empty one."""
    return {
        "leader_known": _leader_known(services),
        "epoch_open": _epoch_open(services),
        "caught_up": _caught_up(services),
        "disk_takes_writes": _disk_takes_writes(services),
        "not_draining": "this node is stopping" if services.draining else "",
    }


def failing(services: Services) -> str:
    """All that is wrong, in one line; empty when the node is ready."""
    checks = checks_of(services)
    return "; ".join(f"{name}: {reason}" for name, reason in checks.items() if reason)


def _leader_known(services: Services) -> str:
    return "" if services.raft.leader_id is not None else "no leader is known here"


def _epoch_open(services: Services) -> str:
    """A node that was elected leads only once its first entry is committed and applied."""
    raft = services.raft
    if raft.leader_id != raft.node_id or raft.is_leader:
        return ""
    if services.clocks.standing in ("unconfirmed", "refused"):
        return "elected, and waits for a majority's clocks before it leads"
    return "elected, and waits for a majority to hold its first entry"


def _caught_up(services: Services) -> str:
    raft = services.raft
    if raft.caught_up or raft.leader_id is None:  # which is said already
        return ""
    how_far = f"{raft.applied_index} of {raft.commit_index} committed entries are applied"
    # One that stopped arriving may lie there for good, so by itself it is no reason.
    return how_far + ", a snapshot is arriving" * raft.health.snapshot_is_arriving


def _disk_takes_writes(services: Services) -> str:
    """A disk that fails ends the process; one that is full or hangs keeps it from its part."""
    health = services.raft.health
    if health.disk_is_full:
        return "the disk is full: no entries are taken until it has space"
    if health.disk_stall_ms and health.disk_silent_ms > health.disk_stall_ms:
        return f"the disk has not answered for {health.disk_silent_ms / 1000:.1f} s"
    return ""
