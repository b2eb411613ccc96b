"""Nothing that comes from a network or a disk is ever unpickled, whatever the engine can do (D1).

A node's whole life runs in a process of its own in which every way to pickle raises: audit hooks
cannot be taken back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

LIFE = """
import asyncio, pickle, sys, tempfile
from pathlib import Path

def forbidden(*arguments, **more):
    raise AssertionError("something was pickled or unpickled")

def hook(event, arguments):
    if event == "pickle.find_class" and is_running:
        forbidden()

is_running = False
sys.addaudithook(hook)
import pysyncobj.pickle
from consensus_helpers import running

for module in (pickle, pysyncobj.pickle):
    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler", "_loads", "_load"):
        if hasattr(module, name):
            setattr(module, name, forbidden)

async def life():
    global is_running
    is_running = True
    with tempfile.TemporaryDirectory() as folder:
        settings = {"trailing_entries": 1, "trailing_bytes": 1, "segment_bytes": 4096}
        async with running(Path(folder), 3, **settings) as cluster:
            await cluster.commit(*[b"x" * 1000 for _ in range(20)])
            leader = await cluster.leader()
            slow = cluster.followers(leader)[0]
            slow.consensus.abort()
            await cluster.commit(*[b"y" * 1000 for _ in range(20)])
            leader = await cluster.leader(but=slow)
            await leader.consensus.snapshot_now()
            await cluster.restart(cluster.nodes.index(slow))
            assert len(await cluster.all_equal()) == 40
            await (await cluster.leader()).consensus.transfer_leadership(None, 5000)
            await cluster.commit(b"z")
            assert len(await cluster.all_equal()) == 41
    is_running = False

asyncio.run(life())
import pytest
is_running = True
for call in (lambda: pickle.loads(b""), lambda: __import__("_pickle").loads(b"cos\\nsystem\\n.")):
    with pytest.raises(AssertionError):
        call()  # the trap itself works
print("lived without a pickle")
"""


def test_a_nodes_whole_life_pickles_nothing() -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "consensus")])
    done = subprocess.run(
        [sys.executable, "-c", LIFE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.endswith("lived without a pickle\n"), done.stderr[-3000:]
