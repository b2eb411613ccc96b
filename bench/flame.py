"""A flame graph of one process at P2: `python -m bench.flame`, or `--role follower`, or `worker`.

py-spy is looked for in PATH and beside this Python. It (`pip install --group profile`) needs
the right to look into a process of the same user's, which the kernel may reserve for its parent or
for root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from bench.__main__ import commit
from bench.flow import SLOTS, Load, Posting
from bench.harness import QUIET, by_status
from bench.usage import usage_of
from chaos.live.processes import ROOT, LocalCluster

IMAGES = ROOT / "docs" / "img"
ROLES = ("leader", "follower", "worker")
SAMPLES_PER_S = 250
WARM_S = 1.0
ENDLESS_JOBS = 1 << 60
WATCH_S = 0.02
TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*<')


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description=__doc__)
    parser.add_argument("--role", choices=ROLES, default="leader")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="default: docs/img/ROLE-p2.svg")
    arguments = parser.parse_args()
    role, out = arguments.role, arguments.out or IMAGES / f"{arguments.role}-p2.svg"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quorate-flame-") as folder:
        work = recorded(py_spy(), role, arguments.seconds, out, "flamegraph", Path(folder))
        title = f"{role} at P2, commit {commit()}: {asyncio.run(work):.1f} us of CPU time per job"
    # The recorder writes its own command there, with this machine's paths.
    out.write_text(TITLE.sub(rf"\g<1>{title}<", out.read_text(encoding="utf-8"), count=1))
    print(f"{title}, {out}")
    return 0


def py_spy() -> str:
    """Where it is; ends the program when it is nowhere."""
    found = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if found is None:
        sys.exit("py-spy is not installed: python -m pip install --group profile")
    return found


async def recorded(spy: str, role: str, seconds: int, out: Path, form: str, folder: Path) -> float:
    """CPU microseconds that the process used per job while it was recorded, in py-spy's `form`."""
    async with LocalCluster(folder, flags=QUIET) as cluster:
        await cluster.worker("w1", "bench.tasks:app", slots=SLOTS)
        pid = await _pid_of(cluster, role)
        async with _flowing(cluster):
            done, used = (await by_status(cluster))["completed"], usage_of(pid)
            recorder = await asyncio.create_subprocess_exec(
                *(spy, "record", "--pid", str(pid), "--duration", str(seconds)),
                *("--rate", str(SAMPLES_PER_S), "--format", form, "--output", str(out)),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            code = await recorder.wait()
            cpu_s = (usage_of(pid) - used).cpu_s
            jobs = (await by_status(cluster))["completed"] - done
    if code:
        sys.exit(f"py-spy failed with code {code}")
    return cpu_s / jobs * 1e6


@contextlib.asynccontextmanager
async def _flowing(cluster: LocalCluster) -> AsyncIterator[None]:
    """Jobs go through all the time."""
    leader = await cluster.leader()
    async with aiohttp.ClientSession() as session:
        posting = Posting(session, leader.url, Load(ENDLESS_JOBS), is_held_back=True)

        async def watch() -> None:
            while True:
                posting.done = (await by_status(cluster))["completed"]
                await asyncio.sleep(WATCH_S)

        tasks = [asyncio.create_task(watch()), asyncio.create_task(posting.run())]
        await asyncio.sleep(WARM_S)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pid_of(cluster: LocalCluster, role: str) -> int:
    leader = await cluster.leader()
    if role == "worker":
        return cluster.workers[0].pid
    if role == "leader":
        return leader.pid
    return next(node.pid for node in cluster.nodes if node is not leader)


if __name__ == "__main__":
    sys.exit(main())
