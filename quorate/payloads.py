"""Turns payloads and results into JSON text and back, by the annotations of the task.

JSON only, never pickle: a payload must outlive the code that wrote it. pydantic is used only when
an annotation is one of its models, so it never has to be installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from .errors import PayloadInvalid, TaskDefinitionError

Decoder = Callable[[bytes], Any]


def _encode_foreign(value: Any) -> Any:
    """Values msgspec does not know: pydantic models; anything else is the caller's mistake."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


_encoder = msgspec.json.Encoder(enc_hook=_encode_foreign)


def encode(value: Any) -> bytes:
    """JSON text of a payload or result. PayloadInvalid when it has no JSON form."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadInvalid(f"the value has no JSON form: {error}") from error


def is_pydantic_model(annotation: Any) -> bool:
    """True for a BaseModel subclass; looks only where pydantic is loaded already."""
    pydantic = sys.modules.get("pydantic")
    return (
        pydantic is not None
        and isinstance(annotation, type)
        and issubclass(annotation, pydantic.BaseModel)
    )


def decoder_for(annotation: Any, owner: str) -> Decoder:
    """A function from JSON text to a value of `annotation`; it raises PayloadInvalid.

    TaskDefinitionError when the annotation cannot be read from JSON at all.
    """
    if is_pydantic_model(annotation):
        return _pydantic_decoder(annotation)
    try:
        decode = msgspec.json.Decoder(Any if annotation is None else annotation).decode
    except TypeError as error:
        raise TaskDefinitionError(
            f"{owner}: {annotation!r} cannot be read from JSON: {error}"
        ) from error

    def read(raw: bytes) -> Any:
        try:
            return decode(raw)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise PayloadInvalid(f"the payload does not fit: {error}") from error

    return read


def _pydantic_decoder(annotation: Any) -> Decoder:
    import pydantic

    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)

    def read(raw: bytes) -> Any:
        try:
            return adapter.validate_json(raw)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = "".join(f".{part}" for part in first["loc"])
            raise PayloadInvalid(f"the payload does not fit: {first['msg']} at ${place}") from error

    return read
