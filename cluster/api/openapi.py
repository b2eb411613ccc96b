"""The OpenAPI 3.1 document, derived from the route table; nothing in it is written by hand.

msgspec writes JSON Schema 2020-12, which is what OpenAPI 3.1 takes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from cluster.api.errors import KINDS, PROBLEM_TYPE, Problem
from cluster.api.routing import HISTORY_HEADER, HISTORY_TEXT, Endpoint

REF = "#/components/schemas/{name}"
PATH_PARAMETER = re.compile(r"{(\w+)}")
DESCRIPTION = (
    "Distributed job scheduler. Any node answers any request. Times are RFC 3339 in UTC, durations "
    "seconds, ids opaque text. Refusals are problem documents (RFC 9457) with a stable `code`."
)


def build_document(table: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The document for all rows."""
    rows = list(table)
    types: list[Any] = [Problem]
    for row in rows:
        types += [t for t in (row.body, row.answer, row.query) if t is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    by_type = {repr(t): schema for t, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, by_type, components)
    used = {row.query.__name__ for row in rows} | {"Query"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Quorate", "version": version, "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": {k: v for k, v in components.items() if k not in used}},
    }


def _operation(
    row: Endpoint, by_type: dict[str, Any], components: dict[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": row.handler.__name__,
        "summary": row.summary,
        "tags": [row.tag],
        "parameters": _parameters(row, components),
        "responses": _responses(row, by_type),
    }
    notes = []
    if row.local:
        notes.append("Answered by the asked node itself.")
    if row.handler.__doc__:
        notes.append(row.handler.__doc__)
    if notes:
        operation["description"] = "\n\n".join(notes)
    if row.body is not None:
        schema = by_type[repr(row.body)]
        operation["requestBody"] = {
            "required": not row.body_optional,
            "content": {media: {"schema": schema} for media in row.media},
        }
    return operation


def _parameters(row: Endpoint, components: dict[str, Any]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PATH_PARAMETER.findall(row.path)
    ]
    for name, schema in components[row.query.__name__]["properties"].items():
        parameters.append({"name": name, "in": "query", "schema": schema})
    for header in row.headers:
        parameters.append(
            {
                "name": header.name,
                "in": "header",
                "description": header.description,
                "schema": {"type": "string"},
            }
        )
    return parameters


def _responses(row: Endpoint, by_type: dict[str, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": row.summary}
    if row.answer is not None:
        success["content"] = {"application/json": {"schema": by_type[repr(row.answer)]}}
    if row.past:
        header = {"description": HISTORY_TEXT, "schema": {"type": "string"}}
        success["headers"] = {HISTORY_HEADER: header}
    problem = {PROBLEM_TYPE: {"schema": by_type[repr(Problem)]}}
    responses: dict[str, Any] = {str(row.status): success}
    by_status: dict[int, list[str]] = {}
    for code in row.problems:
        by_status.setdefault(KINDS[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {"description": " or ".join(codes), "content": problem}
    responses["default"] = {"description": "A problem", "content": problem}
    return responses
