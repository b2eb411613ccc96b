"""What stands behind the lanes of an ingest process: judges, packs, asks the node, renders.

It says yes as the node would, from the same functions; whatever would be refused, or needs the
node's state before it can be judged, is passed on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cluster.actors.services import NotLeader, OutcomeUnknown
from cluster.actors.submissions import Gathering
from cluster.api import batch
from cluster.api.codec import encode_json
from cluster.api.errors import outcome_unknown
from cluster.api.intake import decode_job, group_alone, group_jobs
from cluster.api.plain import Head, signature
from cluster.api.plain import answer as plain
from cluster.api.render import job_answer
from cluster.api.submission import fingerprint_of, ids_of
from cluster.clock import SystemClock
from cluster.ingest.messages import Accepted, Declined, Message, Submitting, Unknown
from cluster.machine.commands import SubmitJobs
from cluster.machine.results import Rejected, Submitted
from cluster.machine.views import JobView
from cluster.settings import Settings

if TYPE_CHECKING:
    from cluster.actors.proposer import Answered, LateCommands

LONE, BATCH = "/v1/jobs", "/v1/jobs/batch"
LATE_IN_FLIGHT_MAX = 2  # as many as the node has entries in flight
JSON = {"Content-Type": "application/json"}

Reply = Callable[[bytes | None], None]
Answer = Accepted | Declined | Unknown


class Counter:
    """Of one ingest process."""

    def __init__(
        self,
        settings: Settings,
        send: Callable[[Message], None],
        give: Callable[[asyncio.Transport, bytes], None],
    ) -> None:
        self.body_bytes_max = settings.request_max_bytes
        self.pass_on = give
        self.ahead_ms = 0
        self._settings = settings
        self._clock = SystemClock()
        self._send = send
        self._gathering = Gathering(self)
        self._late: deque[LateCommands] = deque()
        self._late_in_flight = 0
        self._asked: dict[int, Callable[[Answer], None]] = {}
        self._number = 0
        self._signature = b""
        self._views: dict[int, JobView] = {}

    @property
    def is_idle(self) -> bool:
        return not self._asked and not self._late

    # -- what a lane asks ------------------------------------------------------------------------

    def take(self, head: Head, body: bytes, reply: Reply) -> bool:
        try:
            if head.path == BATCH:
                return self._take_batch(head, body, reply)
            return not head.key and self._take_lone(body, reply)
        except Exception:
            return False  # the node finds it, too, and says what it is

    def _now_ms(self) -> int:
        return self._clock.now_ms() + self.ahead_ms

    def _take_lone(self, body: bytes, reply: Reply) -> bool:
        request = decode_job(body, None)
        if request.schedule is not None or request.unique_key is not None:
            return False
        group = group_alone(request, self._now_ms(), self._settings)
        future = self._gathering.submit(group)
        future.add_done_callback(partial(self._lone_done, group.payloads[0], reply))
        return True

    def _take_batch(self, head: Head, body: bytes, reply: Reply) -> bool:
        items, _ = batch.decode_batch(body, None)
        if len(items) > batch.BATCH_JOBS_MAX:
            return False
        grouped = group_jobs(items, self._now_ms(), self._settings)
        if grouped.errors or not grouped.groups:
            return False
        if any(group.unique_keys is not None for group in grouped.groups):
            return False
        command = SubmitJobs(grouped.groups)
        if head.key:
            fingerprint = fingerprint_of(f"POST {BATCH}", body)
            ttl_ms = round(self._settings.idempotency_ttl_seconds * 1000)
            command = SubmitJobs(grouped.groups, head.key, fingerprint, ttl_ms)
        done = partial(self._batch_done, reply, len(items), head.minimal)
        self._ask(command, done, is_lone=False)
        return True

    # -- answers ---------------------------------------------------------------------------------

    def _lone_done(
        self, payload: bytes, reply: Reply, future: asyncio.Future[Submitted | Rejected]
    ) -> None:
        error = future.exception()
        if error is not None:
            reply(self._lost(LONE) if isinstance(error, OutcomeUnknown) else None)
            return
        result = future.result()
        assert isinstance(result, Submitted)  # a refusal comes as Declined
        view = self._views.pop(result.first)
        view.payload = payload
        headers = {**JSON, "Location": f"{LONE}/{result.first}"}
        reply(plain(201, headers, self._signature, encode_json(job_answer(view))))

    def _batch_done(self, reply: Reply, count: int, minimal: bool, answer: Answer) -> None:
        if isinstance(answer, Unknown):
            reply(self._lost(BATCH))
        elif isinstance(answer, Declined) or answer.result.ids is not None:
            reply(None)
        elif len(ids_of(answer.result)) != count:
            reply(None)  # a repetition of what was accepted in part
        else:
            headers, body = batch.accepted(answer.result, minimal)
            reply(plain(201, {**JSON, **headers}, self._signature, body))

    def _lost(self, path: str) -> bytes:
        status, headers, body = outcome_unknown().parts(path)
        return plain(status, headers, self._signature, body)

    # -- the node --------------------------------------------------------------------------------

    def propose_late(self, late: LateCommands) -> None:
        """Lone jobs wait for each other while others are under way, as they do in the node."""
        self._late.append(late)
        asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        while self._late and self._late_in_flight < LATE_IN_FLIGHT_MAX:
            ((command, answer),) = self._late.popleft().parts()
            assert isinstance(command, SubmitJobs) and answer is not None
            self._late_in_flight += 1
            self._ask(command, partial(self._late_done, answer), is_lone=True)

    def _late_done(self, waiting: Answered, answer: Answer) -> None:
        self._late_in_flight -= 1
        if isinstance(answer, Accepted):
            for view in answer.views:
                self._views[view.id] = view
            waiting.set_result(answer.result)
        else:
            is_lost = isinstance(answer, Unknown)
            waiting.set_exception(OutcomeUnknown() if is_lost else NotLeader(None))
        self._pump()

    def _ask(self, command: SubmitJobs, done: Callable[[Answer], None], *, is_lone: bool) -> None:
        self._number += 1
        self._asked[self._number] = done
        self._send(Submitting(self._number, command, is_lone))

    def answered(self, answer: Answer) -> None:
        """The node has answered."""
        if not isinstance(answer, Declined):
            self._signature = signature(answer.index, answer.leader)
        self._asked.pop(answer.number)(answer)
