"""A function as a task: how it is called, submitted and bound to a payload.

The function itself stays untouched, so that calling the task is an ordinary unit test.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Unpack

import msgspec

from . import payloads
from .context import Context
from .errors import PayloadInvalid, QuorateError, TaskDefinitionError
from .handle import Handle
from .requests import JobRequest, SubmitOptions, job_request
from .sync import SyncHandle

if TYPE_CHECKING:
    from .app import Scheduler

R = TypeVar("R")
Kind = Literal["async", "thread"]


class Signature(msgspec.Struct, frozen=True):
    """How to call the function: where the context goes, and how JSON text becomes arguments."""

    context: str | None
    bind: Callable[[bytes], dict[str, Any]]
    returns: Any


class Task(Generic[R]):
    """A task of an application. R is what the function returns (once awaited)."""

    def __init__(
        self,
        app: Scheduler,
        function: Callable[..., Any],
        name: str,
        *,
        kind: Kind,
        options: dict[str, Any],
        non_retryable: tuple[type[BaseException], ...],
    ) -> None:
        self.app = app
        self.function = function
        self.name = name
        self.kind = kind
        self.options = options
        self.non_retryable = non_retryable
        self._signature: Signature | None = None
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<Task {self.name} ({self.kind})>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the function here and now; a missing context is filled in."""
        name = self.signature().context
        if name is not None and name not in kwargs:
            bound = inspect.signature(self.function).bind_partial(*args, **kwargs)
            if name not in bound.arguments:
                kwargs[name] = Context(0, 1, self.name)
        return self.function(*args, **kwargs)

    def signature(self) -> Signature:
        """Worked out at first use, when forward references can be resolved."""
        if self._signature is None:
            self._signature = _read_signature(self.function, self.name)
        return self._signature

    def job(self, payload: Any = None, **options: Unpack[SubmitOptions]) -> JobRequest:
        """A request that `Scheduler.submit_many` takes."""
        return job_request(self.name, payload, {**self.options, **options})

    async def submit(self, payload: Any = None, **options: Unpack[SubmitOptions]) -> Handle[R]:
        """Submits one job; concurrent calls share requests."""
        handle = await self.app.client.submit_request(self.job(payload, **options))
        return Handle(self.app.client, handle.id, self._convert())

    def submit_sync(self, payload: Any = None, **options: Unpack[SubmitOptions]) -> SyncHandle[R]:
        """`submit` for code without an event loop."""
        client, thread = self.app.sync_parts()
        handle = thread.run(client.submit_request(self.job(payload, **options)))
        return SyncHandle(Handle(client, handle.id, self._convert()), thread)

    async def submit_many(
        self, payload_list: Iterable[Any], **options: Unpack[SubmitOptions]
    ) -> list[Handle[R]]:
        """One job per payload in one round trip."""
        requests = [self.job(payload, **options) for payload in payload_list]
        handles = await self.app.client.submit_many(requests)
        convert = self._convert()
        return [Handle(self.app.client, handle.id, convert) for handle in handles]

    def _convert(self) -> Callable[[Any], R]:
        returns = self.signature().returns

        def convert(output: Any) -> R:
            value: R
            try:
                if payloads.is_pydantic_model(returns):
                    value = returns.model_validate(output)
                else:
                    value = msgspec.convert(output, returns)
            except ValueError as error:  # both libraries' errors are ValueErrors
                raise QuorateError(f"the output of {self.name} does not fit: {error}") from error
            return value

        return convert


def _read_signature(function: Callable[..., Any], name: str) -> Signature:
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        raise TaskDefinitionError(f"task {name}: cannot resolve its annotations: {error}") from None
    parameters = list(inspect.signature(function).parameters.values())
    context = next((p.name for p in parameters if _is_context(p.name, hints)), None)
    takes = [p for p in parameters if p.name != context]
    for parameter in takes:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TaskDefinitionError(
                f"task {name}: parameter {parameter} cannot be filled from a payload"
            )
    returns = hints.get("return", Any)
    try:
        msgspec.json.Decoder(returns)
    except TypeError:
        if not payloads.is_pydantic_model(returns):
            returns = Any
    return Signature(context, _binder(takes, hints, f"task {name}"), returns)


def _is_context(name: str, hints: dict[str, Any]) -> bool:
    annotation = hints.get(name)
    if isinstance(annotation, type):
        return issubclass(annotation, Context)
    return annotation is None and name == "ctx"


def _binder(
    takes: Sequence[inspect.Parameter], hints: dict[str, Any], owner: str
) -> Callable[[bytes], dict[str, Any]]:
    """No parameter: the payload is ignored if absent; one: it is the payload; more: its fields."""
    if not takes:
        return _bind_nothing
    if len(takes) == 1:
        return _bind_one(takes[0], hints, owner)
    fields: list[Any] = []
    for parameter in takes:
        field = (parameter.name, hints.get(parameter.name, Any))
        has_default = parameter.default is not parameter.empty
        fields.append((*field, msgspec.UNSET) if has_default else field)
    fields = [
        (f[0], f[1] | msgspec.UnsetType, f[2]) if len(f) == 3 and f[1] is not Any else f
        for f in fields
    ]
    shape = msgspec.defstruct("Payload", fields, kw_only=True, forbid_unknown_fields=True)
    decode = payloads.decoder_for(shape, owner)
    names = [parameter.name for parameter in takes]

    def bind_fields(raw: bytes) -> dict[str, Any]:
        values = decode(raw)
        pairs = ((name, getattr(values, name)) for name in names)
        return {name: value for name, value in pairs if value is not msgspec.UNSET}

    return bind_fields


def _bind_nothing(raw: bytes) -> dict[str, Any]:
    if raw not in (b"", b"null", b"{}"):
        raise PayloadInvalid("this task takes no payload, but one was given")
    return {}


def _bind_one(
    parameter: inspect.Parameter, hints: dict[str, Any], owner: str
) -> Callable[[bytes], dict[str, Any]]:
    decode = payloads.decoder_for(hints.get(parameter.name, Any), owner)
    name = parameter.name
    optional = parameter.default is not parameter.empty

    def bind_one(raw: bytes) -> dict[str, Any]:
        if optional and raw in (b"", b"null"):
            return {}
        return {name: decode(raw or b"null")}

    return bind_one
