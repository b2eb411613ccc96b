"""The verbs of scenarios: one small function each."""

from __future__ import annotations

from machine_story import Args, Story, verb

from cluster.machine import commands as c
from cluster.machine import lifecycle, snapshot, views
from cluster.machine.levels import HIGHEST_LEVEL
from cluster.machine.model import JobSpec, WorkerSpec

ON_CONFLICT = {"return": 0, "reject": 1, "replace": 2}


def _ids(args: Args) -> list[int]:
    return [int(word) for word in args.words]


def _attempts(args: Args) -> tuple[list[int], list[int]]:
    """`3#1 4#2`: jobs and their attempts."""
    pairs = [word.split("#") for word in args.words]
    return [int(i) for i, _ in pairs], [int(a) for _, a in pairs]


def _worker(text: str) -> int:
    return int(text.removeprefix("w") or 0)


def _spec(args: Args, name: str) -> JobSpec:
    return JobSpec(
        name,
        args.text("queue", "default"),
        args.number("priority", 5),
        args.number("max_retries", 3),
        timeout_ms=args.number("timeout", 60_000),
    )


def _group(args: Args, name: str) -> c.JobGroup:
    keys = args.text("unique")
    unique_keys = keys.split(",") if keys else None
    count = args.number("n", len(unique_keys) if unique_keys else 1)
    return c.JobGroup(
        _spec(args, name),
        [b"{}"] * count,
        args.number("at"),
        args.number("expires"),
        args.number("deadline"),
        unique_keys,
        ON_CONFLICT[args.text("on_conflict", "return")],
        args.number("ttl"),
    )


@verb
def submit(story: Story, args: Args) -> str:
    """`submit mail n=2 at=5000 unique=a,b key=request`"""
    key, fingerprint, ttl = args.text("key"), args.number("body"), args.number("key_ttl", 2_000)
    groups = [_group(args, name) for name in args.words]
    return story.tell(c.SubmitJobs(groups, key, fingerprint, ttl))


@verb
def submit_groups(story: Story, args: Args) -> str:
    """`submit_groups mail:2:0 report:1:5000 slow:1:0:key`: name, count, due, unique key."""
    groups = []
    for word in args.words:
        name, count, due, *key = word.split(":")
        keys = key * int(count) if key else None
        groups.append(c.JobGroup(JobSpec(name), [b"{}"] * int(count), int(due), 0, 0, keys))
    return story.tell(c.SubmitJobs(groups))


@verb
def time(story: Story, args: Args) -> str:
    """`time 5000`: an empty batch at that moment."""
    story.now_ms = int(args.words[0])
    return story.tell()


@verb
def clock(story: Story, args: Args) -> str:
    """The leader's clock moves, nothing is told to the machine yet."""
    story.now_ms = int(args.words[0])
    return "ok"


@verb
def epoch(story: Story, args: Args) -> str:
    story.epoch = int(args.words[0])
    return "ok"


@verb
def worker(story: Story, args: Args) -> str:
    return story.tell(c.RegisterWorker(WorkerSpec("host", args.number("slots", 4), ("*",), ())))


@verb
def update(story: Story, args: Args) -> str:
    spec = WorkerSpec("host", args.number("slots", 4), ("*",), ())
    return story.tell(c.UpdateWorker(_worker(args.words[0]), spec))


@verb
def drain(story: Story, args: Args) -> str:
    return story.tell(c.DrainWorker(_worker(args.words[0])))


@verb
def goodbye(story: Story, args: Args) -> str:
    return story.tell(c.RemoveWorker(_worker(args.words[0]), False, "left"))


@verb
def lost(story: Story, args: Args) -> str:
    return story.tell(c.RemoveWorker(_worker(args.words[0]), True, "no heartbeat"))


@verb
def assign(story: Story, args: Args) -> str:
    """`assign w1 3 4`"""
    return story.tell(c.AssignJobs(_worker(args.words[0]), [int(i) for i in args.words[1:]]))


@verb
def raise_level(story: Story, args: Args) -> str:
    """To the highest."""
    return story.tell(c.RaiseLevel(HIGHEST_LEVEL))


@verb
def assign_many(story: Story, args: Args) -> str:
    """`assign_many w1:3,4 w2:5`: in one command."""
    shares = [word.split(":") for word in args.words]
    jobs = [[int(i) for i in ids.split(",") if i] for _, ids in shares]
    workers = [_worker(worker) for worker, _ in shares]
    return story.tell(c.AssignMany(workers, list(map(len, jobs)), [i for ids in jobs for i in ids]))


@verb
def submit_to(story: Story, args: Args) -> str:
    """`submit_to w1:2 w2:1 name=mail n=3 at=5000`: in one batch, who shall get how many of them."""
    key, group = args.text("key"), _group(args, args.text("name", "mail"))
    takers = [word.split(":") for word in args.words]
    wanted = [c.AssignNew(_worker(worker), int(count)) for worker, count in takers]
    return story.tell(c.SubmitJobs([group], key, 0, 2_000), *wanted)


@verb
def assign_new(story: Story, args: Args) -> str:
    """`assign_new w1 2`: in a batch without a submission."""
    return story.tell(c.AssignNew(_worker(args.words[0]), int(args.words[1])))


@verb
def complete(story: Story, args: Args) -> str:
    """`complete 3#1 by=w1 output=5`; without `by` for whoever holds it."""
    ids, attempts = _attempts(args)
    output = args.text("output")
    outputs: list[bytes | None] | None = [output.encode()] * len(ids) if output else None
    return story.tell(c.CompleteJobs(_worker(args.text("by")), ids, attempts, outputs))


@verb
def complete_many(story: Story, args: Args) -> str:
    """`complete_many w1:3#1,4#1 w2:5#2 output=5`: each says so of its own, in one command."""
    shares = [word.split(":") for word in args.words]
    held = [[pair.split("#") for pair in pairs.split(",") if pair] for _, pairs in shares]
    ids, attempts = ([int(pair[n]) for share in held for pair in share] for n in (0, 1))
    output = args.text("output")
    outputs: list[bytes | None] | None = [output.encode()] * len(ids) if output else None
    workers = [_worker(worker) for worker, _ in shares]
    return story.tell(c.CompleteMany(workers, list(map(len, held)), ids, attempts, outputs))


@verb
def fail(story: Story, args: Args) -> str:
    """`fail 3#1 retry_at=9000`; 0: final."""
    ids, attempts = _attempts(args)
    retry_at_ms, log, by = args.number("retry_at"), "x" * args.number("log"), args.text("by")
    failures = [
        c.JobFailure(i, a, "ValueError", "broken", retry_at_ms, log)
        for i, a in zip(ids, attempts, strict=True)
    ]
    return story.tell(c.FailJobs(_worker(by), failures))


@verb
def release(story: Story, args: Args) -> str:
    return story.tell(c.ReleaseJobs(_worker(args.text("by")), *_attempts(args)))


@verb
def cancel(story: Story, args: Args) -> str:
    return story.tell(c.CancelJobs(_ids(args), "by hand"))


@verb
def replay(story: Story, args: Args) -> str:
    """`replay 3 at=9000 queue=other priority=1 payload=new max_retries=0 timeout=5`"""
    payload = args.text("payload")
    changes = c.JobChanges(
        payload.encode() or None,
        args.text("queue") or None,
        args.number("priority") or None,
        int(args.text("max_retries")) if "max_retries" in args.options else None,
        args.number("timeout") or None,
    )
    return story.tell(c.RetryJobs(_ids(args), args.number("at"), changes))


@verb
def purge(story: Story, args: Args) -> str:
    return story.tell(c.PurgeDead(_ids(args)))


@verb
def die_and_replay(story: Story, args: Args) -> str:
    """`die_and_replay 1#1`: the attempt fails for good and is replayed in the same batch."""
    (job_id,), (attempt,) = _attempts(args)
    failure = c.JobFailure(job_id, attempt, "ValueError", "broken", 0)
    return story.tell(c.FailJobs(0, [failure]), c.RetryJobs([job_id]))


@verb
def unreadable(story: Story, args: Args) -> str:
    """A command that breaks the rules of the codec, between two that do not."""
    pause_one = c.PauseSchedule("nobody")
    return story.tell(pause_one, c.ReleaseJobs(0, [], []), _too_late(), pause_one)


def _too_late() -> c.Command:
    return c.ResumeSchedule("nobody", 1 << 60)


@verb
def restart(story: Story, args: Args) -> str:
    """The node goes on from a snapshot."""
    story.state = snapshot.load(list(snapshot.dump(story.state)))
    return "ok"


@verb
def job(story: Story, args: Args) -> str:
    """What a user sees of a job that is live or dead."""
    view = views.job(story.state, int(args.words[0]))
    if view is None:
        return "gone"
    status = lifecycle.NAMES.get(view.state, lifecycle.STATUS[view.state])
    parts = [
        f"{status} run_at={view.run_at_ms} attempt={view.attempt} failures={view.failures}",
        f"{view.spec.queue}/{view.spec.name} priority={view.spec.priority} "
        f"max_retries={view.spec.max_retries} payload={view.payload.decode()}",
    ]
    bounds = (
        ("expires", view.expires_at_ms), ("deadline", view.deadline_ms),
        ("unique", view.unique_key), ("schedule", view.schedule_id),
        ("nominal", view.nominal_ms), ("error", view.error_type),
    )  # fmt: skip
    extras = [f"{name}={value}" for name, value in bounds if value]
    return "\n".join(parts + ([" ".join(extras)] if extras else []))


@verb
def attempts(story: Story, args: Args) -> str:
    view = views.job(story.state, int(args.words[0]))
    assert view is not None
    return (
        "\n".join(
            f"#{a.number} w{a.worker_id} {a.started_ms}..{a.ended_ms} {a.outcome} {a.error_type}"
            f" log={len(a.log)}"
            for a in view.attempts or ()
        )
        or "none"
    )


@verb
def memory(story: Story, args: Args) -> str:
    """How much the state holds of everything."""
    t = story.state.tables
    return (
        f"jobs={len(t.jobs)} dead={len(t.dead)} specs={len(t.specs)} queues={len(t.queues)} "
        f"timers={len(story.state.timers.wheel)} requests={len(t.requests)} "
        f"uniques={len(t.uniques)} workers={len(t.workers)}"
    )


@verb
def counts(story: Story, args: Args) -> str:
    return " ".join(f"{k}={v}" for k, v in views.jobs_by_status(story.state).items() if v) or "none"
