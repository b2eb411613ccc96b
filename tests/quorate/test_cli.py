"""The command line as a user meets it: real processes, exit codes, one-line errors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_cluster import FakeCluster, StartWorker

from quorate import Client, JobRequest
from quorate.cli import main, upgrade
from quorate.cli.output import print_table
from quorate.testing import free_port, local_node

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


async def start(fake: FakeCluster | None, *argv: str, **env: str) -> Process:
    nodes = {"QUORATE_NODES": ",".join(fake.urls)} if fake is not None else {}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QUORATE_")}
    environment |= {"PYTHONPATH": str(ROOT), **nodes, **env}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "quorate", *argv, stdout=PIPE, stderr=PIPE, env=environment
    )


async def run(fake: FakeCluster | None, *argv: str, **env: str) -> Ended:
    process = await start(fake, *argv, **env)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_submit_and_look(fake: FakeCluster, start_worker: StartWorker) -> None:
    await start_worker()
    ended = await run(fake, "submit", "simulate", "--payload", '{"execution_time_ms": 1}', "--wait")
    assert (ended.code, ended.json[0]["status"]) == (0, "completed")
    many = await run(fake, "submit", "simulate", "--count", "3", "--tag", "a", "--tag", "b")
    assert [row["job_id"] for row in many.json] == ["2", "3", "4"]
    assert fake.jobs[4]["tags"] == ["a", "b"]
    shown = await run(fake, "jobs", "show", "4")
    assert shown.json[0]["name"] == "simulate"
    listed = await run(fake, "jobs", "list", "--limit", "2", "--json")
    assert [row["job_id"] for row in listed.json] == ["1", "2"]


async def test_exit_codes(fake: FakeCluster, start_worker: StartWorker) -> None:
    await start_worker()
    failing = ("submit", "simulate", "--payload", '{"fail_rate": 1}', "--max-retries", "0")
    runs = await asyncio.gather(
        run(fake, *failing, "--wait"),
        run(fake, "jobs", "show", "99"),
        run(fake, "submit", "simulate", "--payload", "{nonsense"),
        run(fake, "jobs", "frobnicate"),
        run(fake, "submit", "simulate", "--delay", "soon"),
        run(None, "stats", "--nodes", "http://127.0.0.1:1", "--retry-seconds", "0.1"),
        run(fake, "worker", "no_such_module"),
        run(fake, "worker", QUORATE_SLOTS="many"),
        run(fake, "dlq", "purge"),
        run(fake, "jobs"),
        run(fake, "jobs", "list", "--limit", "0"),
        run(fake, "dev", "--http-base", "70000", "--raft-base", str(free_port())),
        run(fake, "jobs", "show", "../cluster"),
    )
    assert [ended.code for ended in runs] == [1, 1, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1]
    for ended in runs[1:]:
        assert "Traceback" not in ended.err
    assert runs[1].err == "quorate: there is no such job\n"
    assert (
        runs[6].err == "quorate: cannot import 'no_such_module': No module named 'no_such_module'\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", "cannot import 'odd_app': SyntaxError: '(' was never closed"),
        ("\n1 / 0", "cannot import 'odd_app': ZeroDivisionError: division by zero ("),
    ],
)
async def test_an_application_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "odd_app.py").write_text(text)
    ended = await run(None, "worker", "odd_app:app", PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert said in ended.err


async def test_every_flag_has_a_variable(fake: FakeCluster) -> None:
    ended = await run(
        fake,
        "submit",
        "simulate",
        QUORATE_SUBMIT_QUEUE="mail",
        QUORATE_SUBMIT_COUNT="2",
        QUORATE_SUBMIT_TAG="x,y",
    )
    assert ended.code == 0
    assert [(job["queue"], job["tags"]) for job in fake.jobs.values()] == [("mail", ["x", "y"])] * 2


async def test_reads_name_their_level(fake: FakeCluster) -> None:
    await run(fake, "jobs", "list", "--consistency", "linearizable")
    await run(fake, "--consistency", "stale", "stats")
    await run(fake, "workers", "list", QUORATE_CONSISTENCY="leader")
    await run(fake, "submit", "simulate", "--consistency", "stale")  # means nothing to a write
    assert fake.levels == [
        ("/v1/jobs", "linearizable"),
        ("/v1/stats", "stale"),
        ("/v1/workers", "leader"),
        ("/v1/jobs/batch", None),
    ]
    for ended in (
        await run(fake, "stats", "--consistency", "perhaps"),
        await run(fake, "stats", QUORATE_CONSISTENCY="perhaps"),
    ):
        assert (ended.code, "linearizable" in ended.err) == (2, True)


async def test_cluster_views(fake: FakeCluster, start_worker: StartWorker) -> None:
    await start_worker(name="me")
    status, workers, stats, cancelled = await asyncio.gather(
        run(fake, "cluster", "status"),
        run(fake, "workers", "list"),
        run(fake, "stats"),
        run(fake, "schedules", "create", "sweep", "--every", "5m", "--id", "s"),
    )
    assert status.json[0]["term"] == 3
    assert workers.json[0]["name"] == "me"
    assert "jobs_by_status" in stats.json[0]
    assert cancelled.json[0]["every_seconds"] == 300


async def test_members_come_and_go(fake: FakeCluster) -> None:
    fake.catching_up = 2
    added = await run(fake, "cluster", "add", "n:4")
    assert (added.code, added.json) == (0, [{"id": "n:4", "standing": "voter"}])
    assert (await run(fake, "cluster", "add", "n:4")).code == 0  # it is one already
    learner = await run(fake, "cluster", "add", "n:5", "--learner")
    assert (learner.code, fake.members["n:5"]) == (0, "learner")
    replaced = await run(fake, "cluster", "replace", "n:1", "n:6")
    assert replaced.json == [{"added": "n:6", "removed": "n:1"}]
    assert (await run(fake, "cluster", "replace", "n:1", "n:6")).code == 0  # as after a Ctrl-C
    removed = await run(fake, "cluster", "remove", "n:2")
    assert (removed.code, set(fake.members)) == (0, {"n:3", "n:4", "n:5", "n:6"})
    gone = await run(fake, "cluster", "remove", "n:2")
    assert (gone.code, "unknown_member" in gone.err) == (1, True)
    listed = await run(fake, "cluster", "members")
    assert [row["standing"] for row in listed.json] == ["voter", "voter", "learner", "voter"]
    fake.catching_up = 10_000
    stuck = await run(fake, "cluster", "replace", "n:3", "n:7", "--timeout", "0.2")
    assert (stuck.code, "--join" in stuck.err, "n:3" in fake.members) == (1, True, True)
    assert (await run(fake, "cluster", "add", "n:8", "--timeout", "soon")).code == 2


async def test_the_feature_level_is_raised(fake: FakeCluster) -> None:
    raised = await run(fake, "cluster", "upgrade")
    assert raised.json == [{"before": 2, "level": 3, "dry_run": False}]
    trial = await run(fake, "cluster", "upgrade", "--to", "4", "--dry-run")
    assert trial.json == [{"before": 2, "level": 4, "dry_run": True}]
    refused = await run(fake, "cluster", "upgrade", "--to", "9")
    assert (refused.code, "b knows levels up to 3" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"before": 3, "level": 3, "dry_run": False}, "at feature level 3 already"),
        ({"before": 2, "level": 3, "dry_run": True}, "can be raised from feature level 2 to 3"),
        ({"before": 2, "level": 3, "dry_run": False}, "raised from feature level 2 to 3"),
    ],
)
def test_an_upgrade_is_told_in_words(answer: dict[str, Any], sentence: str) -> None:
    assert sentence in upgrade._sentence(answer)


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "name"), [["1", "a"], ["200", "bb"]])
    assert capsys.readouterr().out == "ID   NAME\n1    a\n200  bb\n"


def app_file(folder: Path, body: str) -> None:
    (folder / "jobs_app.py").write_text(
        "import asyncio\nfrom pathlib import Path\nfrom quorate import Context, Scheduler\n"
        "app = Scheduler()\n" + body
    )


async def test_sigterm_finishes_hands_back_and_exits_zero(
    fake: FakeCluster, tmp_path: Path
) -> None:
    app_file(
        tmp_path,
        "@app.task()\nasync def quick(ctx: Context) -> str:\n"
        "    while not ctx.shutdown_requested:\n        await asyncio.sleep(0.01)\n"
        "    return 'finished'\n"
        "@app.task()\nasync def endless() -> None:\n    await asyncio.Event().wait()\n",
    )
    quick, endless, command = fake.add("quick"), fake.add("endless"), fake.add("command")
    fake.jobs[command]["payload"] = {"command": f"echo $$ > {tmp_path}/pid; sleep 100"}
    process = await start(
        fake, "worker", "jobs_app:app", "--grace-seconds", "0.3", PYTHONPATH=f"{ROOT}:{tmp_path}"
    )
    await fake.until(lambda: fake.status(command) == "running")
    async with asyncio.timeout(60):
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert fake.jobs[quick]["output"] == "finished"
    assert (fake.jobs[endless]["status"], fake.jobs[endless]["released"]) == ("pending", 1)
    assert (fake.jobs[command]["status"], fake.jobs[command]["failures"]) == ("pending", 0)
    assert fake.workers == {}
    group = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{group}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_second_signal_aborts_at_once(fake: FakeCluster, tmp_path: Path) -> None:
    app_file(
        tmp_path,
        "@app.task()\ndef stuck() -> None:\n    import time\n    time.sleep(100)\n",
    )
    job_id = fake.add("stuck")
    process = await start(fake, "worker", "jobs_app:app", PYTHONPATH=f"{ROOT}:{tmp_path}")
    await fake.until(lambda: fake.status(job_id) == "running")
    link = fake.workers["w1"]
    process.send_signal(signal.SIGINT)
    await fake.until(lambda: ["drain"] in link.frames)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert b"aborted" in err


async def test_dev_names_the_port_that_is_taken(fake: FakeCluster) -> None:
    taken = fake.urls[0].rpartition(":")[2]
    ended = await run(None, "dev", "--http-base", taken, "--raft-base", str(free_port()))
    assert ended.code == 2
    assert f"port {taken} is not free" in ended.err


@pytest.mark.parametrize("by_variable", [False, True])
async def test_the_worker_points_the_application_at_its_own_nodes(
    fake: FakeCluster, tmp_path: Path, by_variable: bool
) -> None:
    """The app names other nodes; schedules and jobs submitted by jobs must not go there."""
    app_file(
        tmp_path,
        "app.use_nodes('http://127.0.0.1:1')\n"
        "@app.every(60, id='often')\n@app.task()\nasync def parent() -> None:\n"
        "    await app.submit('simulate', queue='children')\n",
    )
    parent = fake.add("parent")
    flag = () if by_variable else ("--nodes", ",".join(fake.urls))
    process = await start(
        fake if by_variable else None,
        *("worker", "jobs_app:app", *flag),
        PYTHONPATH=f"{ROOT}:{tmp_path}",
    )
    await fake.until(lambda: fake.status(parent) == "completed" and fake.schedules)
    process.terminate()
    await process.communicate()
    assert [job["name"] for job in fake.jobs.values()] == ["parent", "simulate"]
    assert list(fake.schedules) == ["often"]


async def test_jobs_are_cancelled_and_retried_by_filter(capsys: pytest.CaptureFixture[str]) -> None:
    async def cli(*argv: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, [*argv, "--json", "--nodes", url])
        return code, capsys.readouterr().out

    async with local_node() as url, Client(url) as client:
        flood = [JobRequest(name="t", queue="flood", tags=[str(n % 2)]) for n in range(30)]
        await client.submit_many([*flood, JobRequest(name="t", queue="other")])
        assert await cli("jobs", "cancel", "--queue", "flood", "--tag", "1") == (
            0,
            '{"count":15}\n',
        )
        assert await cli("jobs", "cancel", "--queue", "flood") == (0, '{"count":15}\n')
        assert await cli("jobs", "retry", "--queue", "flood") == (0, '{"count":0}\n')
        assert (await cli("jobs", "cancel"))[0] == 2
        assert (await cli("jobs", "cancel", "1", "--queue", "flood"))[0] == 2
        assert (await client.stats())["jobs_by_status"]["pending"] == 1
