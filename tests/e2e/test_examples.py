"""What the README shows runs as shown."""

from __future__ import annotations

import sys
from pathlib import Path

import aiohttp
import pytest

from chaos.live.processes import ROOT, Child, LocalCluster, free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


async def test_the_demo_holds_all_its_checks(tmp_path: Path) -> None:
    demo = Child(
        "demo", [sys.executable, "-m", "chaos.live.demo", str(tmp_path / "d")], tmp_path, {}
    )
    await demo.start()
    code = await demo.wait()
    story = demo.log_text()
    assert code == 0, story
    assert "Every check held" in story
    assert "NOT" not in story


async def test_a_service_with_a_node_inside(tmp_path: Path) -> None:
    service, http, raft = free_ports(3)
    env = {
        "SIDECAR_PORT": str(service),
        "QUORATE_HTTP": f"127.0.0.1:{http}",
        "QUORATE_LISTEN": f"127.0.0.1:{raft}",
        "QUORATE_DATA": str(tmp_path / "data"),
    }
    argv = [sys.executable, str(ROOT / "examples" / "sidecar.py")]
    child = Child("sidecar", argv, tmp_path, env)
    await child.start()
    try:
        async with aiohttp.ClientSession() as session:

            async def answers() -> bool:
                if not child.is_running:
                    raise RuntimeError(child.log_text())
                try:
                    async with session.get(f"http://127.0.0.1:{http}/v1/workers") as response:
                        return bool((await response.json())["items"])
                except aiohttp.ClientError:
                    return False

            await LocalCluster(tmp_path, nodes=1).until(answers, "the service to be up")
            for _ in range(2):  # the key makes the second order the same job
                url = f"http://127.0.0.1:{service}/orders/42"
                async with session.post(url) as response:
                    answer = await response.json()
                    assert answer["result"] == "order 42 shipped at attempt 1"
                    assert answer["job"] == "1"
    finally:
        assert await child.stop() == 0, child.log_text()
