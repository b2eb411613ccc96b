"""`quorate schedules ...`: what flags say on the wire, and what people read."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster

from quorate.cli import main
from quorate.cli.schedules import strip, when

Cli = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def cli(
    fake: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """Runs one command in a thread, at a terminal unless `json`; exit code and all it printed."""

    async def run(*argv: str, json: bool = False) -> tuple[int, str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: not json)
        nodes = ["--nodes", ",".join(fake.urls)]
        code = await asyncio.to_thread(main, ["schedules", *argv, *nodes])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def sent(fake: FakeCluster) -> tuple[str, str, Any]:
    """The last request that was no GET."""
    method, path, body = [row for row in fake.requests if row[0] != "GET"][-1]
    return method, path, json.loads(body or b"null")


async def test_flags_say_what_the_api_takes(fake: FakeCluster, cli: Cli) -> None:
    code, out = await cli(
        "create", "report", "--id", "nightly", "--cron", "30 2 * * *", "--timezone",
        "Europe/Berlin", "--dst-gap", "skip", "--calendar", "de", "--calendar", "bank",
        "--on-holiday", "next", "--window", "mon,fri@22:00-06:00", "--blackout", "12:00-13:00",
        "--blackout", "2026-12-24T00:00:00Z/2026-12-27T00:00:00Z", "--except", "0 0 1 1 *",
        "--start-at", "2027-01-01T00:00:00Z", "--max-executions", "3", "--jitter", "5m",
        "--overlap", "buffer_one", "--catchup", "all", "--catchup-window", "1h",
        "--catchup-max-runs", "7", "--payload", '{"a": 1}', "--queue", "q", "--priority", "high",
        "--max-retries", "0", "--timeout", "90s", "--tag", "x", "--paused", "--note", "not yet",
    )  # fmt: skip
    assert (code, "created schedule nightly: now and then" in out) == (0, True)
    assert sent(fake) == (
        "POST",
        "/v1/schedules",
        {
            "name": "report",
            "id": "nightly",
            "schedule": "30 2 * * *",
            "timezone": "Europe/Berlin",
            "dst": {"gap": "skip"},
            "calendars": ["de", "bank"],
            "on_holiday": "next",
            "windows": [{"from": "22:00", "to": "06:00", "weekdays": ["mon", "fri"]}],
            "blackouts": [
                {"from": "12:00", "to": "13:00"},
                {"from": "2026-12-24T00:00:00Z", "to": "2026-12-27T00:00:00Z"},
            ],
            "except": [{"schedule": "0 0 1 1 *"}],
            "start_at": "2027-01-01T00:00:00.000Z",
            "max_executions": 3,
            "jitter_seconds": 300.0,
            "overlap": "buffer_one",
            "catchup": "all",
            "catchup_window_seconds": 3600.0,
            "catchup_max_runs": 7,
            "payload": {"a": 1},
            "queue": "q",
            "priority": "high",
            "max_retries": 0,
            "timeout_seconds": 90.0,
            "tags": ["x"],
            "paused": True,
            "note": "not yet",
        },
    )


async def test_apply_and_change(fake: FakeCluster, cli: Cli) -> None:
    assert await cli("apply", "x", "t", "--every", "5m", "--window", "off_peak") == (
        0,
        "created schedule x: it is new\n",
    )
    assert sent(fake)[2] == {"name": "t", "every_seconds": 300.0, "windows": "off_peak"}
    code, out = await cli("apply", "x", "t", "--every", "5m", "--window", "off_peak")
    assert (code, out) == (0, "unchanged schedule x: nothing changed\n")
    code, _ = await cli("change", "x", "--cron", "@daily", "--unset", "windows", "--name", "u")
    assert (code, sent(fake)) == (
        0,
        ("PATCH", "/v1/schedules/x", {"schedule": "@daily", "windows": None, "name": "u"}),
    )
    assert (await cli("change", "x", "--queue", "q", "--if-version", "2"))[0] == 0
    code, out = await cli("change", "x", "--queue", "r", "--if-version", "2")
    assert (code, "version_mismatch" in out) == (1, True)


@pytest.mark.parametrize("kind", ["toml", "json"])
async def test_files_are_applied(fake: FakeCluster, cli: Cli, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"schedules.{kind}"
    several = [
        {"id": "a", "name": "t", "schedule": "@daily", "dst": {"gap": "skip"}},
        {"id": "b", "name": "t", "every_seconds": 5},
    ]
    text = json.dumps({"schedules": several})
    if kind == "toml":
        text = (
            '[[schedules]]\nid = "a"\nname = "t"\nschedule = "@daily"\ndst = { gap = "skip" }\n'
            '[[schedules]]\nid = "b"\nname = "t"\nevery_seconds = 5\n'
        )
    path.write_text(text)
    code, out = await cli("apply", "--file", str(path), json=True)
    assert (code, [json.loads(line)["outcome"] for line in out.splitlines()]) == (
        0,
        ["created", "created"],
    )
    assert fake.schedules["a"]["dst"] == {"gap": "skip"}
    assert (await cli("apply", "--file", str(path), "--queue", "q"))[0] == 2
    path.write_text(json.dumps(several[1]) if kind == "json" else 'id = "b"\nname = "t"\n')
    assert (await cli("apply", "--file", str(path), "--every", "7"))[0] == 0
    assert sent(fake)[2]["every_seconds"] == 7


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("create", "t"), "exactly one of --cron, --every and --at"),
        (("create", "t", "--cron", "@daily", "--every", "5"), "exactly one"),
        (("create", "t", "--every", "soon"), "duration"),
        (("create", "t", "--cron", "@daily", "--window", "22:00"), "no window"),
        (("create", "t", "--cron", "@daily", "--overlap", "perhaps"), "invalid choice"),
        (("create", "t", "--cron", "@daily", "--payload", "{"), "is not JSON"),
        (("apply", "--cron", "@daily"), "name the schedule and its task"),
        (("apply", "--file", "missing.toml"), "cannot read missing.toml"),
        (("change", "x"), "say what shall change"),
        (("change", "x", "--queue", "q", "--unset", "queue"), "given and unset"),
        (("preview",), "exactly one"),
        (("stop-backfill", "x", "0"), "from 1 on"),
    ],
)
async def test_wrong_usage_is_code_2(cli: Cli, argv: tuple[str, ...], text: str) -> None:
    code, out = await cli(*argv)
    assert (code, text in out) == (2, True), out


async def test_what_will_run_is_read_at_a_glance(fake: FakeCluster, cli: Cli) -> None:
    await cli("apply", "x", "t", "--cron", "30 2 * * *")
    code, out = await cli("next", "x", "--count", "2", "--omitted")
    assert (code, out) == (
        0,
        "at night\n"
        "UTC                       LOCAL                      RUNS  NOTE\n"
        "2026-12-25T01:30:00.000Z  2027-03-28T03:00:00+02:00  no    Christmas\n"
        "2027-03-28T01:00:00.000Z  2027-03-28T03:00:00+02:00        "
        "02:30 does not exist on 2027-03-28, runs at 03:00\n",
    )
    code, out = await cli("preview", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin")
    assert (code, "the search was cut short" in out) == (0, True)
    assert sent(fake)[2] == {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "count": 10}
    code, out = await cli("diff", "x", "--cron", "0 3 * * *", "--unset", "timezone")
    assert out.splitlines() == [
        "now:   before",
        "then:  after",
        "- 2026-12-25T01:30:00.000Z  2027-03-28T03:00:00+02:00  Christmas",
        "+ 2027-03-28T01:00:00.000Z  2027-03-28T03:00:00+02:00  "
        "02:30 does not exist on 2027-03-28, runs at 03:00",
    ]


async def test_runs_beside_the_plan(fake: FakeCluster, cli: Cli) -> None:
    await cli("apply", "x", "t", "--cron", "30 2 * * *")
    assert await cli("trigger", "x", "--payload", "[1]", "--overlap", "allow_all") == (
        0,
        "submitted job 8\n",
    )
    assert sent(fake)[2] == {"payload": [1], "overlap": "allow_all"}
    assert "left out" in (await cli("trigger", "x", "--overlap", "skip"))[1]
    span = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
    code, out = await cli("backfill", "x", *span, "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "2027-03-28T01:00:00.000Z")
    code, out = await cli("backfill", "x", *span, "--per-minute", "6", "--overlap", "skip")
    assert out == "backfill 3 of schedule x: 1 runs\n"
    assert sent(fake)[2] == {"from": span[0], "to": span[1], "overlap": "skip", "per_minute": 6}
    assert "running" in (await cli("backfills", "x"))[1]
    assert (await cli("stop-backfill", "x", "3"))[0] == 0
    assert "left out: overlap" in (await cli("timeline", "x"))[1]
    assert "7 " in (await cli("runs", "x", "--nominal", "2026-11-18T11:06:00Z"))[1]
    await cli("pause", "x", "--note", "why")
    assert "the pause left out 2 runs" in (await cli("resume", "x"))[1]
    assert await cli("delete", "x") == (0, "deleted schedule x\n")


async def test_a_list_shows_triggers_and_how_the_last_runs_went(
    fake: FakeCluster, cli: Cli
) -> None:
    for name in "abc":
        await cli("apply", name, "t", "--every", "5m")
    recent = [{"job_id": "1", "outcome": o} for o in ("completed", "failed", "cancelled")]
    fake.schedules["b"] |= {"recent": recent, "running": 1, "timezone": "UTC"}
    code, out = await cli("list")
    assert (code, len(out.splitlines())) == (0, 4)  # more than a page of the fake cluster
    assert ("every 300 s" in out, ".Fc>" in out) == (True, True)
    shown = (await cli("show", "b"))[1]
    assert ".Fc>" in shown
    assert "F failed" in shown
    listed = [json.loads(line) for line in (await cli("list", json=True))[1].splitlines()]
    assert [row["schedule_id"] for row in listed] == [*"abc"]
    assert listed[1]["recent"] == recent


def test_cells() -> None:
    assert when({"schedule": "0 9 * * *", "timezone": "Europe/Berlin"}) == "0 9 * * * Europe/Berlin"
    assert when({"at": ["a", "b", "c"]}) == "a +2"
    assert when({"any_of": [], "explanation": "now and then"}) == "now and then"
    assert strip({"recent": [], "running": 0}) is None
