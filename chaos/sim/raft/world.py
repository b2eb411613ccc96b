"""One simulated history of a consensus cluster, from its first start to peace after many faults.

The only source of chance is one seeded generator and the only clock is the loop's, so a seed is a
history. `trace` folds every event into a digest; two runs of a seed must agree in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

from chaos.sim.disk import Everything, MemoryStorage, Nothing, Whims
from chaos.sim.loop import StuckError
from chaos.sim.raft.clients import Users
from chaos.sim.raft.clocks import SimSurroundings
from chaos.sim.raft.digests import Digests
from chaos.sim.raft.housekeeping import Housekeeping
from chaos.sim.raft.invariants import Invariants
from chaos.sim.raft.loop import NodeLoop
from chaos.sim.raft.nemesis import Nemesis
from chaos.sim.raft.network import Fabric
from chaos.sim.raft.node import Life, Machine, config_of
from chaos.sim.raft.plots import Plots
from chaos.sim.raft.repair import Repair
from cluster.consensus.pin import surround
from cluster.consensus.wire import Message
from cluster.machine.apply import Strictness

TRACE_KEPT = 4_000
ELECTION_MAX_S = 0.6
LATE_S = 1.0  # so much later at most, a node notices that a deadline has passed
LEADER_WITHIN_S = 5 * ELECTION_MAX_S
EQUAL_WITHIN_S = 20.0
# What the product may log as an error because a fault ordered it.
ORDERED = (
    "a proposal's callback raised",
    "the journal's disk hangs",
    "no snapshot:",
    "is full: no entries are taken",
    "stepping down, as the disk is full",
    "no room for snapshot",
)
ORDERED_BY_DAMAGE = (
    "asking for it again",
    "starting from",
    "taking a new one",
    "no snapshot to send",
)


@dataclass(frozen=True)
class Shape:
    """Narrows what a seed decides, to where a certain guard is needed; chance decides the rest."""

    members: int = 0  # 0: any
    spares: int = -1
    calm: bool | None = None
    plots: tuple[str, ...] = ()
    weather: tuple[float, float, float] | None = None  # slow, repeated, late frames
    settings: tuple[tuple[str, int], ...] = ()  # of every node, in place of chance's choice


ANY = Shape()


@dataclass
class Report:
    """How a run ended."""

    seed: int
    failures: list[str]
    digest: str
    entries: int
    leaders: int
    acknowledged: int
    reads: int
    virtual_s: float
    counters: dict[str, int] = field(default_factory=dict)
    tail: list[str] = field(default_factory=list)


class World:
    """Everything of one run. Parts call `fail` when something is wrong; the run then ends."""

    def __init__(
        self, loop: NodeLoop, seed: int, disabled: frozenset[str], shape: Shape, echo: bool
    ) -> None:
        self.loop = loop
        self.seed = seed
        self.rng = Random(seed)
        self.echo = echo
        self.failures: list[str] = []
        self.digest = hashlib.blake2b(digest_size=16)
        self.tail: deque[str] = deque(maxlen=TRACE_KEPT)
        self._failed = loop.create_future()
        self._owned: list[asyncio.Task[Any]] = []
        self.counters: dict[str, int] = {}
        self.eavesdroppers: list[Callable[[Life, str, Message], None]] = []  # told before it leaves
        rng = self.rng
        self.shape = shape
        count = shape.members or rng.choice((1, 3, 3, 3, 3, 5, 5, 5))
        members = tuple(f"n{number}:1" for number in range(1, count + 1))
        self.fabric = Fabric(loop, rng, self)
        self.is_calm = rng.random() < 0.15  # nothing happens by chance: stricter rules hold
        if shape.calm is not None:
            self.is_calm = shape.calm
        self.weather = rng.choice(((0.0, 0.0, 0.0), (0.0, 0.0, 0.3), (0.01, 0.02, 0.3)))
        if self.is_calm:
            self.weather = (0.0, 0.0, 0.0)
        self.weather = shape.weather or self.weather
        self.fabric.spike_p, self.fabric.repeat_p, self.fabric.late_p = self.weather
        self.fabric.base_s = rng.choice(((0.0002, 0.001), (0.0002, 0.004), (0.002, 0.03)))
        self.is_quick = self.is_calm and self.fabric.base_s[1] < 0.005
        spares = rng.choice((0, 1, 2)) if count > 1 else 0
        spares = shape.spares if shape.spares >= 0 else spares
        everybody = tuple(f"n{number}:1" for number in range(1, count + spares + 1))
        self.size = count
        self.invariants = Invariants(self, everybody)
        self.invariants.members = members
        self.housekeeping = Housekeeping(self)
        self.has_damage = False  # some file was damaged at rest, or something on its way
        self.digests = Digests(self)
        self.users = Users(self)
        self.settings = self._choose_settings(disabled)
        self.settings |= dict(shape.settings)
        self.deadline_s = cast(int, self.settings["proposal_timeout_ms"]) / 1000 + LATE_S
        self.waiting_max = cast(int, self.settings["uncommitted_entries_max"])
        self.machines = {
            member: Machine(self, config_of(member, members, self._vary())) for member in everybody
        }
        self.nemesis = Nemesis(self)
        self.plots = Plots(self)
        self.repair = Repair(self)

    def _choose_settings(self, disabled: frozenset[str]) -> dict[str, object]:
        """Everything scaled down, so that what takes hours elsewhere happens every second."""
        rng = self.rng
        return {
            "segment_bytes": rng.choice((1_000, 8_000, 64_000)),
            "snapshot_journal_bytes": rng.choice((2_000, 8_000, 50_000, 10**9)),
            "snapshot_chunk_bytes": rng.choice((100, 500, 4_000)),
            "trailing_bytes": rng.choice((1_000, 100_000)),
            "uncommitted_entries_max": rng.choice((30, 100, 1_000)),
            "proposal_timeout_ms": rng.choice((1_000, 3_000)),
            "disabled_guards": disabled,
        }

    def _vary(self) -> dict[str, object]:
        """Nodes keep tails of different lengths, so a log may outlive another's snapshot."""
        varied = {"trailing_entries": self.rng.choice((0, 5, 50, 1_000))}
        return {**self.settings, **varied, **dict(self.shape.settings)}

    # What parts say ------------------------------------------------------------------------

    def trace(self, event: str) -> None:
        line = f"{self.loop.time():.6f} {event}"
        self.digest.update(line.encode())
        self.tail.append(line)
        if self.echo:
            print(line)

    def fail(self, reason: str) -> None:
        self.trace(f"FAILED {reason}")
        self.failures.append(reason)
        if not self._failed.done():
            self._failed.set_result(None)

    def on_sent(self, life: Life, peer: str, message: Message) -> None:
        if self.echo:
            self.trace(f"  {life.id} > {peer} {message}")
        self.repair.on_sent(life, message)
        self.invariants.on_sent(life, peer, message)
        self.housekeeping.on_sent(life, peer, message)
        for overhear in list(self.eavesdroppers):
            overhear(life, peer, message)

    def on_taken(self, life: Life, peer: str, epoch: int, message: Message) -> None:
        self.invariants.on_taken(life, peer, epoch, message)

    def moved(self, life: Life) -> None:
        """A node did something."""
        if self.repair.is_lost(life.node) or life.is_stopping:
            return  # it has nothing to keep any more, or does nothing any more
        self.invariants.look(life)
        self.housekeeping.look(life)
        self.digests.look(life)
        self.users.verify()
        if life.probe is not None and life.probe.waiting > self.waiting_max:
            self.fail(f"{life.id} holds {life.probe.waiting} proposals without a commit")

    def entry_committed(self, index: int, content: bytes) -> None:
        self.digest.update(b"%d" % index + content)
        self.users.committed(index, content)

    def start_refused(self, life: Life, reason: str) -> None:
        machine = life.node
        if "No space left" not in reason and not machine.rot:  # both by order only
            self.fail(f"{life.id} refuses to start: {reason}")
            return
        self.trace(f"{machine.name} refuses to start: {reason}")
        self.loop.call_soon(machine.restore_files)
        self._start_again(machine)

    def node_died(self, life: Life, reason: str) -> None:
        """The product stopped itself; by order, or as something is badly wrong."""
        machine = life.node
        if not machine.excused and not self.repair.expects_end(life, reason):
            self.fail(f"{life.id} stops: {reason}")
            return
        self.trace(f"{machine.name} stops: {reason}")
        self._start_again(machine)

    def _start_again(self, machine: Machine) -> None:
        self.loop.call_soon(machine.kill)
        self.loop.call_later(self.rng.uniform(0.1, 1.0), machine.start)

    def lose_power(self, machine: Machine) -> None:
        fate = self.rng.choice((Whims(self.rng), Whims(self.rng), Everything(), Nothing()))
        self.trace(f"{machine.name} loses power, {type(fate).__name__.lower()} survives")
        machine.storage.power_loss(fate)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self._owned = [one for one in self._owned if not one.done()] + [task]

    # What parts ask ------------------------------------------------------------------------

    def has_ordered(self, message: str) -> bool:
        """Whether the product may log this as an error."""
        phrases = ORDERED + (ORDERED_BY_DAMAGE if self.has_damage else ())
        phrases += ("the machine raised",) if self.users.poisoned else ()
        return any(phrase in message for phrase in phrases)

    def open_storage(self, node_id: str) -> MemoryStorage:
        return MemoryStorage()

    def lives(self) -> list[Life]:
        return [machine.life for machine in self.machines.values() if machine.life is not None]

    # The story -----------------------------------------------------------------------------

    async def run(self, seconds: float) -> None:
        rng = self.rng
        for machine in self.machines.values():
            machine.start()
        self.users.begin(rng.choice((1, 3, 6)), rng.choice((0.02, 0.1, 0.4)))
        is_alone = self.is_calm or self.shape.plots  # a plot that is asked for is not disturbed
        swarm = [] if is_alone else self.nemesis.choose_swarm()
        self.trace(f"{len(self.machines)} nodes, {self.settings}, faults {swarm}")
        await asyncio.sleep(rng.uniform(0.0, 1.5))
        count = 8 if self.shape.plots else rng.choice((0, 2, 8))
        evil = [
            self.loop.create_task(self.nemesis.rage(swarm, rng.choice((0.1, 0.4, 1.2)))),
            self.loop.create_task(self.plots.tell(count)),
        ]
        for _ in range(round(2 * seconds)):
            await asyncio.sleep(0.5)
            self.users.check_deadlines(self.deadline_s)
        self.nemesis.stopped = True
        for task in evil:
            task.cancel()
        await asyncio.wait(evil)
        for task in evil:
            if not task.cancelled() and task.exception() is not None:
                self.fail(f"the plot itself failed: {task.exception()!r}")
        if self.is_calm and not count and len(self.machines) == self.size:
            self._check_amplification()
        await self._make_peace()
        self.users.judge()

    async def _make_peace(self) -> None:
        """I10: once the faults are over, everything comes right within a bounded time."""
        self.trace("peace")
        self.nemesis.mend()
        self.users.stopped = True
        self.users.on_applied.clear()
        if not await self._until(self._led, LEADER_WITHIN_S + 2.0):
            self.fail(f"no leader {LEADER_WITHIN_S + 2.0} s after the faults: {self._roles()}")
            return
        await asyncio.gather(*self.users.tasks)
        self.adopt(self.loop.create_task(self.repair.finish()))
        if not await self._until(lambda: self.repair.is_done, EQUAL_WITHIN_S):
            self.fail(f"a lost disk cannot be replaced: {self._roles()}")
            return
        if not await self._until(self._settled, EQUAL_WITHIN_S):
            self.fail(f"not settled: {self._roles()}, open {self.users.unresolved()[:5]}")
            return
        await self._write_in_peace()
        for life in self.lives():
            self._check_counters(life)

    async def _write_in_peace(self) -> None:
        """A transfer that began in the last moment of the faults may still change the leader."""
        before = self.users.applied
        for _ in range(10):
            leader = self._leader()
            if leader is not None:
                self.users.propose(leader, "r1", ("put",))
            if await self._until(lambda: self.users.applied > before, 0.3):
                return
        self.fail("in peace, a write does not commit")

    def _leader(self) -> Life | None:
        ready = [life for life in self.lives() if life.consensus.is_leader_ready]
        return max(ready, key=lambda life: life.consensus.term) if ready else None

    def _led(self) -> bool:
        return self._leader() is not None

    def _settled(self) -> bool:
        leader = self._leader()
        if leader is None or self.users.unresolved():
            return False
        assert leader.probe is not None
        top = leader.probe.last_index
        members = [life for life in self.lives() if life.id in leader.probe.members]
        return all(
            life.probe is not None
            and (life.probe.last_index, life.consensus.applied_index) == (top, top)
            for life in members
        ) and len(members) == len(leader.probe.members)

    async def _until(self, condition: Any, seconds: float) -> bool:
        end = self.loop.time() + seconds
        while not condition():
            if self.loop.time() > end:
                return False
            await asyncio.sleep(0.02)
        return True

    def _roles(self) -> list[str]:
        said = []
        for life in self.lives():
            consensus, probe = life.consensus, life.probe
            ends = (probe.first_index, probe.last_index) if probe is not None else (0, 0)
            said.append(
                f"{life.node.name} {consensus.role.value} {consensus.term} of {consensus.leader_id}"
                f" log {ends} applied {consensus.applied_index}"
            )
        return said

    def _check_amplification(self) -> None:
        """Without any fault, each entry is sent to each follower about once."""
        sent = sum(life.probe.entries_sent for life in self.lives() if life.probe is not None)
        fair = self.invariants.top * (len(self.machines) - 1)
        if sent > 1.1 * fair + 50:
            self.fail(f"{sent} entries were sent where {fair} would do")

    def _check_counters(self, life: Life) -> None:
        """Nobody was caught cheating: these can only move if somebody broke a rule."""
        errors = life.probe.errors() if life.probe is not None else {}
        for name in ("ack_withdrawn", "ack_of_the_future", "two_leaders", "machine_raised"):
            if errors.get(name) and not (name == "machine_raised" and self.users.poisoned):
                self.fail(f"{life.id} counted {name} {errors[name]} times")

    async def run_or_fail(self, seconds: float) -> None:
        """Ends at the first failure."""
        story = self.loop.create_task(self.run(seconds), name="story")
        await asyncio.wait([story, self._failed], return_when=asyncio.FIRST_COMPLETED)
        if story.done() and not story.cancelled() and story.exception() is not None:
            self.fail(f"the run itself failed: {story.exception()!r}")

    def report(self) -> Report:
        return Report(
            self.seed, self.failures, self.digest.hexdigest(), self.invariants.top,
            len(self.invariants.leaders), self.users.applied, self.users.reads_served,
            self.loop.time(), dict(self.counters), list(self.tail),
        )  # fmt: skip


class _LoudLog(logging.Handler):
    """Whatever the product logs as an error fails the run, unless a fault ordered it."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno < logging.ERROR or self._world.has_ordered(message):
            self._world.trace(f"logged: {message}")
            return
        error = record.exc_info[1] if record.exc_info else None
        self._world.fail(f"logged: {message} {error!r}")


def run_seed(
    seed: int,
    seconds: float = 12.0,
    disabled: frozenset[str] = frozenset(),
    echo: bool = False,
    shape: Shape = ANY,
) -> Report:
    """Live through one history. The report lists what went wrong; empty is good."""
    product = logging.getLogger("quorate")
    loop = NodeLoop()
    world = World(loop, seed, disabled, shape, echo)
    handler = _LoudLog(world)
    before = Strictness.raise_bugs, product.propagate, product.level
    Strictness.raise_bugs, product.propagate = True, False
    product.setLevel(logging.INFO if echo else logging.ERROR)
    for logger in (product, logging.getLogger()):  # the engine itself complains to the root
        logger.addHandler(handler)
    surroundings = surround(SimSurroundings(loop, world.rng))
    loop.set_exception_handler(
        lambda _, context: world.fail(f"loop: {context['message']} {context.get('exception')!r}")
    )
    gc.disable()  # finalizers must not run in the middle of a history
    try:
        loop.run_until_complete(world.run_or_fail(seconds))
    except Exception as error:
        world.fail(f"the loop failed: {error!r}")
    finally:
        report = world.report()
        _close(world, loop)
        surround(surroundings)
        for logger in (product, logging.getLogger()):
            logger.removeHandler(handler)
        Strictness.raise_bugs, product.propagate = before[:2]
        product.setLevel(before[2])
        gc.enable()
    return report


def _close(world: World, loop: NodeLoop) -> None:
    loop.set_exception_handler(lambda *_: None)
    for machine in world.machines.values():
        machine.resume()
        machine.kill()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        with contextlib.suppress(StuckError):
            loop.run_until_complete(asyncio.wait(tasks))
    loop.close()
