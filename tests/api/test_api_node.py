"""What a node says about itself, and the page that describes the API."""

import asyncio
import gzip
import hashlib
import re

import pytest
from aiohttp import web
from openapi_spec_validator import validate

from cluster.api.app import TABLE, build_app
from cluster.api.docs import FILES, STATIC
from cluster.consensus.observe import Health
from cluster.machine.commands import PutCalendar
from cluster.machine.levels import BASE_LEVEL, GATES, Support
from cluster.machine.levels import HIGHEST_LEVEL as TOP
from cluster.raft_state import MemberLevels

JOB_OF_LAB = {"job_type": "t", "execution_time_ms": 1}


async def test_health(api, node):
    assert await api.get("/livez") == {"status": "ok"}
    assert await api.get("/readyz") == {"status": "ok"}
    verbose = await api.get("/readyz?verbose")
    assert set(verbose["checks"].values()) == {True}
    assert verbose["warnings"] == []
    node.raft.follow("other", "http://127.0.0.1:1")
    assert (await api("GET", "/readyz")).status == 200


def elected_with_an_open_question(node):
    node.raft.is_leader = False


def with_a_clock_nobody_vouches_for(node):
    node.raft.is_leader = False
    node.raft.voters = lambda: ("a", "b", "c")


def behind(node):
    node.raft.caught_up = False


def installing(node):
    node.raft.caught_up = False
    node.raft.health = Health(snapshot_is_arriving=True)


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (lambda node: node.raft.follow(None, None), "leader_known: no leader is known here"),
        (elected_with_an_open_question, "epoch_open: elected, and waits for a majority to hold"),
        (with_a_clock_nobody_vouches_for, "epoch_open: elected, and waits for a majority's clocks"),
        (behind, "caught_up: 0 of 0 committed entries are applied"),
        (installing, "entries are applied, a snapshot is arriving"),
        (
            lambda node: setattr(node.raft, "health", Health(disk_is_full=True)),
            "disk_takes_writes: the disk is full",
        ),
        (
            lambda node: setattr(node.raft, "health", Health(False, 3_100, 3_000)),
            "disk_takes_writes: the disk has not answered for 3.1 s",
        ),
        (
            lambda node: setattr(node.services, "draining", True),
            "not_draining: this node is stopping",
        ),
    ],
)
async def test_a_node_that_is_not_ready_says_why(api, node, trouble, why):
    trouble(node)
    answer = await api("GET", "/readyz")
    assert (answer.status, answer.code) == (503, "not_ready")
    assert why in answer.json["detail"]
    assert (await api.get("/v1/cluster"))["ready"] is False
    assert (await api("GET", "/livez")).status == 200


@pytest.mark.parametrize(
    "health",
    [Health(disk_silent_ms=2_900, disk_stall_ms=3_000), Health(snapshot_is_arriving=True)],
    ids=["an fsync takes its time", "a snapshot that nobody needs any more"],
)
async def test_what_ends_by_itself_is_no_reason_to_stay_away(api, node, health):
    node.raft.health = health
    assert (await api("GET", "/readyz")).status == 200


async def test_what_runs_out_is_said_before_it_does(api, node):
    node.services.vitals.memory.limit = 1000 << 20
    node.services.vitals.memory.note(850 << 20)
    ready = await api.get("/readyz?verbose")
    assert ready["warnings"] == ["850 of 1,000 MiB of memory are in use"]
    assert (await api.get("/v1/cluster"))["warnings"] == ready["warnings"]
    await api.submit()


async def test_without_memory_new_work_is_refused_and_old_work_goes_on(api, node):
    first = await api.submit(max_retries=0)
    memory = node.services.vitals.memory
    memory.limit = 1000 << 20
    memory.note(910 << 20)
    one = {"name": "t"}
    for path, body in (("/v1/jobs", one), ("/v1/jobs/batch", [one, one]), ("/jobs", JOB_OF_LAB)):
        answer = await api("POST", path, body)
        assert (answer.status, answer.code) == (503, "memory_full"), path
        assert "910 of 1,000 MiB of memory are in use" in answer.json["detail"]
        assert answer.headers["Retry-After"] == "5"
    worker = await api.worker()
    (job,) = await worker.take()
    assert await node.desk.complete(worker.id, [job.job_id], [job.attempt], None, None) == []
    assert (await api.get(f"/v1/jobs/{first}"))["status"] == "completed"
    memory.note(840 << 20)
    await api.submit()


async def test_memory_that_jobs_have_left_is_there_for_others(api, node):
    """It stays with the process, so that what the kernel counts does not go down."""
    await api("POST", "/v1/jobs/batch", [{"name": "t"}] * 10)
    memory = node.services.vitals.memory
    memory.limit = 1000 << 20
    memory.note(910 << 20)
    assert (await api("POST", "/v1/jobs", {"name": "t"})).code == "memory_full"
    await api("POST", "/v1/jobs/cancel", {"ids": ["1", "2", "3"]})
    await api.submit()
    memory.note(960 << 20)
    assert (await api("POST", "/v1/jobs", {"name": "t"})).code == "memory_full"


async def test_the_cluster_is_shown(api, node):
    cluster = await api.get("/v1/cluster")
    assert (cluster["node_id"], cluster["leader_id"]) == (node.raft.node_id, node.raft.node_id)
    assert (cluster["leader"], cluster["is_leader"]) == (node.raft.leader_http, True)
    assert cluster["members"][0]["role"] == "leader"
    assert cluster["consensus"] == {"fsync_p50_ms": 0.2}


async def test_the_feature_level_is_shown_and_raised(api, node):
    raft = node.raft
    shown = await api.get("/v1/cluster")
    known = {"level": TOP, "known": TOP, "willing": TOP, "raises_in_seconds": None}
    assert shown["feature_level"] == known
    assert shown["members"][0]["feature_levels"] == [BASE_LEVEL, TOP]
    raft.state.level = 2
    raft.members["b"] = "voter"
    raft.other_levels = [MemberLevels("b", True, Support(TOP, held=2))]
    shown = await api.get("/v1/cluster")
    assert shown["feature_level"] == {**known, "level": 2, "willing": 2}
    assert [row["feature_level_max"] for row in shown["members"]] == [None, 2]
    raft.other_levels.append(MemberLevels("c", False, None))
    answer = await api("POST", "/v1/cluster/upgrade")
    assert (answer.status, answer.code) == (409, "upgrade_refused")
    assert "b holds it at 2" in answer.json["detail"]
    assert "c is not connected" in answer.json["detail"]
    raft.other_levels = []
    trial = await api("POST", "/v1/cluster/upgrade", {"dry_run": True})
    assert trial.json == {"before": 2, "level": TOP, "dry_run": True}
    assert raft.feature_level == 2
    done = await api("POST", "/v1/cluster/upgrade", {"to": TOP})
    assert (done.status, done.json) == (200, {"before": 2, "level": TOP, "dry_run": False})
    assert raft.feature_level == TOP
    assert (await api("POST", "/v1/cluster/upgrade", {"to": 2})).code == "upgrade_refused"
    assert (await api("POST", "/v1/cluster/upgrade", {"to": 0})).status == 422


async def test_what_not_all_members_can_read_yet_is_a_conflict(api, node, monkeypatch):
    node.raft.state.level = 2
    monkeypatch.setitem(GATES, PutCalendar, 3)
    answer = await api("POST", "/v1/calendars", {"name": "de", "days": ["2026-12-25"]})
    assert (answer.status, answer.code) == (409, "feature_level")
    assert "quorate cluster upgrade" in answer.json["detail"]


async def test_leadership_can_be_handed_over(api):
    answer = await api("POST", "/v1/cluster/transfer", {"to": "n2"})
    assert (answer.status, answer.json) == (200, {"leader_id": "n2"})
    assert (await api("POST", "/v1/cluster/transfer")).status == 200
    answer = await api("POST", "/v1/cluster/transfer", {"to": "nobody"})
    assert (answer.status, answer.code) == (409, "transfer_failed")


async def test_metrics_are_prometheus_text(api):
    await api.submit()
    answer = await api("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b"jobs_scheduled_total 1.0" in answer.raw


async def test_the_document_is_valid_and_complete(api):
    answer = await api("GET", "/openapi.json")
    document = answer.json
    validate(document)
    assert document["openapi"] == "3.1.0"
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert described == {(row.method, row.path) for row in TABLE}
    again = await api("GET", "/openapi.json", If_None_Match=answer.headers["ETag"])
    assert (again.status, again.raw) == (304, b"")


async def test_the_document_says_what_the_decoder_enforces(api):
    document = await api.get("/openapi.json")
    job = document["components"]["schemas"]["JobRequest"]
    assert job["additionalProperties"] is False
    assert job["properties"]["max_retries"]["maximum"] == 100
    assert job["properties"]["name"]["maxLength"] == 128
    submit = document["paths"]["/v1/jobs"]["post"]
    assert {p["name"] for p in submit["parameters"]} == {"Idempotency-Key", "X-Quorate-Key-TTL"}
    assert {"201", "409", "413", "422", "429", "default"} == set(submit["responses"])
    listed = document["paths"]["/v1/jobs"]["get"]
    limit = next(p for p in listed["parameters"] if p["name"] == "limit")
    assert (limit["in"], limit["schema"]["maximum"]) == ("query", 500)
    batch = document["paths"]["/v1/jobs/batch"]["post"]
    assert "application/x-ndjson" in batch["requestBody"]["content"]


def test_operation_ids_are_unique():
    names = [row.handler.__name__ for row in TABLE]
    assert sorted(names) == sorted(set(names))


async def test_the_page_loads_nothing_from_elsewhere(api):
    page = await api("GET", "/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    text = page.raw.decode()
    links = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert links and all(link.startswith("/docs/") for link in links)
    assert "http" not in text
    assert not re.search(r"<script>|<style|\son\w+=", text)
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy and "default-src 'none'" in policy
    assert "http" not in policy and "unsafe-eval" not in policy
    for link in links:
        assert (await api("GET", link)).status == 200
    init = await api("GET", "/docs/init.js")
    assert b"http" not in init.raw and b"/openapi.json" in init.raw


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css"])
async def test_vendored_files_are_what_they_were(api, name):
    sums = dict(line.split("  ")[::-1] for line in (STATIC / "SHA256SUMS").read_text().splitlines())
    async with api.client.get(f"/docs/{name}") as packed:
        assert packed.headers["Content-Encoding"] == "gzip"
        body = await packed.read()
    plain = await api("GET", f"/docs/{name}", Accept_Encoding="identity")
    assert "Content-Encoding" not in plain.headers
    assert plain.raw == body == gzip.decompress((STATIC / f"{name}.gz").read_bytes())
    assert hashlib.sha256(body).hexdigest() == sums[name]
    assert plain.headers["Content-Type"] == FILES[name]


@pytest.mark.parametrize("name", ["LICENSE", "..%2Fapp.py", "nothing.js"])
async def test_nothing_else_is_served(api, name):
    answer = await api("GET", f"/docs/{name}")
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.fixture
async def address(node):
    """Host and port of the application as a node runs it: test servers cancel handlers."""
    runner = web.AppRunner(build_app(node.services), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0]
    await runner.cleanup()


async def test_a_client_that_leaves_while_a_leader_is_elected_is_no_error(node, address, caplog):
    """Its body never came, and nobody is there to be told; found by killing leaders."""
    caplog.set_level("DEBUG", "quorate.api")
    node.raft.follow(None, None)
    reader, other = await asyncio.open_connection(*address)

    async def answered():
        """The loop has turned often enough for whatever came before."""
        other.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        await reader.readuntil(b"}")

    _, writer = await asyncio.open_connection(*address)
    writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await answered()
    writer.close()
    await writer.wait_closed()
    await answered()
    node.raft.is_leader = True
    async with asyncio.timeout(60):
        while not caplog.records:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    other.close()
    assert [(r.levelname, "client left" in r.message) for r in caplog.records] == [("DEBUG", True)]
