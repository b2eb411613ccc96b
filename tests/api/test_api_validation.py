"""Whatever is wrong with a request is named, with a JSON pointer to the place."""

import asyncio
import gzip

import msgspec
import pytest
from api_fakes import serving, until

from cluster.actors.services import DiskFull, Overloaded
from cluster.api import forwarding
from cluster.api.app import TABLE
from cluster.api.codec import pointer_of
from cluster.api.errors import KINDS, REJECTED
from cluster.consensus import Outcome
from cluster.machine.results import Rejected

T = {"name": "t"}

WRONG = [
    ({}, "/name", "required"),
    ({"name": ""}, "/name", "length"),
    ({"name": "x" * 129}, "/name", "length"),
    ({"name": "a\nb"}, "/name", "printable"),
    ({"name": " padded"}, "/name", "blanks"),
    ({"name": 5}, "/name", "str"),
    ({"name": None}, "/name", "str"),
    ({**T, "retires": 5}, "/retires", "no field"),
    ({**T, "a/b~c": 5}, "/a~1b~0c", "no field"),
    ({**T, "queue": ""}, "/queue", "length"),
    ({**T, "queue": "\x00"}, "/queue", "printable"),
    ({**T, "priority": 0}, "/priority", ">= 1"),
    ({**T, "priority": 11}, "/priority", "<= 10"),
    ({**T, "priority": "urgent"}, "/priority", "urgent"),
    ({**T, "priority": 1.5}, "/priority", "float"),
    ({**T, "max_retries": -1}, "/max_retries", ">= 0"),
    ({**T, "max_retries": 101}, "/max_retries", "<= 100"),
    ({**T, "timeout_seconds": 0}, "/timeout_seconds", "> 0"),
    ({**T, "timeout_seconds": "60"}, "/timeout_seconds", "str"),
    ({**T, "timeout_seconds": 1e18}, "/timeout_seconds", "<="),
    ({**T, "delay_seconds": -1}, "/delay_seconds", ">= 0"),
    ({**T, "run_at": "2026-11-18T11:06:38.5Z"}, "/run_at", "passed"),
    ({**T, "run_at": "2030-01-01T00:00:00"}, "/run_at", "timezone"),
    ({**T, "run_at": "tomorrow"}, "/run_at", "RFC3339"),
    ({**T, "run_at": "2030-01-01T00:00:00Z", "delay_seconds": 1}, "/run_at", "not both"),
    ({**T, "schedule": "* * * * *", "delay_seconds": 1}, "/delay_seconds", "schedule"),
    ({**T, "schedule": "* * * * *", "run_at": "2030-01-01T00:00:00Z"}, "/run_at", "schedule"),
    ({**T, "schedule": "* * * * *", "unique_key": "k"}, "/unique_key", "schedule"),
    ({**T, "schedule": "0 0 30 2 *"}, "/schedule", "never fires"),
    ({**T, "schedule": "61 * * * *"}, "/schedule", "minute"),
    ({**T, "schedule": "* * * *"}, "/schedule", "five"),
    ({**T, "retry": {"strategy": "random"}}, "/retry/strategy", "random"),
    ({**T, "retry": {"base": 1}}, "/retry/base", "no field"),
    ({**T, "retry": {"base_seconds": 9, "max_seconds": 3}}, "/retry/max_seconds", "base_seconds"),
    ({**T, "tags": ["ok", 5]}, "/tags/1", "int"),
    ({**T, "tags": ["ok", "no\tgo"]}, "/tags/1", "printable"),
    ({**T, "tags": ["t"] * 33}, "/tags", "length"),
    ({**T, "unique_key": ""}, "/unique_key", "length"),
    ({**T, "on_conflict": "ignore"}, "/on_conflict", "ignore"),
    ({**T, "expires_at": "2026-11-18T11:06:40Z"}, "/expires_at", "after"),
    (
        {**T, "expires_at": "2030-01-01T00:00:00Z", "queue_timeout_seconds": 5},
        "/expires_at",
        "not both",
    ),
    ({**T, "total_timeout_seconds": 5, "delay_seconds": 5}, "/total_timeout_seconds", "over"),
    ({"command": "x", "name": "other"}, "/command", "name"),
    ({"command": "x", "payload": 1}, "/payload", "command"),
    ({"command": ""}, "/command", "length"),
    ({"command": [1]}, "/command/0", "int"),
    ([], "", "object"),
    ("text", "", "object"),
]


@pytest.mark.parametrize(("body", "pointer", "word"), WRONG)
async def test_a_wrong_field_is_pointed_at(api, node, body, pointer, word):
    answer = await api("POST", "/v1/jobs", body)
    assert (answer.status, answer.code) == (422, "validation")
    assert (answer.pointer, word in answer.json["detail"]) == (pointer, True), answer.json
    assert node.raft.applied_index == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"name": nope}',
        b"\xff\xfe",
        b'{"name":"t","payload":"\xff"}',
        b'{"name":"t"} x',
    ],
)
async def test_a_body_that_is_no_json_is_a_bad_request(api, raw):
    answer = await api("POST", "/v1/jobs", raw)
    assert (answer.status, answer.code) == (400, "invalid_json")


async def test_bodies_that_are_no_messagepack_or_have_no_json_form(api):
    cut = await api("POST", "/v1/jobs", b"\x81\xa4name", type="application/msgpack")
    assert (cut.status, cut.code) == (400, "invalid_json")
    strange = msgspec.msgpack.encode({"name": "t", "payload": msgspec.msgpack.Ext(5, b"x")})
    answer = await api("POST", "/v1/jobs", strange, type="application/msgpack")
    assert (answer.status, answer.code) == (422, "validation")
    nested = await api("POST", "/v1/jobs", b'{"name":"t","payload":' + b"[" * 100_000)
    assert (nested.status, nested.code) == (422, "validation")


async def test_infinite_numbers_are_no_durations(api):
    answer = await api("POST", "/v1/jobs", b'{"name":"t","delay_seconds":1e999}')
    assert answer.status in (400, 422)


async def test_a_large_payload_is_pointed_at(tmp_path):
    async with serving(tmp_path, payload_max_bytes=100) as api:
        fits = await api("POST", "/v1/jobs", {"name": "t", "payload": "x" * 98})
        assert fits.status == 201
        answer = await api("POST", "/v1/jobs", {"name": "t", "payload": "x" * 99})
        assert (answer.status, answer.code) == (413, "payload_too_large")
        assert answer.pointer == "/payload"
        answer = await api("POST", "/v1/jobs", {"command": "x" * 99})
        assert (answer.status, answer.pointer) == (413, "/payload")


async def test_a_large_body_is_refused(tmp_path):
    async with serving(tmp_path, request_max_bytes=2000, payload_max_bytes=1000) as api:
        answer = await api("POST", "/v1/jobs", {"name": "t", "payload": "x" * 3000})
        assert (answer.status, answer.code) == (413, "payload_too_large")


async def test_a_full_queue_says_when_to_come_back(tmp_path):
    async with serving(tmp_path, queue_jobs_max=2) as api:
        await api.submit()
        await api.submit()
        answer = await api("POST", "/v1/jobs", T)
        assert (answer.status, answer.code) == (429, "queue_full")
        assert answer.headers["Retry-After"] == "1"
        assert (await api("POST", "/v1/jobs", {**T, "queue": "other"})).status == 201


@pytest.mark.parametrize(
    ("method", "action"),
    [("GET", ""), ("GET", "/timeline"), ("GET", "/logs"), ("POST", "/cancel"), ("POST", "/retry"),
     ("POST", "/clone"), ("GET", "/result")],
)  # fmt: skip
async def test_ids_of_no_job_are_unknown(api, method, action):
    for job_id in ("abc", "0x1", "-1", "1.5", "٣", "99999999999999999999999", "7", "0"):
        answer = await api(method, f"/v1/jobs/{job_id}{action}")
        assert (answer.status, answer.code, job_id) == (404, "unknown_job", job_id)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("limit=0", "/limit"), ("limit=501", "/limit"), ("limit=x", "/limit"), ("color=red", "/color"),
     ("status=done", "/status"), ("cursor=zzz", "/cursor"), ("consistency=maybe", "/consistency")],
)  # fmt: skip
async def test_wrong_query_parameters_are_pointed_at(api, query, pointer):
    answer = await api("GET", f"/v1/jobs?{query}")
    assert (answer.status, answer.code, answer.pointer) == (422, "validation", pointer)


async def test_unknown_paths_and_methods_are_problems_too(api):
    answer = await api("GET", "/v1/nothing")
    assert (answer.status, answer.code) == (404, "not_found")
    answer = await api("DELETE", "/v1/jobs")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert "POST" in answer.json["detail"]
    assert answer.headers["Allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("path", "body", "choices"),
    [
        ("/v1/jobs", {**T, "priority": "urgent"}, "1 to 10, critical, high, normal, low"),
        ("/v1/jobs", {**T, "retry": {"strategy": "?"}}, "exponential, linear, fibonacci, fixed"),
        ("/v1/jobs", {**T, "on_conflict": "?"}, "reject, return, replace"),
        ("/v1/jobs/batch", {"jobs": [{**T, "on_conflict": "?"}]}, "reject, return, replace"),
        ("/v1/jobs/cancel", {"filter": {"status": "done"}}, "pending, running, completed"),
    ],
)
async def test_a_wrong_choice_is_answered_with_the_right_ones(api, path, body, choices):
    answer = await api("POST", path, body)
    named = answer.json["errors"][0]["detail"].partition("write one of ")[2]
    assert set(choices.split(", ")) <= set(named.split(", "))


async def test_a_wrong_choice_in_a_query_is_answered_with_the_right_ones(api):
    answer = await api("GET", "/v1/jobs?status=done")
    assert "write one of " in answer.json["detail"]
    assert "completed" in answer.json["detail"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP"])
async def test_compressed_bodies_are_refused_unread(api, node, encoding):
    packed = gzip.compress(b'{"name":"t"}')
    headers = {"Content-Encoding": encoding}
    answer = await api("POST", "/v1/jobs", packed, **headers)
    assert (answer.status, answer.code) == (415, "unsupported_encoding")
    assert node.raft.applied_index == 0
    answer = await api("POST", "/v1/jobs", b'{"name":"t"}', **{"Content-Encoding": "identity"})
    assert answer.status == 201


async def test_pages_of_other_origins_are_turned_away(api):
    for method, path in (("POST", "/v1/jobs"), ("GET", "/v1/workers/stream")):
        upgrade = {"Upgrade": "websocket"} if method == "GET" else {}
        answer = await api(method, path, T, Origin="http://evil.example", **upgrade)
        assert (answer.status, answer.code) == (403, "cross_origin")
    answer = await api("POST", "/v1/jobs", T, type="text/plain", Origin="null")
    assert (answer.status, answer.code) == (403, "cross_origin")
    assert (await api("POST", "/v1/jobs", T, Origin=api.url)).status == 201
    assert (await api("GET", "/v1/jobs", Origin="http://evil.example")).status == 200


async def test_a_lost_answer_and_an_overload_are_told_apart(api, node):
    node.raft.fate = Outcome.UNKNOWN
    answer = await api("POST", "/v1/jobs", T)
    assert (answer.status, answer.code) == (504, "outcome_unknown")

    def overloaded(command):
        raise Overloaded("too much is queued", 3)

    node.services.proposer.propose_late = overloaded
    answer = await api("POST", "/v1/jobs", T)
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "overloaded", "3")

    def full(command):
        raise DiskFull("disk full: on n2, n3", 5)

    node.services.proposer.propose_late = full
    answer = await api("POST", "/v1/jobs", T)
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "disk_full", "5")
    assert "on n2, n3" in answer.json["detail"]


async def test_a_bug_is_a_problem_and_not_a_traceback(api, node, caplog):
    node.services.proposer.propose_late = lambda command: 1 / 0
    answer = await api("POST", "/v1/jobs", T)
    assert (answer.status, answer.code) == (500, "internal")
    assert "division" not in answer.json["detail"]
    assert "ZeroDivisionError" in caplog.text


async def test_losing_leadership_during_a_request_is_no_quorum_when_nobody_leads(
    api, node, monkeypatch
):
    monkeypatch.setattr(forwarding, "LEADER_WAIT_SECONDS", 0.05)
    node.raft.held = []
    request = asyncio.create_task(api("POST", "/v1/jobs", T))
    await until(lambda: node.raft.held)
    held, node.raft.held = node.raft.held, None
    node.raft.fate = Outcome.REFUSED
    node.raft.follow(None, None)
    for entry, callback in held:
        node.raft._commit(entry, callback)
    answer = await request
    assert (answer.status, answer.code) == (503, "no_quorum")
    assert answer.headers["Retry-After"] == "1"


def test_every_refusal_of_the_machine_has_a_problem():
    assert set(REJECTED) == set(Rejected)
    assert {code for code, _ in REJECTED.values()} <= set(KINDS)
    documented = {code for row in TABLE for code in row.problems}
    assert documented <= set(KINDS)


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        ("Expected `str`, got `int` - at `$.a[0].b`", "/a/0/b"),
        ("Expected `int`, got `str`", ""),
        ("Object contains unknown field `a b` - at `$.jobs[3]`", "/jobs/3/a b"),
        ("Object missing required field `jobs`", "/jobs"),
        ("Expected `str`, got `int` - at `$.labels[...]`", "/labels/..."),
        ("Expected `int`, got `str` - at `key` in `$.m`", "/m"),
    ],
)
def test_places_in_decoder_messages_become_pointers(message, pointer):
    assert pointer_of(msgspec.ValidationError(message))[0] == pointer
