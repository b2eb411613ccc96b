"""Many jobs in one request: every format, every kind of error, and only the bad ones suffer."""

import msgspec
import pytest
from api_fakes import serving

from cluster.api.intake import group_jobs
from cluster.api.models import JobRequest

JOBS = [{"name": "t", "payload": i} for i in range(5)]
LINES = b"\n".join(msgspec.json.encode(job) for job in JOBS)

FORMATS = {
    "array": (msgspec.json.encode(JOBS), "application/json"),
    "object": (msgspec.json.encode({"jobs": JOBS}), "application/json; charset=utf-8"),
    "ndjson": (LINES + b"\n", "application/x-ndjson"),
    "ndjson with blank lines": (LINES.replace(b"\n", b"\r\n\n"), "application/x-ndjson"),
    "msgpack array": (msgspec.msgpack.encode(JOBS), "application/msgpack"),
    "msgpack object": (msgspec.msgpack.encode({"jobs": JOBS}), "application/msgpack"),
    "curl without a type": (msgspec.json.encode(JOBS), "application/x-www-form-urlencoded"),
}


@pytest.mark.parametrize("form", FORMATS)
async def test_every_format_says_the_same(api, node, form):
    body, media = FORMATS[form]
    answer = await api("POST", "/v1/jobs/batch", body, type=media)
    assert (answer.status, answer.json) == (201, {"ids": ["1", "2", "3", "4", "5"], "errors": []})
    payloads = [job.payload for job in node.raft.state.tables.jobs.values()]
    assert payloads == [b"0", b"1", b"2", b"3", b"4"]


BAD = [
    {"name": "t"},
    {"name": "t", "colour": 1},
    {"name": "t", "payload": 2},
    {"name": "t", "run_at": "2020-01-01T00:00:00Z"},
    5,
    {"name": "t", "schedule": "* * * * *"},
    {"name": "u"},
]
BAD_POINTERS = {1: "/colour", 3: "/run_at", 4: "", 5: "/schedule"}


@pytest.mark.parametrize(
    ("body", "media", "prefix"),
    [
        (msgspec.json.encode(BAD), "application/json", ""),
        (msgspec.json.encode({"jobs": BAD}), "application/json", "/jobs"),
        (b"\n".join(map(msgspec.json.encode, BAD)), "application/x-ndjson", ""),
        (msgspec.msgpack.encode(BAD), "application/msgpack", ""),
    ],
)
async def test_bad_jobs_are_reported_and_good_ones_accepted(api, node, body, media, prefix):
    answer = await api("POST", "/v1/jobs/batch", body, type=media)
    assert answer.status == 207
    assert answer.json["ids"] == ["1", None, "2", None, None, None, "3"]
    errors = {e["index"]: (e["code"], e["pointer"]) for e in answer.json["errors"]}
    assert errors == {
        index: ("validation", f"{prefix}/{index}{pointer}")
        for index, pointer in BAD_POINTERS.items()
    }
    assert [job.kind.spec.name for job in node.raft.state.tables.jobs.values()] == ["t", "t", "u"]


async def test_a_broken_line_hurts_no_other(api):
    body = b'{"name":"a"}\n{"name":\n{"name":"b"}'
    answer = await api("POST", "/v1/jobs/batch", body, type="application/x-ndjson")
    assert (answer.status, answer.json["ids"]) == (207, ["1", None, "2"])
    assert answer.json["errors"][0]["code"] == "invalid_json"


async def test_a_large_payload_is_refused_alone(tmp_path):
    async with serving(tmp_path, payload_max_bytes=10) as api:
        jobs = [{"name": "t", "payload": "x" * n} for n in (99, 3, 99, 3)]
        answer = await api("POST", "/v1/jobs/batch", jobs)
        assert (answer.status, answer.json["ids"]) == (207, [None, "1", None, "2"])
        error = answer.json["errors"][1]
        assert (error["index"], error["code"]) == (2, "payload_too_large")
        assert error["pointer"] == "/2/payload"


async def test_a_full_queue_refuses_its_own_jobs_only(tmp_path):
    async with serving(tmp_path, queue_jobs_max=2) as api:
        jobs = [{"name": "t", "queue": q} for q in ("a", "b", "a", "a", "b")]
        answer = await api("POST", "/v1/jobs/batch", jobs)
        assert (answer.status, answer.json["ids"]) == (207, [None, "1", None, None, "2"])
        assert {e["code"] for e in answer.json["errors"]} == {"queue_full"}
        full = await api("POST", "/v1/jobs/batch", [{"name": "t", "queue": "b"}])
        assert (full.status, full.code, full.headers["Retry-After"]) == (429, "queue_full", "1")


async def test_minimal_answers_name_first_and_last(api):
    answer = await api("POST", "/v1/jobs/batch", JOBS, Prefer="return=minimal")
    assert answer.status == 201
    assert answer.headers["Preference-Applied"] == "return=minimal"
    assert answer.json == {"first": "1", "last": "5", "count": 5, "errors": []}
    none = await api("POST", "/v1/jobs/batch", [5], Prefer="return=minimal")
    assert (none.status, none.json["count"], none.json["first"]) == (207, 0, None)


async def test_unique_keys_in_a_batch_are_answered_one_by_one(api):
    jobs = [
        {"name": "t", "unique_key": "a"},
        {"name": "t", "unique_key": "b"},
        {"name": "t", "unique_key": "a"},
        {"name": "t", "unique_key": "a", "on_conflict": "reject"},
        {"name": "t"},
    ]
    answer = await api("POST", "/v1/jobs/batch", jobs, Prefer="return=minimal")
    assert answer.status == 207
    assert answer.json["ids"] == ["1", "2", "1", None, "3"]
    error = answer.json["errors"][0]
    assert (error["code"], error["pointer"]) == ("conflict", "/3/unique_key")


async def test_an_empty_batch_does_nothing(api, node):
    answer = await api("POST", "/v1/jobs/batch", [])
    assert (answer.status, answer.json) == (201, {"ids": [], "errors": []})
    assert node.raft.applied_index == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"[", 400, "invalid_json"),
        (b"5", 422, "validation"),
        (b'{"jobs":[],"more":1}', 422, "validation"),
        (b'{"jbos":[]}', 422, "validation"),
        (b'["\xff"]', 400, "invalid_json"),
        (b'[{"name":"t","payload":' + b"[" * 100_000, 422, "validation"),
        (b"[" + b",".join([b'{"name":"t"}'] * 10_001) + b"]", 422, "validation"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused_whole(api, node, body, status, code):
    answer = await api("POST", "/v1/jobs/batch", body)
    assert (answer.status, answer.code) == (status, code)
    assert node.raft.applied_index == 0


async def test_commands_in_a_batch_keep_their_own_payload(api, node):
    jobs = [{"command": "a"}, {"command": "b"}, {"name": "t", "payload": 1}, {"command": ["c"]}]
    answer = await api("POST", "/v1/jobs/batch", jobs)
    assert answer.status == 201
    payloads = [job.payload for job in node.raft.state.tables.jobs.values()]
    assert payloads == [b'{"command":"a"}', b'{"command":"b"}', b"1", b'{"command":["c"]}']


def test_like_jobs_in_a_row_share_a_group(node):
    def requests(*fields):
        return [JobRequest(name="t", **f) for f in fields]

    grouped = group_jobs(
        requests({}, {}, {"priority": 1}, {"priority": 1}, {}, {"delay_seconds": 5.0}), 1,
        node.settings,
    )  # fmt: skip
    assert [len(group.payloads) for group in grouped.groups] == [2, 2, 1, 1]
    assert grouped.groups[3].run_at_ms == 5_001
    keyed = group_jobs(requests({"unique_key": "a"}, {"unique_key": "b"}, {}), 1, node.settings)
    assert [group.unique_keys for group in keyed.groups] == [["a", "b"], None]


async def test_ten_thousand_jobs_fit(api, node):
    body = b"[" + b",".join(b'{"name":"t","payload":%d}' % i for i in range(10_000)) + b"]"
    answer = await api("POST", "/v1/jobs/batch", body)
    assert answer.status == 201
    assert answer.json["ids"] == [str(i) for i in range(1, 10_001)]
    assert node.raft.state.tables.jobs[10_000].payload == b"9999"
