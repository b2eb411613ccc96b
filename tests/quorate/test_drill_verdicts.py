"""What a drill says of doctored findings: each kind of damage fails the criterion meant for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quorate.cli import main
from quorate.drill import compare, criteria
from quorate.drill.criteria import Criterion
from quorate.drill.load import longest_gap
from quorate.drill.region import freeze, newest_backup
from quorate.drill.report import ABORTED, FAIL, PASS, Report, StepRecord, markdown, verdict, write
from quorate.drill.step import DrillError


def job(status: str = "pending", **fields: Any) -> dict[str, Any]:
    plain = {"name": "mail", "queue": "q", "payload": {"to": "a"}, "attempt": 0, "failures": 0}
    return {**plain, "status": status, "reason": None, "worker_id": None, **fields}


JOBS = {
    "1": job("completed", attempt=1, output=7),
    "2": job("failed", attempt=1, failures=1, error_type="Broken"),
    "3": job(scheduled_at="2026-11-21T15:00:00.000Z"),
    "4": job("running", attempt=2, failures=1, worker_id="w7"),
}


def doctored(job_id: str, **fields: Any) -> dict[str, dict[str, Any]]:
    return {**JOBS, job_id: {**JOBS[job_id], **fields}}


def without(job_id: str) -> dict[str, dict[str, Any]]:
    return {i: each for i, each in JOBS.items() if i != job_id}


def test_what_is_the_same_passes() -> None:
    assert compare.unchanged(JOBS, JOBS) == []
    assert compare.moved_on(JOBS, JOBS) == []
    later = doctored("3", reason="no_worker", next_run=None)
    assert compare.unchanged(JOBS, later) == []


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (without("3"), "job 3 (pending) is missing"),
        (doctored("1", output=8), "job 1: output was 7, is 8"),
        (doctored("2", status="pending"), "job 2: status was 'failed', is 'pending'"),
        (doctored("3", payload={"to": "b"}), "job 3: payload was {'to': 'a'}, is {'to': 'b'}"),
        (doctored("4", attempt=3), "job 4: attempt was 2, is 3"),
        (doctored("4", novelty=1), "job 4: novelty was None, is 1"),
    ],
)
def test_any_field_that_differs_is_told(after: dict[str, Any], told: str) -> None:
    assert compare.unchanged(JOBS, after) == [told]


def test_others_jobs_may_go_on_but_not_back() -> None:
    gone_on = {
        **JOBS,
        "3": job("completed", attempt=1, scheduled_at="2026-11-21T15:00:00.000Z"),
        "4": job(attempt=2, failures=2),
    }
    assert compare.moved_on(JOBS, gone_on) == []
    assert compare.moved_on(JOBS, doctored("4", attempt=1)) == ["job 4: attempt fell from 2 to 1"]
    assert compare.moved_on(JOBS, doctored("4", queue="other")) != []
    assert compare.moved_on(JOBS, doctored("1", attempt=2)) != []


def test_a_restored_job_that_ran_has_used_its_attempt_up() -> None:
    waits = doctored("4", status="pending", failures=2, worker_id=None)
    runs = doctored("4", status="running", attempt=3, failures=2, worker_id="w9")
    dead = doctored("4", status="failed", failures=2, worker_id=None)
    for restored in (waits, runs, dead):
        assert compare.brought_back(JOBS, JOBS, restored) == []
    (fault,) = compare.brought_back(JOBS, JOBS, JOBS)
    assert fault.startswith("job 4: attempt 2 was not used up")


def test_a_restored_job_is_as_it_was_unless_it_moved_during_the_backup() -> None:
    good = doctored("4", status="pending", failures=2)
    moved = doctored("3", status="running", attempt=1)
    damaged = {**good, "3": {**good["3"], "scheduled_at": None}}
    assert compare.brought_back(JOBS, moved, {**good, "3": moved["3"]}) == []
    assert compare.brought_back(JOBS, moved, damaged) == []  # either look may be the later one
    assert len(compare.brought_back(JOBS, JOBS, damaged)) == 1
    assert len(compare.brought_back(JOBS, moved, {**good, "3": job(name="other")})) == 1


def failed(*judged: Criterion) -> list[str]:
    return [c.name for c in judged if not c.passed]


def test_counts() -> None:
    before = compare.by_status(JOBS.values())
    assert failed(criteria.same_counts("a", before, {**before, "skipped": 0})) == []
    assert failed(criteria.same_counts("a", before, {**before, "pending": 2})) == ["a"]
    live, fewer = {"live": 300}, {"live": 299}
    assert failed(criteria.counts_within("b", live, fewer, 1)) == []
    assert failed(criteria.counts_within("b", live, fewer, 0)) == ["b"]
    assert failed(criteria.counts_within("b", live, {"live": 290}, 4)) == ["b"]


def test_success_must_be_above_its_share() -> None:
    statuses = {"completed": 991, "failed": 9}
    assert criteria.succeeded("s", 1000, statuses, 0.99).passed
    assert not criteria.succeeded("s", 1000, {"completed": 990, "failed": 10}, 0.99).passed
    assert not criteria.succeeded("s", 0, {}, 0.99).passed


def test_times_and_gaps() -> None:
    assert criteria.within("RTO", 119.9, 120).passed
    assert not criteria.within("RTO", 120.0, 120).passed
    assert criteria.within("RTO", None, 120).found == "not in that time"
    assert not criteria.within("RTO", None, 120).passed
    assert longest_gap([0, 1, 2, 5, 6], since=2.5, until=6) == 3
    assert longest_gap([0, 1], since=2, until=9) == 8  # it began before the fault was made
    assert longest_gap([], since=2, until=9) == 7


def test_lost_jobs() -> None:
    acks = ["1", "2", "3", "4"]
    assert criteria.nothing_lost("RPO", acks, set(acks)).passed
    lost = criteria.nothing_lost("RPO", acks, {"1", "2"})
    assert (lost.passed, lost.found) == (False, "2 of 4 missing: 3, 4")
    assert criteria.no_holes("holes", acks, {"1", "2"}).passed
    assert criteria.no_holes("holes", acks, set()).passed
    hole = criteria.no_holes("holes", acks, {"1", "3"})
    assert (hole.passed, hole.found) == (False, "1 later jobs are there, e.g. 3")


def story(*events: tuple[str, int | None]) -> list[dict[str, Any]]:
    return [{"event": event, "attempt": attempt} for event, attempt in events]


def test_a_job_ends_once() -> None:
    good = story(("created", None), ("started", 1), ("lost", 1), ("started", 2), ("completed", 2))
    dead = story(("created", None), ("started", 1), ("failed", 1), ("dead_letter", None))
    assert criteria.ended_once("ends", {"1": good, "2": dead}).passed
    twice = [*good, {"event": "completed", "attempt": 2}]
    assert "ended 2 times" in criteria.ended_once("ends", {"1": twice}).found
    skipped = story(("started", 1), ("started", 3), ("completed", 3))
    assert "had attempts [1, 3]" in criteria.ended_once("ends", {"1": skipped}).found
    open_end = story(("created", None), ("started", 1))
    assert not criteria.ended_once("ends", {"1": open_end}).passed


def step(outcome: str = "done") -> StepRecord:
    return StepRecord("fault", "kill | it", outcome, 0.25)


def test_only_all_of_it_is_a_pass() -> None:
    good, bad = criteria.holds("a", 1, 1), criteria.holds("b", 1, 2)
    assert verdict([good], [step()]) == PASS
    assert verdict([good, bad], [step()]) == FAIL
    assert verdict([good], [step(), step("failed")]) == FAIL
    assert verdict([good], [step("skipped")]) == FAIL
    assert verdict([], [step()]) == FAIL
    assert verdict([good], [step("aborted")]) == ABORTED


def test_a_report_says_it_for_people_and_for_programs(tmp_path: Path) -> None:
    report = Report(
        drill="failover",
        id="drill-0a1b",
        summary="The leader goes.",
        began="2026-11-21T15:00:00Z",
        rto_seconds=0.31,
        rto_of="gap",
        rpo_jobs=2,
        rpo_seconds=1.5,
        steps=[step()],
        criteria=[criteria.within("RTO", 0.31, 120), criteria.nothing_lost("RPO", ["1"], [])],
    )
    text = markdown(report)
    assert "| RTO | less than 2 min | 310 ms | PASS |" in text
    assert "| RPO | all 1 acknowledged jobs | 1 of 1 missing: 1 | FAIL |" in text
    assert "* RPO 2 acknowledged jobs lost, 1.50 s of work" in text
    assert "| fault | kill \\| it | 250 ms | done |" in text
    page, data = write(report, tmp_path / "new")
    assert page.name == "2026-11-21-failover-0a1b.md"
    assert page.read_text() == text
    assert json.loads(data.read_bytes())["criteria"][1]["passed"] is False


def test_the_newest_backup_is_taken_and_its_log_stands_still(tmp_path: Path) -> None:
    kept, frozen = tmp_path / "kept", tmp_path / "frozen"
    kept.mkdir()
    with pytest.raises(DrillError, match=r"no full-\*\.tar"):
        newest_backup(kept)
    for index in (7, 12):
        (kept / f"full-{index:020d}-{1:014d}.tar").write_text(str(index))
    log = kept / "log-1.kept"
    log.write_text("before")
    freeze(kept, frozen)
    log.write_text("before and after")
    assert newest_backup(frozen).read_text() == "12"
    assert (frozen / "log-1.kept").read_text() == "before"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["failover", "--rto-seconds", "0"], "--rto-seconds must be more than 0"),
        (["dr", "--rpo-seconds", "-1"], "--rpo-seconds must be more than 0"),
        (["backup", "--jobs", "0"], "--jobs must be more than 0"),
        (["dr", "--kept-log", "no/such/folder"], "--kept-log: "),
        (["dr", "--kept-log", "."], "has no full-*.tar"),
    ],
)
def test_what_cannot_pass_is_refused_before_the_cluster_is_asked(
    flags: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    nobody = ["--nodes", "http://127.0.0.1:1", "--retry-seconds", "0.1"]
    assert main(["drill", *flags, *nobody]) == 2
    assert said in capsys.readouterr().err
