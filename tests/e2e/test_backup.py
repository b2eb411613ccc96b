"""Backups of a running cluster, and new clusters of real processes that begin with them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from chaos.live.processes import LocalCluster
from cluster.backup.logs import read_entries
from quorate import Client, JobRequest
from tests.e2e.conftest import FLAGS, TASKS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

LATER = 3_600.0


async def offline(*arguments: str) -> dict[str, Any]:
    """`python -m cluster.backup`, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cluster.backup", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told: dict[str, Any] = json.loads(out)
    return told


async def restored(cluster: LocalCluster, backup: Path | str, *more: str) -> dict[str, Any]:
    """Every node's folder made from the backup, with the flags that its command has."""
    flags = [node.argv[2:] for node in cluster.nodes]  # behind the interpreter and the program
    restores = (offline("restore", str(backup), *more, "--", *each) for each in flags)
    return (await asyncio.gather(*restores))[-1]


async def fill(cluster: LocalCluster, client: Client) -> dict[str, str]:
    """Jobs of every kind; a name for each that a test wants to see again."""
    await cluster.worker("w1", TASKS, slots=4)
    done = await client.submit("quick", "done")
    assert await done.result(timeout=60) == "done"
    running = await client.submit("slow", LATER)
    waiting = await client.submit("quick", "waiting", delay=LATER)
    plain = await client.submit_many([JobRequest(name="nobody", payload=n) for n in range(500)])
    await client.schedules.put("nightly", "quick", schedule="0 3 1 1 *")  # not while a test runs

    async def runs() -> bool:
        return (await client.jobs.get(running.id)).status == "running"

    await cluster.until(runs, "the slow job to run")
    return {
        "done": done.id,
        "running": running.id,
        "waiting": waiting.id,
        "first": plain[0].id,
        "last": plain[-1].id,
    }


def files_of(folders: list[Path]) -> dict[Path, bytes]:
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found}


async def began_anew(lost: LocalCluster, places: list[Path]) -> None:
    """The mistake that a lost cluster invites: its nodes are started with empty folders. They have
    its name, and leave its backups alone."""
    for node in lost.nodes:
        shutil.rmtree(node.data)
    before = files_of(places)
    await lost.start_nodes()

    async def refused() -> bool:
        pages = [(await lost.request("GET", "/metrics", node))[1] for node in lost.nodes]
        return all("keeper_shelf_refused 1" in page for page in pages)

    await lost.until(refused, "the shelf to be refused")
    await lost.kill_all_nodes()
    assert files_of(places) == before


async def test_a_new_cluster_begins_with_all_that_the_old_one_had(tmp_path: Path) -> None:
    backup = tmp_path / "backup.tar"
    async with (
        LocalCluster(tmp_path / "old", flags=FLAGS) as old,
        Client(old.urls) as client,
    ):
        ids = await fill(old, client)
        before = {name: await client.jobs.get(job_id) for name, job_id in ids.items()}
        manifest = await client.backups.save(backup, history=True)
        assert manifest["jobs"] == 502
        late = await client.submit("quick", "after the backup", delay=LATER)
    checked = await offline("verify", str(backup))
    assert (checked["jobs"], checked["running_jobs"], checked["schedules"]) == (502, 1, 1)
    new = LocalCluster(tmp_path / "new", flags=FLAGS)
    told = await restored(new, backup)
    assert (told["running_jobs"], told["history_rows"]) == (1, 1)
    async with new, Client(new.urls) as client:
        for name in ("done", "waiting", "first", "last"):
            assert await client.jobs.get(ids[name]) == before[name], name
        again = await client.jobs.get(ids["running"])
        assert (again.status, again.attempt, again.failures) == ("pending", 1, 1)
        assert (await client.schedules.get("nightly")).next_run is not None
        assert (await new.request("GET", f"/v1/jobs/{late.id}"))[0] == 404
        # It is a cluster like any other: it elects, commits, runs, and gives numbers of its own.
        fresh = await client.submit("quick", "fresh")
        assert int(fresh.id) > int(late.id) + 100_000
        await new.worker("w2", TASKS, slots=4)
        assert await fresh.result(timeout=60) == "fresh"

        async def equal() -> bool:
            states = [await new.get("/v1/cluster", node) for node in new.nodes]
            return len({(state["applied_index"], state["digest"]) for state in states}) == 1

        await new.until(equal, "equal digests")
        await new.kill_all_nodes()
        await new.start_nodes()
        assert await client.jobs.get(ids["last"]) == before["last"]


async def test_a_restore_goes_on_from_a_backup_to_any_later_moment(tmp_path: Path) -> None:
    shelf, store = tmp_path / "shelf", tmp_path / "store"
    keeping = [*FLAGS, "--backup-folder", str(shelf), "--backup-every-seconds", "3600"]
    keeping += ["--backup-store", f"file://{store}", "--backup-store-seconds", "1"]
    async with (
        LocalCluster(tmp_path / "old", flags=keeping) as old,
        Client(old.urls) as client,
    ):

        async def written() -> bool:
            return bool(list(store.glob("*/full-*.tar")))

        await old.until(written, "the first whole backup")
        wanted = await client.submit("quick", "wanted", delay=LATER)
        leader = await old.leader()
        index = (await old.get("/v1/cluster", leader))["applied_index"]
        # What somebody wishes undone: it comes after the moment that is restored.
        await client.jobs.cancel(wanted.id)
        unwanted = await client.submit("quick", "unwanted", delay=LATER)
        last = (await old.get("/v1/cluster", leader))["applied_index"]

        async def kept() -> bool:
            files = store.glob("*/log-*.kept")
            return any(i >= last for path in files for i, _, _ in read_entries(path))

        await old.until(kept, "the log to be kept")
        await old.kill_all_nodes()
        await began_anew(old, [shelf, store])
    (folder,) = store.iterdir()
    (backup,) = folder.glob("full-*.tar")
    new = LocalCluster(tmp_path / "new", flags=FLAGS)
    more = ["--log", f"file://{folder}", "--to-index", str(index)]
    told = await restored(new, f"file://{backup}", *more)
    assert told["index"] == index
    assert told["replayed_entries"] > 0
    async with new, Client(new.urls) as client:
        assert (await client.jobs.get(wanted.id)).status == "pending"
        assert (await new.request("GET", f"/v1/jobs/{unwanted.id}"))[0] == 404
