"""Everything that a scenario may do to a cluster, by name."""

from __future__ import annotations

from chaos.live.harm import clock, cut, disk, kill, pause, restart, transfer, workers
from chaos.live.harm.field import Field, Strike

__all__ = ["STRIKES", "Field", "Strike"]

STRIKES: dict[str, Strike] = {
    "kill_one": kill.one,
    "kill_leader": kill.leader,
    "kill_two": kill.two,
    "kill_all": kill.everyone,
    "kill_storm": kill.storm,
    "pause_one": pause.one,
    "pause_leader": pause.leader,
    "pause_two": pause.two,
    "pause_and_kill": pause.and_kill,
    "restart_leader": restart.leader,
    "rolling_restart": restart.rolling,
    "transfer": transfer.once,
    "flapping": transfer.flapping,
    "worker_killed": workers.killed,
    "workers_killed": workers.all_killed,
    "worker_stalled": workers.stalled,
    "worker_restarted": workers.restarted,
    "cut_off": cut.off,
    "cut_leader_off": cut.leader_off,
    "cut_leader_deaf": cut.leader_deaf,
    "cut_leader_mute": cut.leader_mute,
    "cut_partial": cut.partial,
    "cut_everywhere": cut.everywhere,
    "slow_wires": cut.slow,
    "lossy_wires": cut.lossy,
    "reset_wires": cut.reset,
    "clock_one": clock.one,
    "clock_leader": clock.leader,
    "disk_full": disk.full,
}
