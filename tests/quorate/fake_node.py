"""One node of the fake cluster: the HTTP and WebSocket edge over its shared state."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from aiohttp import WSMsgType, web
from fake_cluster import FakeCluster, Link, pack, problem, unpack
from fake_schedules import FakeSchedules


class FakeNode:
    """One node; any node answers HTTP, only the leader takes streams."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.index = len(cluster.nodes)
        cluster.nodes.append(self)
        self.url = ""
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(middlewares=[self._faults])
        app.add_routes(
            [
                web.post("/v1/jobs/batch", self._batch),
                web.post("/v1/jobs/status", self._status),
                web.get("/v1/jobs", self._list),
                web.get("/v1/jobs/{id}", self._get),
                web.get("/v1/jobs/{id}/logs", self._logs),
                web.post("/v1/jobs/{id}/cancel", self._cancel),
                web.put("/v1/jobs/{id}/{verb}", self._put),
                web.get("/v1/cluster", self._cluster),
                web.get("/v1/cluster/members", self._members),
                web.post("/v1/cluster/upgrade", self._upgrade),
                web.post("/v1/cluster/members", self._member_add),
                web.delete("/v1/cluster/members/{id}", self._member_remove),
                web.get("/v1/stats", self._stats),
                web.get("/v1/workers", self._workers),
                web.get("/v1/workers/stream", self._stream),
                web.post("/v1/workers", self._register),
                web.post("/v1/workers/{id}/poll", self._poll),
                web.post("/v1/workers/{id}/heartbeat", self._beat),
                web.delete("/v1/workers/{id}", self._leave),
                *FakeSchedules(self.cluster).routes(),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _faults(self, request: web.Request, handler: Any) -> web.StreamResponse:
        fake = self.cluster
        if request.path == "/v1/workers/stream":
            streamed: web.StreamResponse = await handler(request)
            return streamed
        body = await request.read()
        fake.requests.append((request.method, request.path, body))
        fake.levels.append((request.path, request.query.get("consistency")))
        await fake.notify()
        if fake.refuse and request.method != "GET":
            return problem(*fake.refuse.pop(0))
        key = request.headers.get("Idempotency-Key")
        if key is not None and key in fake.answers:
            return web.json_response(fake.answers[key], status=201)
        response: web.StreamResponse = await handler(request)
        if key is not None and isinstance(response, web.Response) and response.status < 300:
            fake.answers[key] = json.loads(response.text or "null")
        if fake.lose_answers and request.method != "GET":
            fake.lose_answers -= 1
            assert request.transport is not None
            request.transport.close()
        return response

    # -- jobs ----------------------------------------------------------------------------------

    async def _batch(self, request: web.Request) -> web.Response:
        ids: list[str | None] = []
        errors = []
        for index, job in enumerate(await request.json()):
            if job["name"] == "refused":
                ids.append(None)
                errors.append(
                    {"index": index, "code": "validation", "detail": "no", "pointer": "/name"}
                )
                continue
            ids.append(str(self.cluster.add(**job)))
        await self.cluster.dispatch()
        return web.json_response({"ids": ids, "errors": errors}, status=207 if errors else 201)

    def _job(self, request: web.Request) -> dict[str, Any] | None:
        return self.cluster.jobs.get(int(request.match_info["id"]))

    async def _get(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job is None:
            return problem(404, "unknown_job", "there is no such job")
        wait = float(request.query.get("wait", 0))
        if wait:
            with contextlib.suppress(TimeoutError):
                await self.cluster.until(lambda: job["status"] not in ("pending", "running"), wait)
        return web.json_response(job)

    async def _status(self, request: web.Request) -> web.Response:
        jobs = [self.cluster.jobs.get(int(job_id)) for job_id in (await request.json())["ids"]]
        items = [{"id": job["job_id"], "ok": True, "status": job["status"]} for job in jobs if job]
        return web.json_response({"items": items})

    async def _list(self, request: web.Request) -> web.Response:
        status = request.query.get("status")
        items = [j for j in self.cluster.jobs.values() if status in (None, j["status"])]
        limit = int(request.query.get("limit", 100))
        start = int(request.query.get("cursor", 0))
        more = str(start + limit) if start + limit < len(items) else None
        return web.json_response({"items": items[start : start + limit], "next_cursor": more})

    async def _logs(self, request: web.Request) -> web.Response:
        job = self._job(request)
        assert job is not None
        return web.json_response({"items": [{"attempt": 1, "text": job.get("log") or ""}]})

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job is None:
            return problem(404, "unknown_job", "there is no such job")
        if job["status"] not in ("pending", "running"):
            return problem(409, "not_cancellable", "the job is finished")
        await self.cluster.cancel(int(job["job_id"]))
        return web.json_response(job)

    async def _put(self, request: web.Request) -> web.Response:
        body = await request.json()
        verb, job_id = request.match_info["verb"], int(request.match_info["id"])
        job = self.cluster.jobs[job_id]
        if verb == "progress":
            job["progress"] = {"fraction": body["fraction"], "message": body["message"]}
            ok = True
        elif verb == "complete":
            item = [job_id, body["attempt"], json.dumps(body.get("output"))]
            ok = self.cluster.finish("done", item)
        elif verb == "release":
            ok = self.cluster.finish("released", [job_id, body["attempt"]])
        else:
            item = [job_id, body["attempt"], body["error_type"], body["error"], body["retryable"]]
            ok = self.cluster.finish("failed", item)
        await self.cluster.dispatch()
        return web.json_response(job) if ok else problem(409, "stale_attempt")

    # -- the whole -----------------------------------------------------------------------------

    async def _cluster(self, request: web.Request) -> web.Response:
        leader = self.cluster.nodes[self.cluster.leader]
        return web.json_response(
            {
                "term": 3,
                "leader": {"id": f"n{leader.index}", "http": leader.url},
                "members": [{"id": f"n{n.index}", "http": n.url} for n in self.cluster.nodes],
            }
        )

    async def _upgrade(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        if wanted["to"] == 9:
            return problem(409, "upgrade_refused", "b knows levels up to 3: upgrade it")
        level = wanted["to"] or 3
        return web.json_response({"before": 2, "level": level, "dry_run": wanted["dry_run"]})

    async def _members(self, request: web.Request) -> web.Response:
        fake = self.cluster
        fake.catching_up -= 1
        if fake.catching_up < 0:
            done = {i: "voter" for i, standing in fake.members.items() if standing == "joining"}
            fake.members |= done
        rows = [{"id": i, "standing": standing} for i, standing in fake.members.items()]
        return web.json_response({"epoch": 0, "members": rows})

    async def _member_add(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["id"] in self.cluster.members:
            return problem(409, "already_member")
        self.cluster.members[body["id"]] = "learner" if body["learner"] else "joining"
        return web.json_response({"epoch": 1, "members": []}, status=201)

    async def _member_remove(self, request: web.Request) -> web.Response:
        if self.cluster.members.pop(request.match_info["id"], None) is None:
            return problem(404, "unknown_member")
        return web.json_response({"epoch": 2, "members": []})

    async def _stats(self, request: web.Request) -> web.Response:
        by_status: dict[str, int] = {}
        for job in self.cluster.jobs.values():
            by_status[job["status"]] = by_status.get(job["status"], 0) + 1
        return web.json_response({"queue_length": 0, "jobs_by_status": by_status, "queues": {}})

    async def _workers(self, request: web.Request) -> web.Response:
        items = [
            {"worker_id": link.worker_id, "name": link.hello["name"], "status": "active"}
            for link in self.cluster.workers.values()
        ]
        return web.json_response({"items": items})

    # -- the worker stream ---------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        fake = self.cluster
        if fake.leader != self.index:
            return problem(503, "not_leader", leader=fake.nodes[fake.leader].url)
        socket = web.WebSocketResponse(protocols=("quorate.msgpack.v1",))
        await socket.prepare(request)
        hello = unpack((await socket.receive()).data)
        if fake.refuse_workers is not None:
            await socket.send_bytes(pack(["error", *fake.refuse_workers]))
            await socket.close()
            return socket
        worker_id = hello[1]["worker_id"] or f"w{len(fake.workers) + 1}"
        link = fake.workers[worker_id] = Link(worker_id, hello[1])
        link.socket = socket
        stale = [
            key
            for key in hello[1]["running"]
            if fake.jobs[key[0]]["attempt"] != key[1] or fake.jobs[key[0]]["status"] != "running"
        ]
        await socket.send_bytes(pack(["registered", worker_id, fake.ttl_seconds, stale]))
        await fake.notify()
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                break
            frame = unpack(message.data)
            link.frames.append(frame)
            await self._frame(link, frame)
        if link.socket is socket:
            link.socket = None
        await fake.notify()
        return socket

    async def _frame(self, link: Link, frame: list[Any]) -> None:
        fake = self.cluster
        if frame[0] == "credit":
            link.credit += frame[1]
        elif frame[0] in ("done", "failed", "released"):
            if not fake.acking:  # as if the leader died before committing
                await fake.notify()
                return
            link.credit += frame[3]
            stale = [item[0] for item in frame[2] if not fake.finish(frame[0], item)]
            assert link.socket is not None
            await link.socket.send_bytes(pack(["ack", frame[1], stale]))
        elif frame[0] == "progress":
            for job_id, _, fraction, text in frame[1]:
                fake.jobs[job_id]["progress"] = {"fraction": fraction, "message": text}
        elif frame[0] == "heartbeat" and not fake.silent:
            assert link.socket is not None
            await link.socket.send_bytes(pack(["heartbeat"]))
        elif frame[0] == "drain":
            link.credit = -1_000_000
        elif frame[0] == "bye":
            del fake.workers[link.worker_id]
        await fake.dispatch()

    # -- the long-poll twin --------------------------------------------------------------------

    async def _register(self, request: web.Request) -> web.Response:
        worker_id = f"w{len(self.cluster.workers) + 1}"
        self.cluster.workers[worker_id] = Link(worker_id, await request.json())
        await self.cluster.notify()
        return web.json_response(
            {"worker_id": worker_id, "ttl_seconds": self.cluster.ttl_seconds}, status=201
        )

    async def _poll(self, request: web.Request) -> web.Response:
        link = self.cluster.workers.get(request.match_info["id"])
        if link is None:
            return problem(404, "unknown_worker")
        body = await request.json()
        try:
            jobs = await self.cluster.until(
                lambda: self.cluster.assign(link, body["max"]), body["wait"]
            )
        except TimeoutError:
            jobs = []
        return web.json_response({"jobs": jobs})

    async def _beat(self, request: web.Request) -> web.Response:
        link = self.cluster.workers.get(request.match_info["id"])
        if link is None:
            return problem(404, "unknown_worker")
        cancel, link.cancel = link.cancel, []
        return web.json_response({"cancel": cancel, "stop": link.stop, "drain": link.drain})

    async def _leave(self, request: web.Request) -> web.Response:
        link = self.cluster.workers.pop(request.match_info["id"], None)
        for job in self.cluster.jobs.values():  # assigned to a poll whose answer it did not await
            if link is not None and job.get("worker_id") == link.worker_id:
                self.cluster.finish("released", [job["job_id"], job["attempt"]])
        await self.cluster.notify()
        return web.Response(status=204)
