"""What a drill leaves behind for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .criteria import Criterion, seconds_text

PASS, FAIL, ABORTED = "PASS", "FAIL", "ABORTED"


class StepRecord(msgspec.Struct):
    """One step as it went."""

    phase: str
    text: str
    outcome: str  # done, failed, aborted, skipped
    seconds: float
    detail: str = ""


class Report(msgspec.Struct, kw_only=True):
    """A drill as it went. Times are UTC; RTO and RPO are None where none was measured."""

    drill: str
    id: str
    summary: str
    began: str
    ended: str = ""
    verdict: str = FAIL
    rto_seconds: float | None = None
    rto_of: str = ""
    rpo_jobs: int | None = None
    rpo_seconds: float | None = None
    steps: list[StepRecord] = []
    criteria: list[Criterion] = []
    notes: list[str] = []


def verdict(criteria: Sequence[Criterion], steps: Sequence[StepRecord]) -> str:
    """PASS only when everything was done and everything that was judged is good."""
    if any(step.outcome == "aborted" for step in steps):
        return ABORTED
    done = all(step.outcome == "done" for step in steps)
    return PASS if done and criteria and all(c.passed for c in criteria) else FAIL


def markdown(report: Report) -> str:
    """The report as a page."""
    lines = [
        f"# Drill {report.drill}: {report.verdict}",
        "",
        report.summary,
        "",
        f"{report.id}, {report.began} to {report.ended}.",
        "",
        f"* RTO {_or_none(report.rto_seconds)}{_of(report.rto_of)}",
        f"* RPO {_rpo(report)}",
        *(f"* {note}" for note in report.notes),
        "",
        "| criterion | wanted | found | |",
        "|---|---|---|---|",
    ]
    for c in report.criteria:
        verdict_word = PASS if c.passed else FAIL
        lines.append(f"| {_cell(c.name)} | {_cell(c.wanted)} | {_cell(c.found)} | {verdict_word} |")
    lines += ["", "| phase | step | took | |", "|---|---|---|---|"]
    for step in report.steps:
        outcome = step.outcome + (f": {step.detail}" if step.detail else "")
        took = seconds_text(step.seconds) if step.outcome != "skipped" else ""
        lines.append(f"| {step.phase} | {_cell(step.text)} | {took} | {_cell(outcome)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _or_none(seconds: float | None) -> str:
    return "was not measured" if seconds is None else seconds_text(seconds)


def _of(text: str) -> str:
    return f" ({text})" if text else ""


def _rpo(report: Report) -> str:
    if report.rpo_jobs is None:
        return "was not measured"
    age = "" if report.rpo_seconds is None else f", {seconds_text(report.rpo_seconds)} of work"
    return f"{report.rpo_jobs} acknowledged jobs lost{age}"


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Both forms into `folder`, which is made; returns their paths. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    day = report.began[:10]
    stem = folder / f"{day}-{report.drill}-{report.id.rpartition('-')[2]}"
    page, data = stem.with_suffix(".md"), stem.with_suffix(".json")
    page.write_text(markdown(report), encoding="utf-8")
    data.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return page, data
