"""Scenarios as text, after the interaction tests of etcd's raft.

A scenario is a list of steps `verb args`, `----`, what the machine answers. Each verb is one small
function in `verbs`; its answer is compared, or written by `pytest --rewrite`. After every step the
invariants are checked, and the state must survive a snapshot unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from cluster.machine import invariants, lifecycle, snapshot
from cluster.machine.apply import apply
from cluster.machine.chronicle import LAUNCHES
from cluster.machine.commands import Batch, Command, Unreadable, decode_batch, encode_batch
from cluster.machine.effects import Effects, ready_rows
from cluster.machine.model import ScheduleEvent
from cluster.machine.results import (
    BackfillStarted,
    Done,
    Fired,
    Given,
    PerJob,
    Registered,
    Rejected,
    Result,
    Scheduled,
    Settled,
    Submitted,
)
from cluster.machine.state import State

SEPARATOR = "----"
TOLD_BY_COMMANDS = {"paused", "resumed", "changed", "deleted", "backfill_started"}


@dataclass
class Story:
    """A machine and the clock of its leader. Times in scenarios are ms, from 1000 on."""

    state: State = field(default_factory=State)
    now_ms: int = 1_000
    epoch: int = 1

    def tell(self, *commands: Command | Unreadable) -> str:
        """One batch through the codec; what it answered and brought about."""
        encoded = encode_batch(Batch(self.epoch, self.now_ms, list(commands)))  # type: ignore[arg-type]
        results, effects = apply(self.state, decode_batch(encoded))
        lines = [show_result(result) for result in results]
        return "\n".join(lines + list(show_effects(effects))) or "ok"

    def check(self) -> None:
        invariants.check(self.state)
        dumped = b"".join(snapshot.dump(self.state))
        assert b"".join(snapshot.dump(snapshot.load([dumped]))) == dumped


@dataclass
class Args:
    """`word key=value word`: words in order, options by name."""

    words: list[str]
    options: dict[str, str]

    @classmethod
    def parse(cls, parts: list[str]) -> Args:
        words = [part for part in parts if "=" not in part]
        options = dict(part.split("=", 1) for part in parts if "=" in part)
        return cls(words, options)

    def number(self, name: str, default: int = 0) -> int:
        return int(self.options.pop(name, default))

    def text(self, name: str, default: str = "") -> str:
        return self.options.pop(name, default)

    def done(self) -> None:
        assert not self.options, f"unknown options: {self.options}"


Verb = Callable[[Story, Args], str]
VERBS: dict[str, Verb] = {}


def verb(function: Verb) -> Verb:
    VERBS[function.__name__.rstrip("_")] = function
    return function


def play(path: Path, rewrite: bool) -> None:
    """Run a scenario; raise AssertionError at the first step that answers something else."""
    story = Story()
    written = []
    for step in _steps(path.read_text()):
        if step.command is None:
            written.append(step.text)
            continue
        name, *rest = step.command.split()
        args = Args.parse(rest)
        answer = VERBS[name](story, args)
        args.done()
        story.check()
        if not rewrite:
            assert answer == step.expected, f"{path.name}:{step.line}: {step.command}"
        written.append(f"{step.command}\n{SEPARATOR}\n{answer}")
    if rewrite:
        path.write_text("\n\n".join(written) + "\n")


@dataclass
class _Step:
    line: int
    text: str
    command: str | None
    expected: str


def _steps(text: str) -> Iterator[_Step]:
    """Blocks between blank lines; a block that begins with # is a comment."""
    line = 1
    for block in text.split("\n\n"):
        body = block.strip("\n")
        if body:
            if body.startswith("#"):
                yield _Step(line, body, None, "")
            else:
                command, _, expected = body.partition(f"\n{SEPARATOR}\n")
                yield _Step(line, body, command.removesuffix(f"\n{SEPARATOR}"), expected)
        line += block.count("\n") + 2


def show_result(result: Result) -> str:
    match result:
        case Rejected():
            return f"rejected {result.name}"
        case Done():
            return "done"
        case Submitted(first, count, ids, replayed):
            shown = f"jobs {_ids(ids)}" if ids is not None else f"jobs {_range(first, count)}"
            return shown + (" (replayed)" if replayed else "")
        case Settled(refused):
            return f"refused {_ids(refused)}" if refused else "settled"
        case PerJob(codes):
            return " ".join(Rejected(code).name if code else "ok" for code in codes)
        case Scheduled(schedule_id):
            return f"schedule {schedule_id}"
        case Fired(job_id):
            return f"fired {job_id}"
        case BackfillStarted(backfill_id):
            return f"backfill {backfill_id}"
        case Registered(worker_id):
            return f"worker w{worker_id}"
        case Given(job_ids):
            return f"got {_ids(job_ids)}"


def show_effects(effects: Effects) -> Iterator[str]:
    if effects.jobs_ready:
        yield "  ready " + _ids([job.id for job in ready_rows(effects)])
    if effects.jobs_withdrawn:
        yield "  withdrawn " + _ids([job.id for job in effects.jobs_withdrawn])
    for worker_id, jobs in groupby(effects.jobs_assigned, key=lambda job: job.worker_id):
        yield f"  assigned w{worker_id}: " + " ".join(f"{j.id}#{j.attempt}" for j in jobs)
    for end in effects.jobs_finished:
        detail = f" {end.output.decode()}" if end.output is not None else ""
        detail += f" {end.error_type}: {end.error_message}" if end.error_type else ""
        yield f"  finished {end.job.id} {lifecycle.STATUS[end.job.state]}{detail}"
    for worker_id, job_id, attempt in effects.jobs_stopped:
        yield f"  stop {job_id}#{attempt} at w{worker_id}"
    for worker_id, job_id, attempt in effects.jobs_stopping:
        yield f"  ask to stop {job_id}#{attempt} at w{worker_id}"
    for job_id, attempt in effects.jobs_overdue:
        yield f"  overdue {job_id}#{attempt}"
    if effects.jobs_retrying:
        yield f"  retrying {effects.jobs_retrying}"
    yield from _show_schedules(effects)
    if effects.workers_changed:
        yield "  changed " + " ".join(f"w{i}" for i in effects.workers_changed)
    if effects.workers_left:
        yield "  left " + " ".join(f"w{i}" for i in effects.workers_left)


def _show_schedules(effects: Effects) -> Iterator[str]:
    for schedule_id, due_ms in effects.schedules_due:
        yield f"  due {schedule_id} at {due_ms}"
    for schedule_id, event in effects.schedule_events:
        if event.kind not in LAUNCHES and event.kind not in TOLD_BY_COMMANDS:
            yield f"  {schedule_id} {show_event(event)}"
    if effects.calendars_changed:
        yield "  calendars " + " ".join(effects.calendars_changed)


def show_event(event: ScheduleEvent) -> str:
    parts = [event.kind]
    if event.count != 1:
        parts.append(f"{event.count} times")
    if event.reason:
        parts.append(f"({event.reason})")
    if event.nominal_ms:
        until = f"..{event.last_ms}" if event.last_ms != event.nominal_ms else ""
        parts.append(f"{event.nominal_ms}{until}")
    if event.job_id:
        parts.append(f"job {event.job_id}")
    return " ".join(parts)


def _ids(ids: list[int]) -> str:
    return " ".join(str(i) for i in ids) if ids else "none"


def _range(first: int, count: int) -> str:
    return _ids(list(range(first, first + count)))
