"""What goes wrong, one small fault at a time; a seed enables a random few of them (swarm testing).

Each fault undoes itself after a while. Longer plots, which need several faults in a certain order,
are in `plots`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from chaos.sim.disk import NO_LIMIT
from cluster.consensus import ConsensusError

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life, Machine
    from chaos.sim.raft.world import World


class Nemesis:
    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.fabric = world.fabric
        self.stopped = False
        self._undo: list[asyncio.TimerHandle] = []
        self.faults: dict[str, tuple[float, Callable[[], None]]] = {
            "kill_leader": (3, self.kill_leader),
            "kill_any": (2, self.kill_any),
            "stop_any": (2, self.stop_any),
            "power_any": (2, self.power_any),
            "power_all": (1, self.power_all),
            "pause_any": (2, self.pause_any),
            "pause_leader": (2, self.pause_leader),
            "isolate_leader": (3, self.isolate_leader),
            "isolate_any": (2, self.isolate_any),
            "cut_one_way": (3, self.cut_one_way),
            "cut_pair": (2, self.cut_pair),
            "split": (2, self.split),
            "reset_link": (4, self.reset_link),
            "reset_leader_links": (2, self.reset_leader_links),
            "storm": (1, self.storm),
            "hang_disk": (2, self.hang_disk),
            "slow_disk": (2, self.slow_disk),
            "fill_disk": (2, self.fill_disk),
            "fail_disk": (0.5, self.fail_disk),
            "slow_calls": (1, self.slow_calls),
            "jump_clock": (0.5, self.jump_clock),
            "snapshot": (3, self.snapshot),
            "transfer": (2, self.transfer),
            "flood": (4, self.flood),
        }

    def choose_swarm(self) -> list[str]:
        """Some seeds see everything, most only a few kinds, so that those get room to interact."""
        names = list(self.faults)
        share = self.rng.choice((0.2, 0.4, 0.4, 0.7, 1.0))
        return [name for name in names if self.rng.random() < share]

    async def rage(self, names: list[str], pause_s: float) -> None:
        weights = [self.faults[name][0] for name in names]
        while not self.stopped:
            await asyncio.sleep(self.rng.expovariate(1 / pause_s))
            if not self.stopped and names:
                name = self.rng.choices(names, weights)[0]
                self.world.trace(f"fault {name}")
                self.faults[name][1]()

    def mend(self) -> None:
        """Peace: everything that was broken works again, at once."""
        self.stopped = True
        for timer in self._undo:
            timer.cancel()
        self.fabric.heal_all()
        self.fabric.spike_p = self.fabric.repeat_p = self.fabric.late_p = 0.0
        for machine in self.world.machines.values():
            machine.pace.mend()
            machine.storage.capacity_bytes = NO_LIMIT
            machine.resume()
            machine.restore_files()
            machine.start()

    # Choosing ------------------------------------------------------------------------------

    def later(self, low_s: float, high_s: float, work: Callable[..., None], *what: Any) -> None:
        self._undo.append(self.world.loop.call_later(self.rng.uniform(low_s, high_s), work, *what))

    def leader(self) -> Machine | None:
        """Whoever leads the highest term."""
        lives = [life for life in self.world.lives() if life.raft.epoch]
        return max(lives, key=lambda life: life.raft.epoch).node if lives else None

    def any_up(self) -> Machine | None:
        up = [machine for machine in self.world.machines.values() if machine.is_up]
        return self.rng.choice(up) if up else None

    def others(self, machine: Machine) -> list[Machine]:
        return [one for one in self.world.machines.values() if one is not machine]

    def spawn(self, life: Life, work: Coroutine[Any, Any, Any]) -> None:
        """Runs an operator's request on a node; whether it succeeds does not matter."""

        async def quietly() -> None:
            try:
                await work
            except ConsensusError as error:
                self.world.trace(f"{life.node.name}: {error}")

        if life.is_over or not life.is_started:
            work.close()
            return
        self.world.adopt(self.world.loop.create_task(quietly(), context=life.context))

    # Nodes ---------------------------------------------------------------------------------

    def kill_leader(self) -> None:
        self._kill(self.leader())

    def kill_any(self) -> None:
        self._kill(self.any_up())

    def _kill(self, machine: Machine | None) -> None:
        if machine is not None:
            machine.kill()
            self.later(0.02, 2.0, machine.start)

    def stop_any(self) -> None:
        machine = self.any_up()
        if machine is not None:
            machine.stop()

    def power_any(self) -> None:
        machine = self.any_up()
        if machine is not None:
            machine.power_off()
            self.later(0.1, 2.0, machine.start)

    def power_all(self) -> None:
        for machine in self.world.machines.values():
            machine.power_off()
            self.later(0.05, 1.0, machine.start)

    def pause_any(self) -> None:
        self._pause(self.any_up())

    def pause_leader(self) -> None:
        self._pause(self.leader())

    def _pause(self, machine: Machine | None) -> None:
        if machine is not None:
            machine.pause()
            self.later(0.05, self.rng.choice((0.3, 1.0, 3.0)), machine.resume)

    # Network -------------------------------------------------------------------------------

    def isolate_leader(self) -> None:
        self._isolate(self.leader())

    def isolate_any(self) -> None:
        self._isolate(self.any_up())

    def _isolate(self, machine: Machine | None) -> None:
        if machine is not None:
            sides = self.rng.choice((True, False)), self.rng.choice((True, False))
            for other in self.others(machine):
                if sides[0] or not sides[1]:
                    self.cut(machine.id, other.id, 0.2, 3.0)
                if sides[1]:
                    self.cut(other.id, machine.id, 0.2, 3.0)

    def cut(self, source: str, target: str, low_s: float, high_s: float) -> None:
        self.fabric.cut(source, target)
        self.later(low_s, high_s, self.fabric.heal, source, target)

    def _pair(self) -> tuple[str, str] | None:
        ids = list(self.world.machines)
        if len(ids) < 2:
            return None
        first, second = self.rng.sample(ids, 2)
        return first, second

    def cut_one_way(self) -> None:
        pair = self._pair()
        if pair is not None:
            self.cut(*pair, 0.05, 4.0)

    def cut_pair(self) -> None:
        pair = self._pair()
        if pair is not None:
            self.cut(pair[0], pair[1], 0.2, 3.0)
            self.cut(pair[1], pair[0], 0.2, 3.0)

    def split(self) -> None:
        ids = list(self.world.machines)
        self.rng.shuffle(ids)
        half = self.rng.randint(0, len(ids) // 2)
        for one in ids[:half]:
            for two in ids[half:]:
                self.cut(one, two, 0.3, 3.0)
                self.cut(two, one, 0.3, 3.0)

    def reset_link(self) -> None:
        pair = self._pair()
        if pair is not None:
            self.fabric.reset_between(*pair)

    def reset_leader_links(self) -> None:
        leader = self.leader()
        if leader is not None:
            for link in self.fabric.links_of(leader.id):
                self.fabric.reset(link)

    def storm(self) -> None:
        """Latency goes up for everybody, frames come twice, resets leave frames behind."""
        fabric = self.fabric
        fabric.spike_p, fabric.late_p = self.rng.choice((0.02, 0.2)), 0.5
        fabric.repeat_p = self.rng.choice((0.0, 0.05))
        self.later(0.5, 3.0, self.clear_up)

    def clear_up(self) -> None:
        """The weather is as the seed has it."""
        self.fabric.spike_p, self.fabric.repeat_p, self.fabric.late_p = self.world.weather

    # Disks and time ------------------------------------------------------------------------

    def hang_disk(self) -> None:
        machine = self.any_up()
        if machine is not None:
            machine.pace.hangs = True
            self.later(0.05, self.rng.choice((0.5, 4.0)), setattr, machine.pace, "hangs", False)

    def slow_disk(self) -> None:
        machine = self.any_up()
        if machine is not None:
            before = machine.pace.fsync_s
            machine.pace.fsync_s = self.rng.choice(((0.01, 0.05), (0.05, 0.2), (0.0, 1.0)))
            self.later(0.5, 3.0, setattr, machine.pace, "fsync_s", before)

    def fill_disk(self) -> None:
        """Of one node or of all: nothing fits any more but what space was taken for."""
        everybody = list(self.world.machines.values())
        machines = everybody if self.rng.random() < 0.3 else [self.any_up()]
        for machine in machines:
            if machine is not None:
                storage = machine.storage
                storage.capacity_bytes = storage.used_bytes() + self.rng.randrange(20_000)
                self.later(0.5, 4.0, setattr, storage, "capacity_bytes", NO_LIMIT)

    def fail_disk(self) -> None:
        machine = self.any_up()
        if machine is not None:
            machine.excused = True
            machine.pace.fails = True

    def slow_calls(self) -> None:
        machine = self.any_up()
        if machine is not None:
            machine.pace.call_s = (0.1, 1.5)
            self.later(1.0, 4.0, setattr, machine.pace, "call_s", (0.0005, 0.01))

    def jump_clock(self) -> None:
        machine = self.any_up()
        if machine is not None:
            machine.clock.jump(self.rng.choice((-60_000, -500, 500, 60_000)))

    # Work ----------------------------------------------------------------------------------

    def snapshot(self) -> None:
        machine = self.any_up()
        if machine is not None and machine.life is not None:
            self.snapshot_at(machine.life)

    def snapshot_at(self, life: Life) -> None:
        if life.is_started and not life.is_over:
            self.spawn(life, life.consensus.snapshot_now())

    def transfer(self) -> None:
        leader = self.leader()
        if leader is not None and leader.life is not None and len(self.world.machines) > 1:
            target = self.rng.choice([None, self.rng.choice(self.others(leader)).id])
            self.spawn(leader.life, leader.life.consensus.transfer_leadership(target, 1000))

    def flood(self) -> None:
        leader = self.leader()
        if leader is not None and leader.life is not None:
            self.world.users.flood(leader.life, self.rng.choice((10, 60, 200)))
