"""A node without consensus: what is proposed is committed at once, on the same event loop.

Everything above the log is the real thing, so these tests see what a client of a real node sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
from aiohttp.test_utils import TestClient, TestServer

from cluster.actors.archivist import Archivist
from cluster.actors.assigned import Assigned
from cluster.actors.clockwatch import AskError, ClockWatch
from cluster.actors.desk import WorkerDesk
from cluster.actors.dispatcher import Dispatcher
from cluster.actors.express import Express
from cluster.actors.fetcher import Fetcher
from cluster.actors.live import LiveBoard
from cluster.actors.peerclocks import ClockAnswer
from cluster.actors.planner import Planner
from cluster.actors.polls import PollDesk
from cluster.actors.proposer import Proposer
from cluster.actors.services import Assignment, AttemptError, Services
from cluster.actors.submissions import Submissions
from cluster.actors.supervisor import Supervisor
from cluster.actors.upgrader import Upgrader
from cluster.actors.waiters import Waiters
from cluster.api import build_app
from cluster.backup.take import Source
from cluster.clock import GuardedClock, ManualClock
from cluster.consensus import Outcome, PeerStatus, ReadError, ReadFailure, TransferError
from cluster.consensus.observe import Health
from cluster.history import History
from cluster.machine.apply import apply
from cluster.machine.commands import decode_batch
from cluster.machine.levels import HIGHEST_LEVEL, OWN
from cluster.machine.model import WorkerSpec
from cluster.machine.state import State
from cluster.projections.metrics import Metrics
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import MemberLevels
from cluster.settings import Settings
from cluster.vitals import Vitals

NOW_MS = 1_795_000_000_000  # 2026-11-18T11:06:40Z


class FakeRaft:
    """A replica that commits alone. `fate` decides what becomes of proposals."""

    def __init__(self, node_id: str, clock: GuardedClock) -> None:
        self.state = State()
        self.state.level = HIGHEST_LEVEL
        self.support = OWN
        self.other_levels: list[MemberLevels] = []
        self.node_id = node_id
        self.is_leader = True
        self.leader_id: str | None = node_id
        self.leader_http: str | None = f"http://{node_id}"
        self.epoch = 1
        self.applied_index = 0
        self.caught_up = True
        self.health = Health()
        self.fate = Outcome.APPLIED
        self.held: list[Any] | None = None  # a list: proposals wait in it
        self.read_failure: ReadFailure | None = None
        self.read_indexes = 0
        self.others: list[str] = []
        self.peers: list[PeerStatus] = []
        self.consensus = SimpleNamespace(cluster_id="c1", peers=lambda: self.peers)
        self.members: dict[str, str] = {}
        self.members_epoch = 0
        self.changes: list[tuple[str, ...]] = []
        self.refusals: list[Exception] = []
        self._clock = clock
        self._listeners: list[Any] = []
        self._leadership: list[Any] = []
        self._leader_listeners: list[Any] = []

    @property
    def commit_index(self) -> int:
        return self.applied_index

    def on_effects(self, listener: Any) -> None:
        self._listeners.append(listener)

    def on_restored(self, listener: Any) -> None: ...

    def on_leadership(self, listener: Any) -> None:
        self._leadership.append(listener)

    def on_leader(self, listener: Any) -> None:
        self._leader_listeners.append(listener)

    def before_truncation(self, gate: Any) -> None: ...

    def hold_epoch(self, gate: Any) -> None: ...

    @property
    def feature_level(self) -> int:
        return self.state.level

    def levels(self) -> list[MemberLevels]:
        return [MemberLevels(self.node_id, True, self.support), *self.other_levels]

    async def leader_elected(self, timeout_s: float) -> bool:
        return self.leader_id is not None

    def voters(self) -> tuple[str, ...]:
        return (self.node_id,)

    def propose_raw(self, commands: list[msgspec.Raw], callback: Any) -> None:
        entry = msgspec.msgpack.encode((self.epoch, self._clock.now_ms(), commands))
        if self.held is not None:
            self.held.append((entry, callback))
            return
        asyncio.get_running_loop().call_soon(self._commit, entry, callback)

    def release_held(self) -> None:
        """Commit what waited."""
        held, self.held = self.held or [], None
        for entry, callback in held:
            self._commit(entry, callback)

    def _commit(self, entry: bytes, callback: Any) -> None:
        if self.fate is not Outcome.APPLIED:
            callback(self.fate, None)
            return
        self.applied_index += 1
        results, effects = apply(self.state, decode_batch(entry))
        for listener in self._listeners:
            listener(effects, self.applied_index)
        callback(Outcome.APPLIED, results)

    def follow(self, leader_id: str | None, leader_http: str | None) -> None:
        """Somebody else leads from now on, or nobody."""
        was_leader, self.is_leader = self.is_leader, False
        self.leader_id, self.leader_http = leader_id, leader_http
        if was_leader:
            for listener in self._leadership:
                listener(False)
        self.hear_of(leader_id, leader_http)

    def hear_of(self, leader_id: str | None, leader_http: str | None) -> None:
        """As every node does, the new leader too."""
        self.leader_id, self.leader_http = leader_id, leader_http
        for listener in self._leader_listeners:
            listener(leader_http)

    async def add_member(self, node_id: str, timeout_ms: int, *, is_learner: bool) -> None:
        standing = "learner" if is_learner else "joining"
        self.change("add", node_id, standing)
        self.members[node_id] = standing

    async def remove_member(self, node_id: str, timeout_ms: int) -> None:
        self.change("remove", node_id)
        del self.members[node_id]

    def change(self, *change: str) -> None:
        """The next of the planned refusals, or it is done."""
        self.changes.append(change)
        if self.refusals:
            raise self.refusals.pop(0)
        self.members_epoch += 1

    def others_http(self) -> list[str]:
        return self.others

    async def read_index(self, timeout_ms: int) -> int:
        self.read_indexes += 1
        await asyncio.sleep(0)
        if self.read_failure is not None:
            raise ReadError(self.read_failure)
        return self.applied_index

    async def transfer(self, target: str | None) -> str:
        if target == "nobody":
            raise TransferError("no member is called nobody")
        return target or "other"

    def status(self) -> dict[str, Any]:
        own = {
            "id": self.node_id,
            "http": f"http://{self.node_id}",
            "role": "leader" if self.is_leader else "follower",
            "connected": True,
            "match_index": self.applied_index,
            "last_contact_ms": 0,
        }
        return {
            "term": 1,
            "role": own["role"],
            "epoch": self.epoch,
            "digest": f"{self.state.digest:08x}",
            "fsync_p50_ms": 0.2,
            "members": [own, *({**own, "id": i, "standing": s} for i, s in self.members.items())],
        }


async def nobody_answers(base_url: str) -> ClockAnswer:
    raise AskError("this node has no peers")


class FakeNode:
    """One node's services and its HTTP application."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = ManualClock(NOW_MS)
        self.guarded = GuardedClock(self.clock, 10_000)
        self.settings = Settings(data=folder, **settings)
        self.raft = FakeRaft("127.0.0.1:7001", self.guarded)
        raft: Any = self.raft
        nothing: Any = None
        self.ready = ReadyQueues()
        self.metrics = Metrics(lambda: self.raft.state, lambda: {"raft_is_leader": 1.0})
        raft.on_effects(lambda effects, _: self.ready.feed(effects))
        self.history = History.open(folder / "history.sqlite", 0, self.clock)
        self.archivist = Archivist(raft, self.history)
        self.proposer = Proposer(raft)
        self.live = LiveBoard(raft)
        self.waiters = Waiters(raft)
        self.desk = WorkerDesk(raft, self.proposer, self.clock, self.live, 2_000)
        self.polls = PollDesk(raft, self.desk, self.clock, 10_000)
        dispatcher = Dispatcher(raft, self.proposer, self.desk, self.ready)
        self.duties = Supervisor([dispatcher], lambda name: None)
        self.clocks = ClockWatch(raft, self.guarded, nobody_answers, "tzdata 1", "1.0")
        self.fetcher = Fetcher(raft, self.history, nothing, None, 0)
        express = Express(raft, self.proposer, self.desk, self.ready, dispatcher)
        self.services = Services(
            self.settings, self.guarded, raft, self.proposer, self.desk, self.polls, self.waiters,
            self.live, self.history, self.metrics, self.clocks,
            Planner(raft, self.guarded), Submissions(self.proposer, express),
            Source(nothing, self.history, self.raft.node_id, "1.0", folder),
            Upgrader(raft, self.proposer, 60.0), Vitals(), self.fetcher,
        )  # fmt: skip
        self.app = build_app(self.services)

    async def close(self) -> None:
        await self.duties.stopped()
        await self.history.close()


async def until(predicate: Callable[[], object]) -> None:
    """Let the loop run until the predicate holds; an error after five seconds."""
    async with asyncio.timeout(60):
        while not predicate():  # noqa: ASYNC110  (nobody signals what tests look at)
            await asyncio.sleep(0)


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def code(self) -> str:
        """Of the problem; its shape is checked, too."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        problem = self.json
        assert problem["status"] == self.status
        assert problem["type"] == f"urn:quorate:problem:{problem['code']}"
        assert problem["title"] and problem["detail"] and problem["instance"]
        return str(problem["code"])

    @property
    def pointer(self) -> str:
        return str(self.json["errors"][0]["pointer"])


class Api:
    """A client of one node."""

    def __init__(self, node: FakeNode, client: TestClient[Any, Any]) -> None:
        self.node = node
        self.client = client
        self.url = str(client.make_url("")).rstrip("/")

    async def __call__(
        self, method: str, path: str, body: Any = None, *, type: str = "", **headers: str
    ) -> Answer:
        """`body`: bytes as they are, anything else as JSON. Headers with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = msgspec.json.encode(body)
        if type:
            sent["Content-Type"] = type
        elif body is not None:
            sent["Content-Type"] = "application/json"
        async with self.client.request(method, path, data=body, headers=sent) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **headers: str) -> Any:
        """The JSON of a GET that must succeed."""
        answer = await self("GET", path, **headers)
        assert answer.status == 200, answer
        return answer.json

    async def submit(self, **fields: Any) -> str:
        """The id of a job that must be accepted."""
        answer = await self("POST", "/v1/jobs", {"name": "t", **fields})
        assert answer.status == 201, answer
        return str(answer.json["job_id"])

    async def worker(self, slots: int = 100, **offer: Any) -> FakeWorker:
        """A worker that does nothing by itself but take what it is given."""
        worker = FakeWorker()
        spec = WorkerSpec(
            "fake", slots, offer.get("queues", ("default",)), offer.get("tasks", ("t",))
        )
        worker.id, _ = await self.node.desk.register(spec, 0, [], worker)
        self.node.desk.grant(worker.id, slots)
        return worker

    async def bury(self, **fields: Any) -> str:
        """A job that has failed for good."""
        job_id = int(await self.submit(max_retries=0, **fields))
        worker = await self.worker()
        assert job_id in [job.job_id for job in await worker.take()]
        error = AttemptError(job_id, 1, "ValueError", "no good", log="some log")
        assert await self.node.desk.fail(worker.id, [error]) == []
        await self.node.desk.leave(worker.id)
        return str(job_id)


class FakeWorker:
    """A sink that keeps what it was sent."""

    def __init__(self) -> None:
        self.id = 0
        self.jobs: asyncio.Queue[list[Assignment]] = asyncio.Queue()
        self.cancelled: list[tuple[int, int]] = []

    def send_jobs(self, jobs: Assigned) -> None:
        self.jobs.put_nowait(jobs.rows())

    def send_cancel(self, attempts: list[tuple[int, int]]) -> None:
        self.cancelled += attempts

    def send_stop(self, attempts: list[tuple[int, int]]) -> None:
        self.cancelled += attempts

    def send_drain(self) -> None: ...

    def close_moved(self, leader_http: str | None) -> None: ...

    async def take(self) -> list[Assignment]:
        async with asyncio.timeout(60):
            return await self.jobs.get()


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Api]:
    """A node that leads, and a client of it."""
    node = FakeNode(folder, **settings)
    node.duties.start()
    async with TestClient(TestServer(node.app)) as client:
        yield Api(node, client)
    node.duties.stop()
    await node.close()
