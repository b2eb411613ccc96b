"""The verbs of scenarios about schedules, backfills and calendars."""

from __future__ import annotations

from machine_story import Args, Story, show_event, verb

from cluster.machine import calendar_views, lifecycle, views
from cluster.machine import commands as c
from cluster.machine.model import JobSpec
from cluster.plan import Missed, Plan, Trigger


def _numbers(args: Args, name: str) -> list[int]:
    """`late=1000,2000` or `late=1000..9000/1000`."""
    text = args.text(name)
    if ".." in text:
        first, _, rest = text.partition("..")
        last, _, step = rest.partition("/")
        return list(range(int(first), int(last) + 1, int(step)))
    return [int(number) for number in text.split(",") if number]


def _missed(args: Args) -> list[Missed]:
    """`missed=too_old:1000:9000:9`"""
    found = []
    for text in args.text("missed").split():
        reason, first, last, count = text.split(":")
        found.append(Missed(reason, int(first), int(last), int(count)))
    return found


def _changes(args: Args) -> c.JobChanges:
    payload = args.text("payload")
    return c.JobChanges(
        payload.encode() or None, args.text("queue") or None, args.number("priority") or None
    )


@verb
def schedule(story: Story, args: Args) -> str:
    """`schedule mail next=61000 nominal=60000 id=nightly replace=1 overlap=skip max=3`"""
    calendars = tuple(name for name in args.text("calendars").split(",") if name)
    spec = JobSpec(args.words[0], timeout_ms=60_000)
    return story.tell(
        c.PutSchedule(
            args.text("id"), spec, b"{}", "", 0, args.number("next"), bool(args.number("replace")),
            args.number("expires_after"), args.number("ends_after"),
            Plan((Trigger("* * * * *"),), calendars=calendars), args.text("overlap", "allow_all"),
            args.number("max"), args.number("nominal"), bool(args.number("paused")),
            args.text("note"), args.number("version"), args.text("reason"),
        )
    )  # fmt: skip


@verb
def old_schedule(story: Story, args: Args) -> str:
    """As the first release wrote it: `old_schedule mail every=60000 next=61000`"""
    cron, every_ms = args.text("cron"), args.number("every")
    spec = JobSpec(args.words[0], timeout_ms=60_000)
    return story.tell(c.PutSchedule("", spec, b"{}", cron, every_ms, args.number("next")))


@verb
def pause(story: Story, args: Args) -> str:
    return story.tell(c.PauseSchedule(args.words[0], args.text("note")))


@verb
def resume(story: Story, args: Args) -> str:
    return story.tell(
        c.ResumeSchedule(args.words[0], args.number("next"), args.number("nominal"), _missed(args))
    )


@verb
def fire(story: Story, args: Args) -> str:
    """`fire s1 expected=61000 next=121000 late=1000,2000 launches= missed=bound:1:2:2 version=1`"""
    launches = _numbers(args, "launches") if "launches" in args.options else None
    return story.tell(
        c.FireSchedule(
            args.words[0], args.number("expected"), args.number("next"), args.number("skipped"),
            args.number("nominal"), launches, _numbers(args, "late"), _missed(args),
            args.number("version"), args.text("ended"),
        )
    )  # fmt: skip


@verb
def trigger(story: Story, args: Args) -> str:
    """`trigger s1 overlap=skip payload=new queue=other priority=1`"""
    overlap = args.text("overlap", "allow_all")
    return story.tell(c.TriggerSchedule(args.words[0], _changes(args), overlap))


@verb
def delete(story: Story, args: Args) -> str:
    return story.tell(c.DeleteSchedule(args.words[0]))


@verb
def replan(story: Story, args: Args) -> str:
    """`replan s1 version=1 expected=61000 next=62000 reason=tzdata`"""
    next_ms = args.number("next")
    return story.tell(
        c.ReplanSchedule(
            args.words[0], args.number("version", 1), args.number("expected"), next_ms,
            args.number("nominal", next_ms), args.text("reason", "tzdata"), _missed(args),
        )
    )  # fmt: skip


@verb
def releases(story: Story, args: Args) -> str:
    return story.tell(c.SetReleases(args.words[0]))


@verb
def backfill(story: Story, args: Args) -> str:
    """`backfill s1 at=1000..9000/1000 overlap=skip per_minute=60`"""
    return story.tell(
        c.StartBackfill(
            args.words[0], _numbers(args, "at"), args.text("overlap", "skip"),
            args.number("per_minute"), args.text("note"),
        )
    )  # fmt: skip


@verb
def stop_backfill(story: Story, args: Args) -> str:
    return story.tell(c.StopBackfill(args.words[0], int(args.words[1])))


@verb
def backfills(story: Story, args: Args) -> str:
    found = views.backfills(story.state, args.words[0])
    assert found is not None
    return (
        "\n".join(
            f"{b.id} {b.overlap} {b.launched} launched {b.skipped} skipped {b.waiting} waiting"
            f" of {b.total} next={b.next_ms} finished={b.finished_ms}"
            for b in found
        )
        or "none"
    )


@verb
def calendar(story: Story, args: Args) -> str:
    """`calendar de days=1,2 version=1`"""
    days = _numbers(args, "days")
    labels = [f"day {day}" for day in days]
    put = c.PutCalendar(args.words[0], days, labels, "", "", args.number("version"))
    return story.tell(put)


@verb
def delete_calendar(story: Story, args: Args) -> str:
    return story.tell(c.DeleteCalendar(args.words[0]))


@verb
def calendars(story: Story, args: Args) -> str:
    return (
        "\n".join(
            f"{each.name} version={each.version} days={list(each.days)} users={list(each.users)}"
            for each in calendar_views.calendars(story.state)
        )
        or "none"
    )


@verb
def plan(story: Story, args: Args) -> str:
    """What is known of a schedule."""
    row = views.schedule(story.state, args.words[0])
    if row is None:
        return "gone"
    shown = (
        f"next={row.next_fire_ms} paused={int(row.paused)} note={row.note or '-'} "
        f"last={row.last_fire_ms} last_job={row.last_job_id} runs={row.run_count} "
        f"skipped={row.skipped_count} {row.spec.name}"
    )
    return shown + (f" ended={row.ended}" if row.ended else "")


@verb
def state_of(story: Story, args: Args) -> str:
    """What runs, what waits, how the last runs ended."""
    row = views.schedule(story.state, args.words[0])
    if row is None:
        return "gone"
    lines = [
        f"{row.status} version={row.version} running={row.running} late={row.late} "
        f"buffered={row.buffered} manual={row.manual}"
    ]
    ends = [f"{end.nominal_ms}:{lifecycle.STATUS[end.state]}" for end in row.recent]
    return "\n".join(lines + ([" ".join(ends)] if ends else []))


@verb
def timeline(story: Story, args: Args) -> str:
    row = views.schedule(story.state, args.words[0])
    assert row is not None
    return "\n".join(f"{event.at_ms} {show_event(event)}" for event in row.events) or "nothing"


@verb
def runs(story: Story, args: Args) -> str:
    """`runs s1` or `runs s1 nominal=61000`: live ones, newest first."""
    nominal_ms = args.number("nominal") or None
    found = views.schedule_runs(story.state, args.words[0], nominal_ms)
    return " ".join(f"{view.id}@{view.nominal_ms}" for view in found) or "none"


@verb
def missed(story: Story, args: Args) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted(views.missed(story.state).items())) or "none"
