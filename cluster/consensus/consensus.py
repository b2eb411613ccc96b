"""The asyncio shell around one consensus node: files, sockets, timers, and the public interface.

Start order matters: whatever can refuse (port, folder, journal, snapshots) is checked before the
first byte on disk changes.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

from .change import change_members
from .checks import check_settings
from .core import Core
from .counters import Counters
from .folder import DataFolder
from .guards import Guards
from .host import Host, HostDisk, HostNetwork, RealHost
from .identity import Identity, cluster_id_of, cluster_key, new_identity
from .install import Installer, align, choose_snapshot, restore
from .interface import (
    ConsensusConfig,
    ConsensusError,
    ConsensusStartError,
    FatalError,
    MembershipError,
    PeerStatus,
    ProposalCallback,
    ReadError,
    ReadFailure,
    ReplicatedMachine,
    Role,
    RoleCallback,
    TransferError,
)
from .journal import Journal
from .listener import split_address
from .members import NOBODY, Members, Standing
from .recovery import Recovered, read_journal, settle
from .roster import Roster
from .segments import Batch, SegmentFiles
from .snapfile import SnapshotFile
from .snapreceive import Arrived, SnapshotReceiver
from .snapshotter import Snapshotter
from .snapstore import SnapshotStore
from .status import core_status
from .ticker import Ticker
from .transfer import give_way, transfer_leadership

logger = logging.getLogger("quorate.consensus")


class Consensus:
    """One node. All methods belong to the loop that called `start()`."""

    def __init__(
        self,
        config: ConsensusConfig,
        machine: ReplicatedMachine,
        on_role: RoleCallback,
        host: Host | None = None,
    ) -> None:
        """`host` is what it runs on: sockets and threads unless a simulation says otherwise."""
        self._config = config
        self._host: Host = host or RealHost()
        self._machine = machine
        self._on_role = on_role
        self._counters = Counters()
        self.cluster_id = ""  # in hex, known once started
        self._core: Core | None = None
        self._journal: Journal | None = None
        self._disk: HostDisk | None = None
        self._mesh: HostNetwork | None = None
        self._folder: DataFolder | None = None
        self._snapshotter: Snapshotter | None = None
        self._receiver: SnapshotReceiver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker = Ticker(self._host, self._tick)
        self._is_scheduled = False
        self._stopped = False
        self._jobs: set[asyncio.Future[None]] = set()

    # Life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recovers, listens and dials; ConsensusStartError says in one line why it cannot."""
        if self._loop is not None:
            raise ConsensusError("a consensus node starts once")
        config = self._config
        self._loop = asyncio.get_running_loop()
        members = tuple(sorted((config.node_id, *config.peers)))
        for address in (config.listen, *members):
            split_address(address)
        check_settings(config)
        key = await self._host.offload(lambda: cluster_key(config.cluster_secret))
        self._mesh = self._host.open_network(config, key, self._counters, self._wake)
        storage = self._host.storage
        self._folder = DataFolder(storage, config.data_dir, config.node_id)
        self._mesh.bind()
        try:
            identity = self._folder.open()
            if identity is None and config.join:
                identity = new_identity(await self._mesh.introduce(), config.node_id, ())
            elif identity is None:
                identity = new_identity(cluster_id_of(key, members), config.node_id, members)
            self.cluster_id = identity.cluster_id
            self._mesh.identify(identity.cluster, identity.folder_id)
            await self._recover(identity)
        except BaseException:
            self._mesh.release()
            self._folder.close()
            raise
        await self._mesh.start()
        self._tick()

    async def _recover(self, identity: Identity) -> None:
        config, folder, cluster_id = self._config, self._folder, identity.cluster
        assert folder is not None and self._mesh is not None
        storage, guards = self._host.storage, Guards(config.disabled_guards)
        store = SnapshotStore(storage, folder.snapshots, cluster_id)

        def read() -> tuple[Recovered, SnapshotFile | None]:
            found = read_journal(storage, folder.journal, cluster_id, guards)
            snapshot = choose_snapshot(store, found, guards)
            folder.check_content(found, snapshot)
            return found, snapshot

        found, snapshot = await self._host.offload(read)
        folder.prepare()
        store.remove_unfinished()
        await self._host.offload(lambda: settle(storage, folder.journal, found, guards))
        if snapshot is not None:
            try:
                restore(self._machine, store, snapshot)
            except FatalError as error:
                raise ConsensusStartError(f"{error}; use the release that wrote it") from error
        applied = snapshot.index if snapshot is not None else 1
        members = store.members(snapshot) if snapshot is not None else identity.first
        journal = self._journal = Journal(found, applied, guards)
        files = SegmentFiles(
            storage,
            folder.journal,
            cluster_id,
            found,
            config.segment_bytes,
            fsync=config.fsync and guards.on("b1_fsync"),
        )
        await self._host.offload(lambda: folder.sign(identity, files, journal.opening()))
        self._disk = self._host.open_disk(files, self._on_durable, self._fail)
        journal.attach(self._disk)
        if guards.on("b3_align"):
            align(journal, snapshot)
        keep = journal.trailing_index(applied, config.trailing_entries, config.trailing_bytes)
        journal.trim(keep)
        core = self._core = Core(
            config=config,
            machine=self._machine,
            journal=journal,
            network=self._mesh,
            counters=self._counters,
            wake=self._wake,
            on_role=self._tell_role,
            applied=applied,
            members=members,
        )
        self._mesh.vet = core.vet
        self._note_members(core.roster)
        self._receiver = SnapshotReceiver(store, self._verify, core.snapshot_arrived, guards)
        installer = Installer(core.acceptor, self._machine, self._receiver, store, core.roster)
        core.enable_snapshots(store, installer)
        self._snapshotter = Snapshotter(core, self._machine, store, self._disk, self._host)
        installer.on_installed = self._snapshotter.remember
        installer.run_aside = lambda job: self._keep(asyncio.ensure_future(self._host.offload(job)))
        core.replicator.on_suspect = self._snapshotter.suspect
        if snapshot is not None:
            self._snapshotter.remember(snapshot)

    async def stop(self) -> None:
        """Ends every proposal, flushes the journal and closes everything; may be called twice."""
        if self._stopped or self._core is None:
            self._stopped = True
            return
        self._stopped = True
        self._end_proposals("this node is stopping")
        if self._snapshotter is not None:
            await self._snapshotter.close()
        if self._mesh is not None:
            await self._mesh.close()
        if self._journal is not None and self._disk is not None:
            self._journal.kick()
            await self._host.offload(self._disk.close)
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self._release()

    def abort(self) -> None:
        """Drops everything at once without flushing, as a crash would."""
        if self._stopped or self._core is None:
            self._stopped = True
            return
        self._stopped = True
        self._end_proposals("this node was aborted")
        if self._snapshotter is not None:
            self._snapshotter.abort()
        if self._mesh is not None:
            self._mesh.abort()
        if self._disk is not None:
            self._disk.abandon()
        self._release()

    def _end_proposals(self, reason: str) -> None:
        assert self._core is not None
        self._core.halted = True
        self._core.replicator.end()
        self._core.end_all(reason)

    def _release(self) -> None:
        if self._receiver is not None:
            self._receiver.abandon()
        self._ticker.stop()
        if self._folder is not None:
            self._folder.close()

    # Public state --------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        core = self._running
        return core.engine.role() if core is not None else Role.FOLLOWER

    @property
    def term(self) -> int:
        return self._core.engine.term() if self._core is not None else 0

    @property
    def leader_id(self) -> str | None:
        core = self._running
        return core.engine.leader() if core is not None else None

    @property
    def commit_index(self) -> int:
        """The highest index known to be committed, even if this node's log lacks it so far."""
        return self._core.known_commit_index() if self._core is not None else 0

    @property
    def applied_index(self) -> int:
        return self._core.engine.applied_index() if self._core is not None else 0

    @property
    def is_leader_ready(self) -> bool:
        """This node leads and has applied an entry of its own term: its state is up to date."""
        core = self._running
        return core is not None and core.is_leader_ready()

    def peers(self) -> list[PeerStatus]:
        if self._core is None or self._mesh is None:
            return []
        mesh, engine = self._mesh, self._core.engine
        leads = engine.is_leader()
        standing = {member.id: member.standing for member in self.members().members}
        return [
            PeerStatus(
                peer,
                mesh.epoch(peer) > 0,
                mesh.meta(peer),
                engine.match_index(peer) if leads else 0,
                mesh.last_contact_ms(peer),
                standing.get(peer, "voter"),
            )
            for peer in self._core.roster.others
        ]

    def members(self) -> Members:
        """The configuration in effect on this node; it may be behind, or not committed yet."""
        return self._core.roster.current if self._core is not None else NOBODY

    def status(self) -> dict[str, object]:
        """Plain values for /v1/cluster and metrics."""
        if self._core is None or self._disk is None:
            return {}
        newest = self._snapshotter.newest if self._snapshotter is not None else None
        return {
            **core_status(self._core),
            "role": self.role.value,
            "leader_id": self.leader_id,
            "is_leader_ready": self.is_leader_ready,
            "journal_bytes": self._disk.size_bytes(),
            "snapshot_index": newest.index if newest is not None else 0,
        }

    # Work ----------------------------------------------------------------------------------

    def propose(self, entry: bytes, callback: ProposalCallback) -> None:
        """Adds an entry to the log if this node leads; `callback(outcome, result)` comes later.

        Called exactly once, from the loop, never from inside of this call. `result` is what the
        machine returned (or the exception it raised against its contract), else the reason as text.
        """
        if self._core is None or self._loop is None:
            raise ConsensusError("propose() before start()")
        self._core.propose(entry, callback)
        if self._core.halted:
            self._loop.call_soon(self._core.proposals.call_back)

    async def read_index(self, timeout_ms: int) -> int:
        """An index that is applied here and covers all that was acknowledged before this call.

        Works on every member. Raises ReadError, with what was missing, at the latest after
        `timeout_ms`.
        """
        core = self._running
        if core is None or core.halted:
            raise ReadError(ReadFailure.STOPPED)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def ended(answer: int | ReadError) -> None:
            if future.done():
                return  # whoever asked has gone
            if isinstance(answer, ReadError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        core.read_index(ended, timeout_ms)
        return await future

    async def transfer_leadership(self, target: str | None, timeout_ms: int) -> str:
        """Hands leadership to `target` (or the follower that is furthest); returns the new leader.

        Raises TransferError when this node does not lead, the target cannot take over in time, or
        nobody is connected; then this node goes on leading and taking proposals.
        """
        core = self._running
        if core is None:
            raise TransferError("this node is not running")
        return await transfer_leadership(core, self._wake, target, timeout_ms)

    async def add_member(
        self, node_id: str, timeout_ms: int, standing: Standing = "joining"
    ) -> Members:
        """Lets a node in; as `joining` it gets its vote by itself once it has caught up.

        Returns when the change is committed. MembershipError says why nothing changed, or with
        the code "unknown" that nobody can tell. Only the leader can do it.
        """
        split_address(node_id)
        core = self._leading()
        add = functools.partial(core.membership.add, node_id, standing)
        return await change_members(core, self._wake, add, timeout_ms)

    async def remove_member(self, node_id: str, timeout_ms: int) -> Members:
        """Takes a node out, for good: its data folder is never let in again.

        As `add_member`; the leader cannot remove itself (code "is_leader"): transfer first.
        """
        core = self._leading()
        remove = functools.partial(core.membership.remove, node_id)
        return await change_members(core, self._wake, remove, timeout_ms)

    def _leading(self) -> Core:
        if self._running is None:
            raise MembershipError("not_leader", "this node is not running")
        return self._running

    async def snapshot_now(self) -> int:
        """Writes a snapshot of the applied state and returns its index.

        Raises SnapshotError with what went wrong; the log is then kept as it is.
        """
        if self._snapshotter is None:
            raise ConsensusError("snapshot_now() before start()")
        return await self._snapshotter.take()

    @property
    def newest_snapshot(self) -> SnapshotFile | None:
        """The file loses its name when two newer ones are written."""
        return self._snapshotter.newest if self._snapshotter is not None else None

    def _note_members(self, roster: Roster) -> None:
        """The list given at the start is only for the first one; say so when it differs."""
        config = self._config
        known, given = set(roster.links), set(config.peers)
        if known and given != known and not config.join:
            logger.warning(
                "the members are %s, as this node's data folder says; the peers given at the start "
                "count only at the first one",
                ", ".join(roster.current.ids),
            )

    # Plumbing ------------------------------------------------------------------------------

    @property
    def _running(self) -> Core | None:
        return None if self._stopped else self._core

    def _wake(self) -> None:
        if not self._is_scheduled and self._loop is not None:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        if self._core is not None and not self._stopped:
            self._core.run()
            self._ticker.plan(self._core)

    def _tick(self) -> None:
        if self._stopped or self._loop is None:
            return
        self._wake()
        if self._snapshotter is not None:
            self._snapshotter.consider()
        if self._core is not None:
            successor = self._core.space.successor() or self._core.doubts.successor()
            if successor is not None:
                self._keep(asyncio.ensure_future(give_way(self._core, self._wake, successor)))

    def _on_durable(self, batch: Batch, seconds: float, fsyncs: int, written: int) -> None:
        counters = self._counters
        counters.fsync.add(seconds)
        counters.fsyncs = fsyncs
        counters.journal_bytes_written = written
        if self._core is not None and not self._stopped:
            self._core.on_durable(batch)

    def _fail(self, reason: str) -> None:
        if self._core is not None:
            self._core.fail(reason)

    def _tell_role(self, role: Role, term: int, leader: str | None) -> None:
        assert self._loop is not None
        self._loop.call_soon(self._on_role, role, term, leader)

    def _verify(self, job: Callable[[], Arrived], done: Callable[[Arrived], None]) -> None:
        """Runs a receiver's file work in a thread and brings the result back to the loop."""

        async def work() -> None:
            arrived = await self._host.offload(job)
            if not self._stopped:
                done(arrived)

        self._keep(asyncio.ensure_future(work()))

    def _keep(self, job: asyncio.Future[None]) -> None:
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
