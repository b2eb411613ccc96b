"""Real nodes that know each other by certificates alone, made with `quorate tls`."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from chaos.live.processes import LocalCluster, NodeChild, loopback_places
from quorate import Client
from quorate.cli import main
from tests.e2e.conftest import FLAGS
from tests.e2e.test_bad_start import addresses, run_node

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def authority(folder: Path) -> Path:
    assert main(["tls", "ca", "--out", str(folder)]) == 0
    return folder


def issue(ca: Path, out: Path, *nodes: str) -> list[str]:
    """The flags for a node with a certificate for these ids."""
    named = [part for node in nodes for part in ("--node", node)]
    assert main(["tls", "cert", "--ca", str(ca), "--out", str(out), *named]) == 0
    (certificate,) = (path for path in out.glob("*.crt") if path.name != "ca.crt")
    flags = ["--raft-tls-ca", str(ca / "ca.crt"), "--raft-tls-cert", str(certificate)]
    return [*flags, "--raft-tls-key", str(certificate.with_suffix(".key"))]


async def test_a_cluster_with_certificates_survives_its_leader_and_a_renewal(
    tmp_path: Path,
) -> None:
    places = loopback_places(3)
    ca, ids = authority(tmp_path / "ca"), [place.raft for place in places]
    flags = issue(ca, tmp_path / "nodes", *ids)
    async with (
        LocalCluster(tmp_path, flags=[*FLAGS, *flags], places=places) as cluster,
        Client(cluster.urls) as client,
    ):
        before = await client.submit("simulate", {"execution_time_ms": 1})
        old = await cluster.leader()
        await old.kill()
        await cluster.leader(but=old)
        after = await client.submit("simulate", {"execution_time_ms": 1})
        renewed = tmp_path / "renewed"
        issue(ca, renewed, *ids)
        for path in renewed.iterdir():
            path.replace(tmp_path / "nodes" / path.name)
        standing = [node for node in cluster.nodes if node.is_running]

        async def taken_over() -> bool:
            return all("new certificate, valid until" in node.log_text() for node in standing)

        await cluster.until(taken_over, "the new certificates to be read")
        await old.start()
        await cluster.ready()
        await cluster.worker("w1")
        views = await asyncio.gather(before.wait(60), after.wait(60))
        assert [view.status for view in views] == ["completed"] * 2


async def serves(cluster: LocalCluster, node: NodeChild) -> bool:
    assert node.is_running, node.log_text()
    with contextlib.suppress(aiohttp.ClientConnectorError):
        return (await cluster.request("GET", "/livez", node))[0] == 200
    return False


async def test_a_node_with_a_certificate_of_another_authority_stays_outside(
    tmp_path: Path,
) -> None:
    places = loopback_places(3)
    ca, other = authority(tmp_path / "ca"), authority(tmp_path / "other")
    ids = [place.raft for place in places]
    good, bad = issue(ca, tmp_path / "good", *ids), issue(other, tmp_path / "bad", *ids)
    cluster = LocalCluster(tmp_path, flags=[*FLAGS, *good], places=places)
    cluster.nodes[2].argv += bad  # the last one counts
    async with asyncio.timeout(90):
        try:
            await cluster.nodes[2].start()
            for node in cluster.nodes[:2]:
                await node.start()
            cluster.nodes, outside = cluster.nodes[:2], cluster.nodes[2]

            async def refused() -> bool:
                return any("tls_other_authority" in node.log_text() for node in cluster.nodes)

            async with cluster:
                await cluster.until(refused, "the refusal to be logged")
                # It may have been refused before it began to serve.
                await cluster.until(partial(serves, cluster, outside), "the third node to serve")
                status, _ = await cluster.request("GET", "/readyz", outside)
                assert status == 503
        finally:
            await outside.kill()


async def test_a_bad_certificate_ends_the_start_with_one_line(tmp_path: Path) -> None:
    ca = authority(tmp_path / "ca")
    flags = issue(ca, tmp_path / "nodes", "10.0.0.1:7001")
    data = tmp_path / "data"
    code, errors = await run_node(*addresses(), "--data", str(data), *flags)
    assert code == 1
    assert "raft_tls_cert" in errors
    assert "is for 10.0.0.1:7001" in errors
    assert "quorate tls cert --node 127.0.0.1:" in errors
    assert "Traceback" not in errors
    assert not data.exists()
    code, errors = await run_node(*addresses(), "--data", str(data), *flags[:4])
    assert code == 2
    assert "not raft_tls_key: TLS between nodes needs all three" in errors
