"""Users of the simulated cluster: registers kept as schedules of the real machine, and floods.

Every entry carries a mark of its own, so that the world can tell what became of each proposal, also
of those whose answer got lost. The histories are judged by `chaos.linearizable`.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from chaos.linearizable import IMPOSSIBLE, Operation, TooHardError, check
from cluster.consensus import Outcome, ReadError
from cluster.machine.commands import DeleteSchedule, PutSchedule
from cluster.machine.model import JobSpec
from cluster.machine.results import Rejected

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life
    from chaos.sim.raft.world import World

COMMAND = b"\x00"  # what the entries of proposals begin with
MARK = re.compile(rb"#p(\d+)#")
NEVER_MS = 9_000_000_000_000  # no schedule fires by itself here
SPEC = JobSpec("work")
POISON = b"#poison#"
READ_TIMEOUT_MS = 1_500
RUDE_EVERY = 29  # proposals; what their callback raises is its own problem (A11)
KEYS = ("r1", "r2", "r3")
_encode = msgspec.msgpack.Encoder().encode
_decode_epoch = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw]).decode


@dataclass
class Proposal:
    """One proposal and everything that happened to it; times count the events of the history."""

    number: int
    key: str
    what: tuple[str, ...]
    called: int
    life: Life
    ends: int = 0
    outcome: Outcome | None = None
    answer: str | None = None
    returned: int | None = None
    index: int = 0
    committed_at: int = 0
    is_void: bool = False  # committed, but as the batch of a deposed leader


class Users:
    """All proposals, and the clients that make them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._proposals: list[Proposal] = []
        self._reads: dict[str, list[Operation]] = {key: [] for key in KEYS}
        self._to_verify: list[Proposal] = []
        self._events = 0
        self._epoch = 0  # of the machine, after all that is committed
        self._open: deque[tuple[float, Proposal]] = deque()
        self.stopped = False
        self.on_applied: list[Any] = []  # called once, at the next answered proposal
        self.applied = 0
        self.reads_served = 0
        self.poisoned = 0
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self, clients: int, pause_s: float) -> None:
        for number in range(clients):
            task = self._world.loop.create_task(self._live(pause_s), name=f"client{number}")
            self.tasks.append(task)

    def _now(self) -> int:
        self._events += 1
        return self._events

    # Proposals -----------------------------------------------------------------------------

    def propose(self, life: Life, key: str, what: tuple[str, ...]) -> Proposal:
        """Reaches the node in its own time: a paused one takes it when it wakes up."""
        number = len(self._proposals)
        proposal = Proposal(number, key, what, self._now(), life)
        self._proposals.append(proposal)
        self._world.loop.call_soon(self._hand_in, proposal, context=life.context)
        return proposal

    def _hand_in(self, proposal: Proposal) -> None:
        life = proposal.life
        if life.is_over or not life.is_started:
            proposal.ends, proposal.outcome = 1, Outcome.REFUSED  # nobody listens
            return
        self._open.append((self._world.loop.time(), proposal))
        kind, mark = proposal.what[0], b"#p%d#" % proposal.number
        if kind == "delete":
            # The mark is a second command: a schedule that nobody knows is deleted.
            commands = [_raw(DeleteSchedule(proposal.key)), _raw(DeleteSchedule(mark.decode()))]
        else:
            put = PutSchedule(
                proposal.key, SPEC, mark, "", 1000, NEVER_MS, replace=kind != "insert"
            )
            commands = [_raw(put)]

        def ended(outcome: Outcome, results: Any) -> None:
            self._ended(proposal, outcome, results)

        life.raft.propose_raw(commands, ended)

    def poison(self, life: Life) -> None:
        """An entry on which the machine raises, on every node alike."""
        self.poisoned += 1
        entry = _encode((life.raft.epoch, 0, [_raw(DeleteSchedule(POISON.decode()))]))

        def hand_in() -> None:
            if life.is_started and not life.is_over:
                life.consensus.propose(entry, lambda outcome, result: None)

        self._world.loop.call_soon(hand_in, context=life.context)

    def _ended(self, proposal: Proposal, outcome: Outcome, results: Any) -> None:
        proposal.ends += 1
        if proposal.ends > 1:
            self._world.fail(f"proposal {proposal.number} ended {proposal.ends} times")
        proposal.outcome, proposal.returned = outcome, self._now()
        if outcome is Outcome.APPLIED:
            proposal.answer = _answer(results[0])
            self.applied += 1
            while self.on_applied:
                self._world.loop.call_soon(self.on_applied.pop())
        if outcome is not Outcome.UNKNOWN:
            self._to_verify.append(proposal)
        if proposal.number % RUDE_EVERY == 0:
            raise RuntimeError("a client's callback has a bug")

    def committed(self, index: int, content: bytes) -> None:
        """An entry is committed for the first time anywhere."""
        if content[:1] != COMMAND:
            return
        epoch = _decode_epoch(content[1:])[0]
        match = MARK.search(content)
        is_void, self._epoch = epoch < self._epoch, max(epoch, self._epoch)
        if match is None:
            return
        proposal = self._proposals[int(match[1])]
        if proposal.index:
            self._world.fail(f"proposal {proposal.number} is committed twice")
        proposal.index, proposal.committed_at = index, self._now()
        proposal.is_void = is_void
        if proposal.outcome is Outcome.REFUSED:
            self._world.fail(f"proposal {proposal.number} was refused and is committed at {index}")

    def check_deadlines(self, limit_s: float) -> None:
        """C6: no proposal stays open much longer than its deadline."""
        while self._open and (self._open[0][1].ends or self._open[0][1].life.is_over):
            self._open.popleft()
        for at, proposal in self._open:
            life, now_s = proposal.life, self._world.loop.time()
            if now_s - at < limit_s:
                return
            is_awake = life.frozen is None and now_s - life.resumed_s > limit_s
            if not proposal.ends and is_awake and not life.is_over:
                self._world.fail(f"proposal {proposal.number} is open for {limit_s} s")

    def verify(self) -> None:
        """I4: after each callback, what was answered meanwhile is true."""
        for proposal in self._to_verify:
            if proposal.outcome is Outcome.APPLIED and not proposal.index:
                self._world.fail(f"proposal {proposal.number} was acknowledged, not committed")
            if proposal.outcome is Outcome.REFUSED and proposal.index:
                self._world.fail(f"proposal {proposal.number} was refused, and is committed")
        self._to_verify.clear()

    def unresolved(self) -> list[int]:
        return [proposal.number for proposal in self._proposals if proposal.ends != 1]

    # Reads ---------------------------------------------------------------------------------

    def read_aside(self, life: Life, key: str) -> None:
        """A read that nobody waits for."""
        self._world.adopt(self.read(life, key))

    def read(self, life: Life, key: str) -> asyncio.Task[None]:
        return self._world.loop.create_task(self._read(life, key), context=life.context)

    async def _read(self, life: Life, key: str) -> None:
        called = self._now()
        if life.is_over or not life.is_started:
            return
        try:
            await life.consensus.read_index(READ_TIMEOUT_MS)
        except ReadError:
            return
        if life.is_over:
            return
        row = life.raft.state.tables.schedules.get(key)
        value = "" if row is None else row.payload.decode()
        if key in self._reads:
            self._reads[key].append(
                Operation(called, self._now(), ("read",), (value,), life.node.name)
            )
            self.reads_served += 1

    # Clients -------------------------------------------------------------------------------

    def leader_or_any(self) -> Life | None:
        lives = [life for life in self._world.lives() if life.is_started]
        if not lives:
            return None
        leaders = [life for life in lives if life.raft.epoch]
        if leaders and self._rng.random() < 0.9:
            return self._rng.choice(leaders)
        return self._rng.choice(lives)

    def flood(self, life: Life, count: int) -> None:
        for number in range(count):
            self.propose(life, f"f{number % 8}", ("put",))

    async def _live(self, pause_s: float) -> None:
        rng = self._rng
        while not self.stopped:
            await asyncio.sleep(rng.expovariate(1 / pause_s))
            life = self.leader_or_any()
            if life is None or self.stopped:
                continue
            key = rng.choice(KEYS)
            kind = rng.choices(("put", "insert", "delete", "read", "burst"), (4, 2, 2, 4, 1))[0]
            if kind == "read":
                lives = [one for one in self._world.lives() if one.is_started]
                await self._patience(self.read(rng.choice(lives), key))
            elif kind == "burst":
                self.flood(life, rng.randint(2, 30))
            else:
                proposal = self.propose(life, key, (kind,))
                await self._until_ended(proposal)

    async def _until_ended(self, proposal: Proposal) -> None:
        """A client waits for its answer, but not for ever."""
        for _ in range(150):
            if proposal.ends:
                return
            await asyncio.sleep(0.01)

    async def _patience(self, task: asyncio.Task[None]) -> None:
        await asyncio.wait([task], timeout=2.0)

    # Judgement -----------------------------------------------------------------------------

    def judge(self) -> None:
        """Linearizability of each register. A write without an answer took effect if and when it
        was committed, which is known here, so no history has open ends."""
        histories = {key: list(reads) for key, reads in self._reads.items()}
        for proposal in self._proposals:
            if proposal.key not in histories or not proposal.index or proposal.is_void:
                continue
            if proposal.outcome is Outcome.APPLIED:
                returned, answer = proposal.returned or 0, (proposal.answer,)
            else:
                returned, answer = proposal.committed_at, ("?",)
            what = (*proposal.what, f"#p{proposal.number}#")
            called = min(proposal.called, returned - 1)
            histories[proposal.key].append(
                Operation(called, max(returned, called), what, answer, proposal.life.node.name)
            )
        for key, history in histories.items():
            try:
                verdict = check(history, "", step)
            except TooHardError:
                self._world.trace(f"the history of {key} is too hard to judge")
                continue
            if not verdict.holds:
                self._world.fail(f"register {key}: {verdict}")


def step(state: Any, one: Operation) -> Any:
    """A register: "" is absent. An answer "?" fits every state, as does its having no effect."""
    what, answer = one.what, one.answer
    assert isinstance(what, tuple) and isinstance(answer, tuple)
    kind = what[0]
    if kind == "read":
        return state if answer[0] == state else IMPOSSIBLE
    if kind == "put":
        return what[1] if answer[0] in ("done", "?") else IMPOSSIBLE
    if kind == "insert":
        if answer[0] == "?":
            return state or what[1]
        fits = (answer[0] == "done") == (state == "")
        return (state or what[1]) if fits else IMPOSSIBLE
    if answer[0] == "?":
        return ""
    return "" if (answer[0] == "done") == (state != "") else IMPOSSIBLE


def _answer(result: Any) -> str:
    if not isinstance(result, Rejected):
        return "done"
    return "no" if result in (Rejected.CONFLICT, Rejected.UNKNOWN_SCHEDULE) else result.name


def _raw(command: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(command))
