"""One node: builds every part from settings, starts them in order and stops them in reverse.

The composition root. It decides nothing itself; to learn how the product works, read what it wires.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from cluster.actors.actor import Actor
from cluster.actors.archivist import Archivist
from cluster.actors.clockwatch import ClockWatch
from cluster.actors.desk import WorkerDesk
from cluster.actors.detector import Detector
from cluster.actors.dispatcher import Dispatcher
from cluster.actors.express import Express
from cluster.actors.fetcher import Fetcher
from cluster.actors.janitor import Janitor
from cluster.actors.keeper import Habits, Keeper
from cluster.actors.leaderwatch import LeaderWatch
from cluster.actors.live import LiveBoard
from cluster.actors.planner import Planner
from cluster.actors.polls import PollDesk
from cluster.actors.proposer import Proposer
from cluster.actors.replanner import Replanner
from cluster.actors.scheduler import Scheduler
from cluster.actors.services import Services
from cluster.actors.submissions import Submissions
from cluster.actors.supervisor import Supervisor
from cluster.actors.timekeeper import Timekeeper
from cluster.actors.upgrader import Upgrader
from cluster.actors.waiters import Waiters
from cluster.api.app import build_app
from cluster.api.door import Door
from cluster.api.peerclock import PeerClockClient
from cluster.api.peerhistory import PeerHistoryClient
from cluster.backup.take import Source
from cluster.clock import Clock, GuardedClock, SystemClock, elapsed_ms
from cluster.consensus import (
    ConsensusConfig,
    ConsensusStartError,
    TlsFiles,
    TransferError,
    check_tls,
)
from cluster.consensus.observe import observe_timer
from cluster.history import History
from cluster.ingest.gate import Gate, IngestError
from cluster.levelmark import LevelError, LevelMark
from cluster.machine.levels import OWN, Support
from cluster.policy.timing import RELEASES
from cluster.preflight import NodeStartError, require_free, require_own, require_store
from cluster.projections.metrics import Metrics
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState
from cluster.settings import Settings, parse_address
from cluster.vitals import Vitals

log = logging.getLogger("quorate.node")

DAY_MS = 86_400_000
LEADER_RESTART_S = 1.0
HANDOVER_S = 2.0


def release() -> str:
    """The installed version, or `dev` in a bare checkout."""
    try:
        return version("quorate")
    except PackageNotFoundError:
        return "dev"


class Node:
    """A member of a cluster (or a cluster of one). Use as an async context manager, or
    `start()` and `stop()`. All methods belong to the event loop that started it.

    `on_stuck(why)` is called, from a thread, when that loop stands still for good; without it this
    is only logged, for the process belongs to whoever embeds the node. `once_serving()` is called
    at the end of the start; what it takes counts as no stall."""

    highest_level = OWN.highest  # that this release knows
    make_raft = RaftState

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        on_stuck: Callable[[str], None] | None = None,
        once_serving: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self._on_stuck = on_stuck
        self._once_serving = once_serving
        self.clock = GuardedClock(
            clock or SystemClock(),
            round(settings.clock_jump_seconds * 1000),
            elapsed_ms if clock is None else clock.monotonic_ms,
        )
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None
        self._gate: Gate | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._started = False
        self._level_mark = LevelMark(settings.data, self.highest_level)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Raises SettingsError for anything wrong in the file."""
        return cls(Settings.from_toml(path))

    # -- building --------------------------------------------------------------------------------

    def _build(self) -> None:
        settings, clock = self.settings, self.clock
        retention_ms = settings.history_retention_days * DAY_MS
        self.history = History.open(settings.data / "history.sqlite", retention_ms, clock)
        support = self._level_mark.support(settings.feature_level_max)
        self.raft = self.make_raft(
            self._consensus_config(support), clock, settings.advertise_http, support=support
        )
        self.raft.on_level(self._level_mark.reached)
        self.leader_watch = LeaderWatch(self.raft)
        self.ready_queues = ReadyQueues()
        self.metrics = Metrics(lambda: self.raft.state, self._gauges)
        self.vitals = Vitals(
            self.metrics.observe_lag_ms,
            settings.loop_stall_warn_ms,
            settings.loop_stall_exit_seconds,
            self._on_stuck,
            settings.memory_limit_mb,
        )
        self.vitals.queues = self._queues
        self.metrics.add_gauges(self.vitals.gauges)
        self.raft.on_effects(lambda effects, _: self.ready_queues.feed(effects))
        self.raft.on_effects(lambda effects, _: self.metrics.feed(effects))
        self.raft.before_restored(self.ready_queues.prepare)
        self.peer_clocks = PeerClockClient()
        self.clocks = ClockWatch(self.raft, clock, self.peer_clocks.ask, RELEASES, release())
        source = Source(
            self.raft.consensus, self.history, settings.advertise, release(), settings.data
        )
        pace, secret = settings.history_fetch_mb_per_second * (1 << 20), settings.cluster_secret
        self.fetcher = Fetcher(self.raft, self.history, PeerHistoryClient(), secret, pace)
        self.metrics.add_gauges(self.fetcher.gauges)
        watches: list[Actor] = [self.clocks, self.fetcher]
        if settings.backup_folder is not None:
            habits = self._habits(settings.backup_folder)
            keeper = Keeper(self.raft, source, habits, clock)
            watches.append(keeper)
            self.metrics.add_gauges(keeper.gauges)
        self.watches = Supervisor(watches, lambda actor: log.critical("%s is off", actor))
        self.metrics.add_gauges(self.clocks.gauges)
        self.metrics.add_gauge(
            "clock_skew_seconds", "Another member's wall clock, ahead", "peer", self.clocks.skews_s
        )
        self.archivist = Archivist(self.raft, self.history)
        self.proposer = Proposer(self.raft)
        self.live = LiveBoard(self.raft)
        self.waiters = Waiters(self.raft)
        grace_ms = round(settings.worker_reconnect_grace_seconds * 1000)
        self.desk = WorkerDesk(self.raft, self.proposer, clock, self.live, grace_ms)
        ttl_ms = round(settings.worker_ttl_seconds * 1000)
        self.polls = PollDesk(self.raft, self.desk, clock, ttl_ms)
        self.upgrades = Upgrader(self.raft, self.proposer, settings.feature_level_delay_seconds)
        self.leader_duties = self._leader_duties(ttl_ms)
        self.raft.on_leadership(self._on_leadership)
        express = Express(self.raft, self.proposer, self.desk, self.ready_queues, self.dispatcher)
        self.services = Services(
            settings, clock, self.raft, self.proposer, self.desk, self.polls, self.waiters,
            self.live, self.history, self.metrics, self.clocks, Planner(self.raft, clock),
            Submissions(self.proposer, express), source, self.upgrades, self.vitals, self.fetcher,
        )  # fmt: skip

    def _habits(self, folder: Path) -> Habits:
        settings = self.settings
        return Habits(
            folder, settings.backup_every_seconds, settings.backup_keep, settings.backup_history,
            settings.backup_log, settings.backup_store, settings.backup_store_seconds,
        )  # fmt: skip

    def _leader_duties(self, ttl_ms: int) -> Supervisor:
        """The actor tree, as data."""
        settings, clock, raft, proposer = self.settings, self.clock, self.raft, self.proposer
        self.dispatcher = Dispatcher(raft, proposer, self.desk, self.ready_queues)
        return Supervisor(
            [
                Timekeeper(raft, proposer, clock),
                self.dispatcher,
                Scheduler(raft, proposer, clock),
                Replanner(raft, proposer, clock),
                Detector(raft, proposer, self.desk, clock, ttl_ms),
                Janitor(raft, proposer, settings.dead_letters_max),
                self.upgrades,
            ],
            self._on_give_up,
        )

    def _consensus_config(self, support: Support = OWN) -> ConsensusConfig:
        settings = self.settings
        return ConsensusConfig(
            node_id=settings.advertise,
            listen=settings.listen,
            peers=settings.peers,
            join=settings.join,
            data_dir=settings.data,
            cluster_secret=settings.cluster_secret,
            tls=TlsFiles(*settings.raft_tls) if settings.raft_tls is not None else None,
            meta={
                "http": settings.advertise_http,
                "version": release(),
                "name": settings.name,
                **support.meta(),
            },
            fsync=settings.fsync,
            heartbeat_ms=settings.heartbeat_ms,
            election_min_ms=settings.election_min_ms,
            election_max_ms=settings.election_max_ms,
            snapshot_journal_bytes=settings.snapshot_journal_mb << 20,
        )

    def _gauges(self) -> dict[str, float]:
        """What only this node can tell, for `/metrics`."""
        raft = self.raft
        gauges: dict[str, float] = {
            "raft_is_leader": raft.is_leader,
            "no_leader_seconds": self.leader_watch.without_s(),
            "raft_term": raft.consensus.term,
            "raft_commit_index": raft.commit_index,
            "raft_applied_index": raft.applied_index,
            "feature_level": raft.feature_level,
            "feature_level_known": raft.support.highest,
            "proposals_queued": self.proposer.queued,
            "proposed_batches": self.proposer.batches_total,
            "proposed_commands": self.proposer.commands_total,
            "fast_lane_submissions": self._door.submitted_total if self._door is not None else 0,
            "assigned_jobs": self.dispatcher.assigned_total,
            "actor_restarts": self.leader_duties.restarts_total,
            "listener_errors": raft.listener_errors_total,
        }
        if self._gate is not None:
            gauges |= self._gate.gauges()
        for source, values in (
            ("raft", raft.consensus.status()),
            ("history", self.history.stats()),
        ):
            for name, value in values.items():
                if isinstance(value, int | float):
                    gauges.setdefault(f"{source}_{name}", value)
        return gauges

    def _queues(self) -> dict[str, int]:
        """What waits where."""
        return {
            **self.leader_duties.waiting(),
            **self.watches.waiting(),
            "proposals": self.proposer.queued,
            "gathered_bytes": self.services.submissions.waiting_bytes,
            "worker_sessions": len(self.desk.sessions),
            "history_rows": self.history.stats()["rows_buffered"],
        }

    # -- leadership ------------------------------------------------------------------------------

    def _on_leadership(self, leads: bool) -> None:
        if leads:
            self.leader_duties.start()
            return
        for task in self.leader_duties.stop():
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    def _on_give_up(self, actor: str) -> None:
        """A leader duty keeps crashing here: let another node try, then begin anew."""
        task = asyncio.create_task(self._step_down(actor))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _step_down(self, actor: str) -> None:
        log.critical("stepping down because %s keeps crashing", actor)
        await self.leader_duties.stopped()
        with contextlib.suppress(TransferError):
            await self.raft.transfer(None)
        await asyncio.sleep(LEADER_RESTART_S)
        if self.raft.is_leader:
            self.leader_duties.start()

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover from disk, join the cluster, serve. Raises NodeStartError."""
        # Before anything is written: who starts a node by mistake shall not find a data folder.
        require_free(self.settings.listen, "listen")
        require_free(self.settings.http, "http")
        require_store(self.settings.backup_store)
        config = self._consensus_config()
        try:
            if config.tls is not None:
                check_tls(config.tls, config.node_id)
        except ConsensusStartError as error:
            raise NodeStartError(str(error)) from error
        try:
            self.settings.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NodeStartError(
                f"cannot create data folder {self.settings.data}: {error.strerror}"
            ) from error
        require_own(self.settings.data, self.settings.advertise)
        try:
            self._level_mark.read(joins=self.settings.join)
            self._build()
            self.vitals.start()
            await self.raft.consensus.start()
        except (ConsensusStartError, LevelError, OSError) as error:
            await self._abandon()
            raise NodeStartError(str(error)) from error
        except asyncio.CancelledError:
            await self._abandon()
            raise
        self._started = True
        self._level_mark.write()
        observe_timer(self.raft.consensus, self.vitals.loop.on_timer)
        self.archivist.settle()
        self.leader_watch.start()
        self.watches.start()
        try:
            await self._serve()
        except NodeStartError:
            await self.stop()
            raise
        self._once_serving()
        self.vitals.watch()  # not before: reading from disk and building the API take their time

    async def _abandon(self) -> None:
        if hasattr(self, "history"):
            self.vitals.stop()
            await self.history.close()

    async def _serve(self) -> None:
        host, port = parse_address(self.settings.http, "http")
        self._runner = web.AppRunner(
            build_app(self.services), access_log=None, shutdown_timeout=self.settings.drain_seconds
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._door = Door(self.services, self._runner.server)
        try:
            if self.settings.ingest:
                self._gate = Gate(self.services, self._door, self.settings.ingest)
                await self._gate.start()
            else:
                await self._door.open(host, port)
        except IngestError as error:
            raise NodeStartError(str(error)) from error
        except OSError as error:
            raise NodeStartError(
                f"cannot listen on http {self.settings.http}: {error.strerror}; "
                "stop what uses that port or choose another with --http"
            ) from error
        log.info("serving http://%s, raft %s", self.settings.advertise_http, self.settings.listen)

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until a leader is known and this node has caught up. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self.raft.joined()

    async def drain(self) -> None:
        """Stop being ready and hand leadership over, if somebody can take it."""
        self.services.draining = True
        if self.raft.is_leader and self.raft.consensus.peers():
            # A healthy follower takes over in milliseconds; when all nodes stop at once none will.
            timeout_s = min(self.settings.drain_seconds, HANDOVER_S)
            try:
                leader = await self.raft.transfer(None, round(timeout_s * 1000))
                log.info("handed leadership to %s", leader)
            except TransferError as error:
                log.warning("leadership was not handed over: %s", error)

    async def stop(self) -> None:
        """Drain and stop; idempotent."""
        if not self._started:
            return
        self._started = False
        await self.drain()
        self.leader_watch.stop()
        await self._stop_serving()
        await self.leader_duties.stopped()
        await self.watches.stopped()
        await self.peer_clocks.close()
        await asyncio.gather(*self._stopping, return_exceptions=True)
        self.vitals.stop()
        await self.raft.consensus.stop()
        await self.history.close()

    async def _stop_serving(self) -> None:
        """Both servers have the same time to answer what is under way."""
        if self._runner is None:
            return
        if self._gate is not None:
            await self._gate.stop(self.settings.drain_seconds)
        cleanup = [self._runner.cleanup()]
        if self._door is not None:
            cleanup.insert(0, self._door.close(self.settings.drain_seconds))
        await asyncio.gather(*cleanup)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
