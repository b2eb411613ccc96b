"""Every way a call can fail, as a class, so that callers catch meanings instead of status codes.

Translates problem documents (RFC 9457) once, here. Never raised for a bug in this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class QuorateError(Exception):
    """Base of everything this package raises on purpose."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        if code is not None:
            self.code = code


class Unavailable(QuorateError):
    """No node gave an answer within the retry budget (all down, no quorum, or overloaded)."""

    code = "unavailable"


class OutcomeUnknown(Unavailable):
    """The request may or may not have been applied, and repeating it blindly could do it twice."""

    code = "outcome_unknown"


class ValidationError(QuorateError):
    """The request was refused as malformed; `pointer` is the JSON pointer of the first offender."""

    code = "validation"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int = 422,
        pointer: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.errors = [dict(error) for error in errors]
        if pointer is None and self.errors:
            pointer = self.errors[0].get("pointer")
        self.pointer = pointer
        field = (pointer or "").rpartition("/")[2]
        if field and field not in message:
            message = f"{pointer if field.isdigit() else field}: {message}"
        super().__init__(message, code=code, status=status)


class NotFound(QuorateError):
    """No such job, schedule or worker."""

    code = "not_found"


class Conflict(QuorateError):
    """The thing exists already, or its state does not allow the operation."""

    code = "conflict"


class StaleAttempt(Conflict):
    """The attempt that reported is no longer the one that holds the job."""

    code = "stale_attempt"


class QueueFull(QuorateError):
    """The queue takes no more jobs for now; try again in `retry_after` seconds."""

    code = "queue_full"

    def __init__(self, message: str, *, status: int = 429, retry_after: float = 1.0) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class PayloadTooLarge(QuorateError):
    """The body or one payload exceeds the server's limit."""

    code = "payload_too_large"


class BatchRefused(QuorateError):
    """Some jobs of a batch were refused; the others were accepted and stay so.

    `ids` has one entry per job (None where refused), `errors` maps the index to its error.
    """

    code = "batch_refused"

    def __init__(self, ids: Sequence[str | None], errors: Mapping[int, QuorateError]) -> None:
        first = next(iter(errors.items()), None)
        detail = f"; job {first[0]}: {first[1]}" if first else ""
        super().__init__(f"{len(errors)} of {len(ids)} jobs were refused{detail}")
        self.ids = list(ids)
        self.errors = dict(errors)


class JobFailed(QuorateError):
    """The job ended as failed: its attempts are used up or its error was final."""

    code = "job_failed"

    def __init__(self, message: str, *, job_id: str, error_type: str | None, attempt: int) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.error_type = error_type
        self.attempt = attempt


class JobCancelled(QuorateError):
    """The job was cancelled before it completed."""

    code = "job_cancelled"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was cancelled")
        self.job_id = job_id


class JobSkipped(QuorateError):
    """The job was never run: it expired in the queue or its schedule skipped it."""

    code = "job_skipped"

    def __init__(self, job_id: str, message: str | None) -> None:
        super().__init__(message or f"job {job_id} was skipped")
        self.job_id = job_id


class ResultTimeout(QuorateError, TimeoutError):
    """The job was not finished when the caller's patience ended; the job itself goes on."""

    code = "result_timeout"


class NonRetryable(QuorateError):
    """Raised by a task to say: trying again cannot help."""

    code = "non_retryable"


class PayloadInvalid(NonRetryable):
    """The payload does not fit what the task declares."""

    code = "payload_invalid"


class TaskDefinitionError(QuorateError):
    """A decorated function cannot be a task (signature, annotation or options)."""

    code = "task_definition"


class NotCaughtUp(QuorateError):
    """The node is a member but does not vote yet; it will as soon as it has caught up."""

    code = "not_caught_up"


class WorkerRefused(QuorateError):
    """The node refused the worker's registration for good."""

    code = "worker_refused"


_BY_CODE: dict[str, type[QuorateError]] = {
    "unknown_job": NotFound,
    "unknown_schedule": NotFound,
    "unknown_worker": NotFound,
    "unknown_member": NotFound,
    "conflict": Conflict,  # as one entry of a batch, which has no status of its own
    "stale_attempt": StaleAttempt,
    "payload_too_large": PayloadTooLarge,
    "no_quorum": Unavailable,
    "not_leader": Unavailable,
    "overloaded": Unavailable,
    "outcome_unknown": OutcomeUnknown,
}
_BY_STATUS: dict[int, type[QuorateError]] = {
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: PayloadTooLarge,
    503: Unavailable,
}


def error_from_problem(
    status: int, problem: Mapping[str, Any], retry_after: float | None = None
) -> QuorateError:
    """The exception for one problem document (or for one entry of a batch's `errors`)."""
    code = str(problem.get("code") or f"http_{status}")
    message = str(problem.get("detail") or problem.get("title") or code)
    if status == 429 or code == "queue_full":
        return QueueFull(message, status=status, retry_after=retry_after or 1.0)
    if code in ("validation", "invalid_json", "idempotency_mismatch") or status in (400, 422):
        errors = problem.get("errors")
        return ValidationError(
            message,
            code=code,
            status=status,
            pointer=problem.get("pointer"),
            errors=errors if isinstance(errors, list) else (),
        )
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, QuorateError)
    return kind(message, code=code, status=status)
