"""Tasks as an application declares them; a worker in this folder runs them with

    quorate worker tasks:app

and `quorate submit checksum --payload 100000 --wait` gives it something to do.
"""

from __future__ import annotations

import asyncio
import hashlib

import msgspec

from quorate import Context, NonRetryable, Scheduler

app = Scheduler()


class Mail(msgspec.Struct):
    """The payload of `send_mail`; anything that does not fit is refused by the worker."""

    to: str
    subject: str


class Receipt(msgspec.Struct):
    """What `send_mail` returns."""

    mail_id: str
    attempt: int


@app.task(queue="mail", max_retries=5, timeout="30s")
async def send_mail(mail: Mail, ctx: Context) -> Receipt:
    """An async task: a cancellation or timeout arrives where it awaits."""
    if "@" not in mail.to:
        raise NonRetryable(f"{mail.to!r} is no address; trying again cannot help")
    ctx.progress(0.5, "connecting")
    await asyncio.sleep(0.05)
    ctx.log(f"sent to {mail.to}")
    # The fence lets the receiving system refuse a repetition of the same job.
    job_id, attempt = ctx.fence
    return Receipt(f"mail-{job_id}", attempt)


@app.task(timeout="10m")
def checksum(rounds: int, ctx: Context) -> str:
    """A plain function runs in a thread; it looks at `ctx.cancelled` to be stoppable."""
    digest = b"quorate"
    for done in range(rounds):
        if ctx.cancelled:
            break
        digest = hashlib.sha256(digest).digest()
        if done % 10_000 == 0:
            ctx.progress(done / rounds)
    return digest.hex()


@app.cron("*/5 * * * *", id="sweep")
@app.task(max_retries=0)
async def sweep(ctx: Context) -> None:
    """Runs every five minutes on one worker; the schedule is stored when a worker starts."""
    ctx.log("swept")


@app.cron("30 2 * * *", id="report", timezone="Europe/Berlin", overlap="buffer_one", jitter="5m")
@app.task(timeout="1h")
async def report(ctx: Context) -> None:
    """At night in Berlin: on the day without a half past two right after the gap, and once on the
    day that has two of them. `quorate schedules next report` shows when."""
    ctx.log(f"report of job {ctx.job_id}")
