"""A flame graph of one process at P2: `python -m bench.flame`, or `--role follower`, or `worker`.

py-spy is looked for in PATH and beside this Python. It (`pip install --group profile`) needs
the right to look into a process of the same user's, which the kernel may reserve for its parent or
for root.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from bench.flow import SLOTS, Load, end_to_end
from bench.harness import QUIET
from chaos.live.processes import ROOT, LocalCluster

IMAGES = ROOT / "docs" / "img"
SAMPLES_PER_S = 250
WARM_S = 1.0
ROUND_JOBS = 200_000  # between two rounds there is a pause in which all is checked


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description=__doc__)
    parser.add_argument("--role", choices=("leader", "follower", "worker"), default="leader")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="default: docs/img/ROLE-p2.svg")
    arguments = parser.parse_args()
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        parser.error("py-spy is not installed: python -m pip install --group profile")
    out = arguments.out or IMAGES / f"{arguments.role}-p2.svg"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quorate-flame-") as folder:
        return asyncio.run(_record(spy, arguments.role, arguments.seconds, out, Path(folder)))


async def _record(spy: str, role: str, seconds: int, out: Path, folder: Path) -> int:
    async with LocalCluster(folder, flags=QUIET) as cluster:
        await cluster.worker("w1", "bench.tasks:app", slots=SLOTS)
        pid = await _pid_of(cluster, role)
        flowing = asyncio.create_task(_flow(cluster))
        await asyncio.sleep(WARM_S)
        recorder = await asyncio.create_subprocess_exec(
            *(spy, "record", "--pid", str(pid), "--duration", str(seconds)),
            *("--rate", str(SAMPLES_PER_S), "--format", "flamegraph", "--output", str(out)),
        )
        code = await recorder.wait()
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
    return code


async def _flow(cluster: LocalCluster) -> None:
    """Until it is stopped."""
    while True:
        await end_to_end(cluster, Load(ROUND_JOBS))


async def _pid_of(cluster: LocalCluster, role: str) -> int:
    leader = await cluster.leader()
    if role == "worker":
        return cluster.workers[0].pid
    if role == "leader":
        return leader.pid
    return next(node.pid for node in cluster.nodes if node is not leader)


if __name__ == "__main__":
    sys.exit(main())
