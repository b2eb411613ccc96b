"""Backups over HTTP: whole, and honest about a history that is not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from api_fakes import Api

from cluster.backup import open_bundle
from cluster.backup.__main__ import main as offline
from cluster.backup.manifest import decode_manifest
from cluster.backup.take import Source
from cluster.consensus.members import first_members
from cluster.consensus.snapfile import SnapshotFile, write_content
from cluster.history import History
from cluster.history.gaps import Gap
from cluster.machine import snapshot
from cluster.machine.commands import JobGroup, SubmitJobs
from cluster.machine.model import JobSpec
from quorate import Client
from quorate.cli import main as quorate
from quorate.cli import output

FLAGS = ["--listen", "127.0.0.1:7101", "--http", "127.0.0.1:8101"]


class Snapshots:
    """As much of consensus as a backup needs."""

    def __init__(self, api: Api, path: Path) -> None:
        self._raft = api.node.raft
        self._path = path
        self.newest_snapshot: SnapshotFile | None = None

    async def snapshot_now(self) -> int:
        index = self._raft.applied_index
        with self._path.open("wb") as file:
            write_content(
                file, cluster=b"c" * 16, index=index, term=1, members=first_members(["a"]),
                chunks=snapshot.dump(self._raft.state),
            )  # fmt: skip
        self.newest_snapshot = SnapshotFile(self._path, index, 1)
        return index


@pytest.fixture(autouse=True)
def for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences, as on a terminal."""
    monkeypatch.setattr(output, "wants_json", lambda args: False)


@pytest.fixture
async def index(api: Api, tmp_path: Path) -> int:
    """A node that can be backed up, with a finished job; how far its log has come."""
    source = Source(
        cast(Any, Snapshots(api, tmp_path / "a.snap")), api.node.history, "a", "1", tmp_path
    )
    api.node.services.backups = source
    job_id = int(await api.submit())
    worker = await api.worker()
    (job,) = await worker.take()
    await api.node.desk.complete(worker.id, [job_id], [job.attempt], None, None)
    await api.node.history.flushed(api.node.raft.applied_index)
    return api.node.raft.applied_index


async def come_on(api: Api, entries: int) -> int:
    """The log goes on without the history, as behind a snapshot of another node."""
    for _ in range(entries):
        await api.node.proposer.propose(SubmitJobs([JobGroup(JobSpec("nobody"), [b"x"])]))
    api.node.history.skip_to(api.node.raft.applied_index, 5_000)
    return api.node.raft.applied_index


async def told(*argv: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert await asyncio.to_thread(quorate, list(argv)) == 0
    found = capsys.readouterr()
    return found.out, found.err


async def test_a_whole_history_is_said_to_be_whole(
    api: Api, index: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.tar"
    async with Client(api.url) as client:
        manifest = await client.backups.save(path, history=True)
    assert (manifest["index"], manifest["history_lacks"]) == (index, [])
    assert await asyncio.to_thread(offline, ["verify", str(path)]) == 0
    checked = capsys.readouterr()
    assert json.loads(checked.out)["history_complete"] is True
    assert not checked.err


async def test_what_lacks_is_told_by_whoever_shows_the_backup(
    api: Api, index: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = await come_on(api, 3)
    lacks = f"lacks finished jobs of log entries {index + 1} to {last}"
    path = tmp_path / "b.tar"
    out, _ = await told(
        "cluster", "backup", str(path), "--history", "--nodes", api.url, capsys=capsys
    )
    assert lacks in out
    with open_bundle(path) as bundle:
        assert bundle.manifest.history_lacks == ((index + 1, last),)
    assert await asyncio.to_thread(offline, ["verify", str(path)]) == 0
    checked = capsys.readouterr()
    assert json.loads(checked.out)["history_complete"] is False
    assert lacks in checked.err


async def test_a_backup_that_is_put_somewhere_says_it_as_well(
    api: Api, index: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies: list[bytes] = []

    async def store(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    app = web.Application(client_max_size=1 << 24)
    app.router.add_put("/b.tar", store)
    async with TestServer(app) as server, Client(api.url) as client:
        url = str(server.make_url("/b.tar"))
        found = await client.backups.put(url, history=True)
        assert found == {"index": index, "history_complete": True}
        found = await client.backups.put(url)
        assert found == {"index": index, "history_complete": None}
        await come_on(api, 1)
        out, _ = await told("backup", "take", url, "--history", "--nodes", api.url, capsys=capsys)
        assert out.strip().endswith("its history is incomplete")
        out, _ = await told("backup", "take", url, "--nodes", api.url, capsys=capsys)
        assert "incomplete" not in out
    assert len(bodies) == 4


async def test_a_restored_history_lacks_what_the_backup_lacked(
    api: Api, index: int, tmp_path: Path
) -> None:
    data = {}
    for name, entries in (("whole", 0), ("lacking", 2)):
        last = await come_on(api, entries)
        path, data[name] = tmp_path / f"{name}.tar", tmp_path / name
        async with Client(api.url) as client:
            await client.backups.save(path, history=True)
        command = ["restore", str(path), "--", *FLAGS, "--data", str(data[name])]
        assert await asyncio.to_thread(offline, command) == 0
    found = {}
    for name, folder in data.items():
        history = History.open(folder / "history.sqlite", 0)
        found[name] = list(history.lacks)
        assert (await history.exchange.standing()).complete_to == (
            index if name == "whole" else last
        )
        await history.close()
    (gap,) = found["lacking"]
    assert gap.entries == (index + 1, last)
    assert isinstance(gap, Gap)
    assert found["whole"] == []


def test_a_backup_of_an_earlier_release_does_not_say() -> None:
    manifest = decode_manifest(
        b'{"format":1,"cluster_id":"c","node_id":"n","release":"1","index":1,"term":1,'
        b'"created_ms":1,"jobs":0,"dead_letters":0,"schedules":0,"has_history":true,"parts":{}}'
    )
    assert manifest.history_lacks is None
