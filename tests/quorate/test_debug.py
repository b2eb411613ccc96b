"""Debug bundles of a real node, and of one that is dead."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

from quorate import Client
from quorate.testing import free_port, local_node

SECRET = "a long enough shared secret"


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:gz") as tar:
        found = {}
        for entry in tar.getmembers():
            part = tar.extractfile(entry)
            assert part is not None
            found[entry.name.removeprefix("quorate-debug/")] = part.read()
    return found


async def test_a_bundle_has_all_of_a_living_node_and_says_which_one_is_dead(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    target = tmp_path / "bundle.tar.gz"
    async with local_node(cluster_secret=SECRET) as url, Client([dead, url]) as client:
        manifest = await client.debug.save(target)
    answered = {node["url"]: node["answered"] for node in manifest["nodes"]}
    assert answered == {dead: False, url: True}
    files = contents(target)
    assert json.loads(files["bundle.json"]) == manifest
    folder = url.removeprefix("http://").replace(":", "-")
    assert {name for name in files if "/" in name} == {
        f"{folder}/{name}"
        for name in (
            "clock.json",
            "cluster.json",
            "debug.json",
            "live.json",
            "members.json",
            "metrics.txt",
            "ready.json",
            "stats.json",
        )
    }
    (silent,) = [node for node in manifest["nodes"] if node["url"] == dead]
    assert "no answer" in silent["troubles"]["debug.json"]
    told = json.loads(files[f"{folder}/debug.json"])
    assert told["status"]["role"] == "leader"
    assert any("segment" in file["name"] or "journal" in file["name"] for file in told["files"])
    assert "dispatcher.mailbox" in told["queues"]
    assert any("actor:dispatcher" in line for line in told["tasks"])
    assert any(line.startswith("loopwatch: ") for line in told["threads"])
    assert b"process_open_fds" in files[f"{folder}/metrics.txt"]
    assert b"quorate_loop_lag_seconds_bucket" in files[f"{folder}/metrics.txt"]
    assert not any(SECRET.encode() in body for body in files.values())


async def test_members_are_found_and_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    """Nothing of a file that was there before is left in it."""
    target = tmp_path / "bundle.tar.gz"
    target.write_bytes(b"old")
    async with local_node() as url, Client(url.replace("127.0.0.1", "localhost")) as client:
        manifest = await client.debug.save(target)
    assert [node["url"] for node in manifest["nodes"]] == [
        url.replace("127.0.0.1", "localhost"),
        url,
    ]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.tar.gz"]
