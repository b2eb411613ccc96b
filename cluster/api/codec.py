"""Bodies and queries to typed values, strictly, and their errors to JSON pointers.

JSON is decoded once, in C, into the type of the route; payloads are cut out raw and never parsed.
MessagePack becomes JSON text first, so that everything behind knows one form of a payload.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from cluster.api.errors import ProblemError

T = TypeVar("T")

MSGPACK_TYPES = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")

_AT = re.compile(r"^(?P<text>.*?)(?: - at `(?:key` in `)?(?P<path>\$[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_NAMED = re.compile(r"(?:unknown field|missing required field) `(?P<field>.*)`$", re.DOTALL)

encode_json = msgspec.json.Encoder().encode
_decode_msgpack = msgspec.msgpack.Decoder().decode


def media_type(content_type: str | None) -> str:
    """The bare media type of a Content-Type header, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()


def escape(step: str) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return step.replace("~", "~0").replace("/", "~1")


def pointer_of(error: msgspec.ValidationError, kind: Any = None) -> tuple[str, str]:
    """`(pointer, sentence)` of a validation error; of a known kind it says what would be right.

    msgspec puts the place at the end (``- at `$.a[0].b` ``) but for unknown and missing fields
    names only their parent: those get their own name appended.
    """
    match = _AT.match(str(error))
    assert match is not None  # the pattern matches any text
    text, path = match["text"], match["path"] or "$"
    steps = [first or second for first, second in _STEP.findall(path)]
    named = _NAMED.search(text)
    if named is not None:
        steps.append(named["field"])
        text = text.replace("Object contains unknown field", "there is no field")
        text = text.replace("Object missing required field", "this field is required:")
    elif kind is not None and text.startswith("Invalid enum value"):
        text += f": write one of {_choices(kind, tuple(steps))}"
    return "".join("/" + escape(step) for step in steps), text


@functools.lru_cache(maxsize=256)  # a batch may repeat one mistake ten thousand times
def _choices(kind: Any, steps: tuple[str, ...]) -> str:
    """What may stand at a place, read from the schema that the OpenAPI document shows."""
    roots, parts = msgspec.json.schema_components((kind,), ref_template="{name}")
    places: list[dict[str, Any]] = list(roots)
    texts: list[str] = []
    for step in (*steps, None):
        found: list[dict[str, Any]] = []
        for place in places:  # grows while it is walked
            if "$ref" in place:
                places.append(parts[place["$ref"]])
            places.extend(place.get("anyOf", ()))
            if step is None:
                texts.extend(text for text in place.get("enum", ()) if text)
                if "maximum" in place:
                    texts.append(f"{place['minimum']} to {place['maximum']}")
            elif step in place.get("properties", {}):
                found.append(place["properties"][step])
            elif isinstance(place.get("items"), dict):
                found.append(place["items"])
        places = found
    return ", ".join(texts)


def invalid(error: msgspec.ValidationError, kind: Any = None) -> ProblemError:
    pointer, text = pointer_of(error, kind)
    return ProblemError("validation", text, pointer=pointer)


def check_text(raw: bytes) -> None:
    """JSON is UTF-8; raw payloads are skipped by the decoder, so this is not checked elsewhere."""
    if raw.isascii():
        return
    try:
        str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError("invalid_json", f"the body is not UTF-8: {error}") from None


def msgpack_to_json(raw: bytes) -> bytes:
    """The same document as JSON text; bytes become base64 text, NaN null, number keys text."""
    try:
        return encode_json(_decode_msgpack(raw))
    except msgspec.DecodeError as error:
        raise ProblemError("invalid_json", f"the body is not MessagePack: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ProblemError(
            "validation", f"the body has no JSON form: {error}", pointer=""
        ) from None


class BodyDecoder(Generic[T]):
    """Decodes request bodies into one type. Raises ProblemError: invalid_json or validation."""

    def __init__(self, kind: type[T], optional: bool) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode
        self._optional = optional

    def decode(self, raw: bytes, content_type: str | None) -> T:
        if not raw:
            if not self._optional:
                raise ProblemError("invalid_json", "the body is empty")
            raw = b"{}"
        elif content_type is not None and media_type(content_type) in MSGPACK_TYPES:
            raw = msgpack_to_json(raw)
        else:
            check_text(raw)
        return self.decode_json(raw)

    def decode_json(self, raw: bytes) -> T:
        try:
            return self._decode(raw)
        except msgspec.ValidationError as error:
            raise invalid(error, self._kind) from None
        except msgspec.DecodeError as error:
            raise ProblemError("invalid_json", str(error)) from None
        except RecursionError:
            raise ProblemError("validation", "the body is nested too deeply", pointer="") from None


def decode_query(query: Mapping[str, str], kind: type[T]) -> T:
    """Query parameters as a struct; texts are converted to what the field says."""
    try:
        return msgspec.convert(dict(query), kind, strict=False)
    except msgspec.ValidationError as error:
        pointer, text = pointer_of(error, kind)
        raise ProblemError("validation", f"query parameter: {text}", pointer=pointer) from None


def decode_raw(raw: Any) -> bytes:
    """The JSON text that a `msgspec.Raw` field holds."""
    return bytes(raw)
