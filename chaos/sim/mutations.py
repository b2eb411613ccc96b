"""Does the simulation notice? Each guard of consensus is switched off in turn, and seeds are run
until one fails. A guard that nobody misses is either covered by another one or not tested at all.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from chaos.sim.raft.world import ANY, Shape, run_seed
from cluster.consensus.guards import GUARDS

SECONDS = 12.0
TAILLESS = (("trailing_entries", 0), ("segment_bytes", 1_000), ("snapshot_chunk_bytes", 100))
BY_ORDER = (*TAILLESS, ("snapshot_journal_bytes", 10**9))  # no snapshot but those of the plot
# Where a guard is needed, if chance alone would seldom get there.
SHAPES = {
    "a1_chunk_commit": Shape(
        members=3, spares=0, plots=("deposed_leader",), settings=(("trailing_entries", 5),)
    ),
    "a3_no_rewind": Shape(members=3, spares=0, calm=True),
    "a4_ack_term": Shape(members=5, spares=0, plots=("stalled_acks",)),
    "a5_snapshot_age": Shape(members=3, spares=0, plots=("late_install",), settings=BY_ORDER),
    "a5_verify_first": Shape(members=3, plots=("rotten_stream",), settings=TAILLESS),
    "a5_keep_suffix": Shape(members=3, spares=0, plots=("late_install",), settings=BY_ORDER),
    "a5_ack_index": Shape(members=3, spares=0, plots=("restarted_rival",), settings=TAILLESS),
    "a6_vote_once": Shape(members=5, spares=0, weather=(0.0, 0.5, 0.0)),
    "a6_members_only": Shape(members=3, spares=2, plots=("ghosts",)),
    "a7_one_change": Shape(members=3, spares=2, plots=("two_strangers",)),
    "a7_catch_up": Shape(members=3, spares=1, plots=("late_comer",)),
    "a7_folder": Shape(members=3, plots=("lost_disk",)),
    "aba_durable": Shape(members=3, spares=0, plots=("deposed_leader",)),
    "b1_settle": Shape(members=3, plots=("killed_in_write",)),
    "b3_align": Shape(members=3, plots=("outrun_log",), settings=TAILLESS),
    "b5_refuse_damage": Shape(members=3, plots=("rotten_snapshots",), settings=TAILLESS),
    "b7_checksums": Shape(members=3, plots=("rotten_journal",)),
    "b8_full_disk": Shape(members=3, plots=("full_disk",), settings=TAILLESS),
    "b13_chunk_place": Shape(members=3, plots=("torn_stream",), weather=(0.01, 0.3, 1.0)),
    "outbox_epoch": Shape(members=3, spares=0, plots=("reconnects",)),
    "old_connection": Shape(members=3, spares=0, plots=("reconnects",)),
    "c1_total_apply": Shape(plots=("poisoned_entry",)),
    "c2_stickiness": Shape(
        members=5, spares=0, plots=("half_deaf",), settings=(("uncommitted_entries_max", 30),)
    ),
    "c2_check_quorum": Shape(members=3, calm=True, plots=("mute_leader",)),
    "c2_rearm": Shape(members=3, spares=0, plots=("mute_leader",)),
    "c3_higher_term": Shape(members=5, spares=0, plots=("split_term",)),
    "c3_adopt_term": Shape(members=5, spares=0, plots=("split_term",)),
    "c4_install_alive": Shape(members=3, spares=0, calm=True, plots=("quorum_installs",)),
    "c5_keep_transfer": Shape(members=3, plots=("long_transfer",), settings=TAILLESS),
    "c6_deadline": Shape(members=3, spares=0, calm=True, plots=("hung_majority",)),
    "c7_whole_term": Shape(
        members=3, spares=0, plots=("deposed_leader",), settings=(("trailing_entries", 1_000),)
    ),
    "c11_transfer_waits": Shape(members=3, spares=0, calm=True, plots=("busy_transfer",)),
    "apply_slice": Shape(members=3, plots=("long_backlog",)),
    "flow_window": Shape(members=3, plots=("slow_follower",)),
    "disk_stall": Shape(members=3, spares=0, calm=True, plots=("hung_disk",)),
    "disconnect_hint": Shape(members=3, spares=0, calm=True, plots=("plain_death",)),
}
CHUNK = 4


@dataclass(frozen=True)
class Caught:
    """`seeds` were needed; 0 if all were in vain."""

    guard: str
    seeds: int
    failure: str


def _fails(guard: str, seed: int) -> str:
    shape = SHAPES.get(guard, ANY)
    failures = run_seed(seed, SECONDS, frozenset({guard}), shape=shape).failures
    return failures[0] if failures else ""


def hunt(guard: str, first: int, seeds: int, processes: int = 1) -> Caught:
    """Runs seeds in order until one fails with the guard switched off."""
    if processes <= 1:
        for seed in range(first, first + seeds):
            if failure := _fails(guard, seed):
                return Caught(guard, seed - first + 1, failure)
        return Caught(guard, 0, "")
    with ProcessPoolExecutor(processes) as pool:
        step = processes * CHUNK
        for begin in range(first, first + seeds, step):
            some = range(begin, min(begin + step, first + seeds))
            for seed, failure in zip(
                some, pool.map(_fails, [guard] * len(some), some), strict=True
            ):
                if failure:
                    return Caught(guard, seed - first + 1, failure)
    return Caught(guard, 0, "")


def report(guards: list[str], first: int, seeds: int, processes: int) -> int:
    """Prints a table; fails if a guard was not missed."""
    missed = 0
    print("| guard | caught by seed | first complaint |\n|---|---|---|")
    for guard in guards or sorted(GUARDS):
        caught = hunt(guard, first, seeds, processes)
        missed += not caught.seeds
        number = str(caught.seeds) if caught.seeds else f"not within {seeds}"
        complaint = caught.failure.partition("\n")[0]
        print(f"| {guard} | {number} | {complaint[:110]} |", flush=True)
    return 1 if missed else 0
