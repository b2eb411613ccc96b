"""The schedules of the fake cluster: kept as they were sent, with answers of the real shape."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from fake_cluster import FakeCluster, problem

NIGHT = {
    "utc": "2027-03-28T01:00:00.000Z",
    "local": "2027-03-28T03:00:00+02:00",
    "nominal_at": "2027-03-28T01:00:00.000Z",
    "runs": True,
    "reason": None,
    "note": "02:30 does not exist on 2027-03-28, runs at 03:00",
    "notes": [{"code": "gap", "text": "02:30 does not exist on 2027-03-28, runs at 03:00"}],
}
HOLIDAY = {
    **NIGHT,
    "utc": "2026-12-25T01:30:00.000Z",
    "nominal_at": "2026-12-25T01:30:00.000Z",
    "runs": False,
    "reason": "holiday",
    "note": "Christmas",
    "notes": [],
}
EVENT = {
    "at": "2026-11-18T11:06:40.000Z",
    "kind": "skipped",
    "reason": "overlap",
    "nominal_at": "2026-11-18T11:06:00.000Z",
    "last_nominal_at": "2026-11-18T11:08:00.000Z",
    "count": 3,
    "job_id": None,
    "text": "left out: overlap",
}


def said(body: dict[str, Any]) -> dict[str, Any]:
    """A definition as it is shown again."""
    if body.get("windows") == "off_peak":
        body["windows"] = [{"from": "22:00", "to": "06:00"}]
    return body


class FakeSchedules:
    """Routes under /v1/schedules; `cluster.schedules` is the store."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._stored = cluster.schedules

    def routes(self) -> list[web.RouteDef]:
        one = "/v1/schedules/{id}"
        return [
            web.get("/v1/schedules", self._list),
            web.post("/v1/schedules", self._create),
            web.post("/v1/schedules/preview", self._preview),
            web.get(one, self._get),
            web.put(one, self._put),
            web.patch(one, self._change),
            web.delete(one, self._delete),
            web.get(one + "/{verb:next|runs|timeline|backfills}", self._read),
            web.post(one + "/{verb:pause|resume|trigger|backfill|diff}", self._act),
            web.delete(one + "/backfills/{number}", self._stop_backfill),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        ids = sorted(i for i in self._stored if i > request.query.get("cursor", ""))
        limit = min(int(request.query.get("limit", 50)), 2)  # small pages
        more = ids[limit - 1] if len(ids) > limit else None
        items = [self._stored[i] for i in ids[:limit]]
        return web.json_response({"items": items, "next_cursor": more})

    async def _create(self, request: web.Request) -> web.Response:
        body = said(await request.json())
        schedule_id = body.pop("id", None) or f"s{len(self._stored) + 1}"
        if schedule_id in self._stored:
            return problem(409, "conflict", "the id is taken")
        return web.json_response(self._store(schedule_id, body), status=201)

    def _store(self, schedule_id: str, body: dict[str, Any]) -> dict[str, Any]:
        old = self._stored.get(schedule_id, {})
        view = {
            "schedule_id": schedule_id,
            "paused": old.get("paused", False),
            "run_count": old.get("run_count", 0),
            "version": old.get("version", 0) + 1,
            "explanation": "now and then",
            "next_run": "2026-11-18T12:00:00.000Z",
            **body,
        }
        self._stored[schedule_id] = view
        return view

    async def _preview(self, request: web.Request) -> web.Response:
        body = await request.json()
        found = [HOLIDAY, NIGHT] if body.get("omitted") else [NIGHT]
        return web.json_response({"explanation": "at night", "next": found, "complete": False})

    async def _get(self, request: web.Request) -> web.Response:
        view = self._stored.get(request.match_info["id"])
        return problem(404, "unknown_schedule") if view is None else web.json_response(view)

    def _overtaken(self, request: web.Request, old: dict[str, Any]) -> bool:
        wanted = request.headers.get("If-Match")
        return wanted is not None and wanted != f'"{old.get("version", 0)}"'

    async def _put(self, request: web.Request) -> web.Response:
        schedule_id, body = request.match_info["id"], said(await request.json())
        old = self._stored.get(schedule_id, {})
        if self._overtaken(request, old):
            return problem(412, "version_mismatch")
        if old and all(old.get(name) == value for name, value in body.items()):
            return web.json_response(
                {**old, "outcome": "unchanged", "change_explanation": "nothing changed"}
            )
        view = self._store(schedule_id, body)
        told = {"outcome": "changed" if old else "created", "change_explanation": "it is new"}
        return web.json_response({**view, **told}, status=200 if old else 201)

    async def _change(self, request: web.Request) -> web.Response:
        schedule_id, body = request.match_info["id"], said(await request.json())
        old = self._stored[schedule_id]
        if self._overtaken(request, old):
            return problem(412, "version_mismatch")
        kept = {k: v for k, v in {**old, **body}.items() if v is not None and k != "version"}
        view = self._store(schedule_id, kept)
        changes = [{"field": k, "before": old.get(k), "after": v} for k, v in body.items()]
        return web.json_response({**view, "outcome": "changed", "changes": changes})

    async def _delete(self, request: web.Request) -> web.Response:
        del self._stored[request.match_info["id"]]
        return web.Response(status=204)

    async def _read(self, request: web.Request) -> web.Response:
        if request.match_info["id"] not in self._stored:
            return problem(404, "unknown_schedule")
        omitted = request.query.get("omitted") == "true"
        nominal = request.query.get("nominal", "2026-11-18T11:06:00.000Z")
        job = {"job_id": "7", "name": "t", "status": "completed", "nominal_at": nominal}
        backfill = {"backfill_id": 3, "status": "running", "total": 9, "launched": 2}
        answers: dict[str, Any] = {
            "next": {"explanation": "at night", "next": [HOLIDAY, NIGHT] if omitted else [NIGHT]},
            "runs": {"items": [job], "next_cursor": None},
            "timeline": {"events": [EVENT], "next_cursor": None},
            "backfills": {"items": [backfill]},
        }
        return web.json_response(answers[request.match_info["verb"]])

    async def _act(self, request: web.Request) -> web.Response:
        verb, text = request.match_info["verb"], await request.text()
        view = self._stored[request.match_info["id"]]
        body = json.loads(text or "{}")
        if verb == "pause":
            view |= {"paused": True, "note": body.get("note")}
            return web.json_response(view)
        if verb == "resume":
            view |= {"paused": False}
            skipped = {"left_out": 2, "left_out_first": NIGHT["utc"], "left_out_last": NIGHT["utc"]}
            return web.json_response({**view, **skipped})
        if verb == "trigger":
            started = body.get("overlap") != "skip"
            outcome = {"job_id": "8", "outcome": "started"} if started else {"job_id": None}
            return web.json_response({"outcome": "skipped", **outcome}, status=201)
        if verb == "backfill":
            dry = body.get("dry_run", False)
            times = {"count": 1, "first": NIGHT["utc"], "last": NIGHT["utc"]}
            number = {"backfill_id": None if dry else 3, "occurrences": [NIGHT["utc"]]}
            return web.json_response({**times, **number}, status=200 if dry else 201)
        changes = {"schedule_id": view["schedule_id"], "added": [NIGHT], "removed": [HOLIDAY]}
        told = {"explanation_before": "before", "explanation_after": "after"}
        return web.json_response({**changes, **told})

    async def _stop_backfill(self, request: web.Request) -> web.Response:
        if request.match_info["number"] != "3":
            return problem(404, "unknown_backfill")
        return web.Response(status=204)
