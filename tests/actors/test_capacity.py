"""Who can take a job now: the right worker, found at a cost that idle ones do not raise."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections.abc import Callable

import pytest
from actor_rig import FakeSink, Rig, virtual

from cluster.actors import dispatcher
from cluster.actors.capacity import Capacity, share_out
from cluster.actors.session import Session
from cluster.machine.commands import DrainWorker, RemoveWorker
from cluster.machine.model import JobSpec, WorkerSpec


def offer(*tasks: str, queues: tuple[str, ...] = ("default",)) -> WorkerSpec:
    return WorkerSpec("w", 4, queues, tasks)


def able(capacity: Capacity, worker_id: int, spec: WorkerSpec, credit: int) -> Session:
    session = Session(worker_id, FakeSink(), 0, 0)
    capacity.admit(session, spec)
    session.credit += credit
    return session


def pick(capacity: Capacity, queue: str, name: str) -> Session | None:
    takers = capacity.takers(queue, name, 1, 10, 10)
    return takers[0].session if takers else None


def calls(work: Callable[[], object]) -> int:
    """How many functions were called, Python's and C's: the same every time, unlike seconds."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    gc.disable()  # what others left behind is not counted here
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_the_worker_with_most_credit_is_picked_and_among_equals_who_has_waited() -> None:
    capacity = Capacity()
    first = able(capacity, 1, offer("work"), 2)
    second = able(capacity, 2, offer("work"), 2)
    assert pick(capacity, "default", "work") is first
    first.credit -= 1
    assert pick(capacity, "default", "work") is second
    second.credit -= 1
    assert pick(capacity, "default", "work") is first
    third = able(capacity, 3, offer("work", "send"), 5)
    assert pick(capacity, "default", "work") is third
    assert pick(capacity, "default", "send") is third


def test_new_jobs_are_shared_by_those_who_can_take_them_each_once() -> None:
    capacity = Capacity()
    few = able(capacity, 1, offer("work"), 2)
    many = able(capacity, 2, offer("work", "send"), 9)
    some = able(capacity, 3, offer("work"), 5)

    def shares(count: int, jobs_max: int = 100, takers_max: int = 100) -> list[tuple[int, int]]:
        takers = capacity.takers("default", "work", count, jobs_max, takers_max)
        return [(taker.session.worker_id, taker.share) for taker in takers]

    assert shares(1) == [(2, 1)]
    assert shares(4) == [(2, 2), (3, 1), (1, 1)]
    assert shares(9) == [(2, 3), (3, 3), (1, 2)]
    assert shares(100) == [(2, 9), (3, 5), (1, 2)]
    assert shares(100, jobs_max=3) == [(2, 3), (3, 3), (1, 2)]
    assert shares(9, takers_max=2) == [(2, 3), (3, 3)]
    assert [session.credit for session in (few, many, some)] == [2, 9, 5]
    assert pick(capacity, "default", "work") is many, "nobody has left"


def test_nobody_is_picked_for_what_nobody_offers_or_has_room_for() -> None:
    capacity = Capacity()
    only = able(capacity, 1, offer("work", queues=("mail",)), 1)
    assert pick(capacity, "default", "work") is None
    assert pick(capacity, "mail", "send") is None
    only.credit -= 1
    assert pick(capacity, "mail", "work") is None
    only.credit += 1
    assert pick(capacity, "mail", "work") is only
    capacity.dismiss(only)
    assert pick(capacity, "mail", "work") is None
    anywhere = able(capacity, 2, offer("work", queues=("*",)), 1)
    assert pick(capacity, "mail", "work") is anywhere


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_to_workers_the_most_free_one_is_found(seed: int) -> None:
    rng = random.Random(seed)
    offers = [offer("a"), offer("b"), offer("a", "b"), offer("a", queues=("*",))]
    capacity, specs = Capacity(), dict[Session, WorkerSpec]()
    sessions = [Session(n, FakeSink(), 0, 0) for n in range(12)]
    for _ in range(400):
        session = rng.choice(sessions)
        match rng.randrange(5):
            case 0:
                specs[session] = rng.choice(offers)
                capacity.admit(session, specs[session])
            case 1:
                specs.pop(session, None)
                capacity.dismiss(session)
            case 2:
                session.credit = 0
            case _:
                session.credit = max(session.credit + rng.randint(-3, 4), 0)
        for queue, name in (("default", "a"), ("default", "b"), ("other", "a")):
            free = [
                each.credit
                for each, spec in specs.items()
                if name in spec.tasks and (queue in spec.queues or "*" in spec.queues)
            ]
            picked = pick(capacity, queue, name)
            assert (picked.credit if picked is not None else 0) == max(free, default=0)
        assert sum(pool.size for pool in capacity.pools()) == sum(each.credit > 0 for each in specs)


@virtual
async def test_workers_that_left_drain_or_changed_their_offer_are_not_picked() -> None:
    rig = Rig()
    await rig.lead()
    leaving, _ = await rig.worker(1)
    draining, _ = await rig.worker(2)
    changing, _ = await rig.worker(3)
    gone, sink = await rig.worker(4)
    picked = []
    for _ in range(5):
        session = pick(rig.desk.capacity, "default", "work")
        picked.append(session.worker_id if session is not None else 0)
        match len(picked):
            case 1:
                rig.desk.disconnected(gone, sink)
            case 2:
                await rig.desk.register(offer("else"), changing, [], FakeSink())
                rig.desk.grant(changing, 3)
            case 3:
                await rig.proposer.propose(DrainWorker(draining))
            case 4:
                await rig.proposer.propose(RemoveWorker(leaving))
    assert picked == [gone, changing, draining, leaving, 0]
    session = pick(rig.desk.capacity, "default", "else")
    assert session is not None and session.worker_id == changing


@virtual
async def test_a_leader_that_resigned_has_nobody_to_give_jobs_to() -> None:
    rig = Rig()
    await rig.lead()
    await rig.worker(1)
    await rig.resign()
    assert pick(rig.desk.capacity, "default", "work") is None


@virtual
async def test_a_round_costs_the_same_however_many_workers_are_idle() -> None:
    async def cost(idle: int) -> tuple[int, int]:
        rig = Rig()
        await rig.lead()
        for _ in range(idle):
            await rig.worker(4)
            await rig.worker(9, offer("else"))
        await rig.submit(7)
        capacity = rig.desk.capacity
        shares = []

        def one_round() -> None:
            while found := share_out(capacity, rig.ready, 1_000, 500):
                shares.extend(found)

        found = calls(one_round)
        assert [len(share.jobs) for share in shares] == [1] * 7
        return found, calls(lambda: pick(capacity, "default", "work"))

    assert await cost(20) == await cost(400)


@virtual
async def test_more_assignments_than_may_be_in_flight_all_come_to_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "ASSIGNING_MAX", 10)
    monkeypatch.setattr(dispatcher, "SHARES_MAX", 4)
    rig = Rig()
    await rig.lead([rig.dispatcher])
    sinks = [(await rig.worker(2))[1] for _ in range(50)]
    rig.log.held = True
    submitting = asyncio.ensure_future(rig.submit(100, JobSpec("work")))
    await asyncio.sleep(0.01)
    rig.log.commit()
    await submitting
    await asyncio.sleep(0.1)
    assert 10 <= rig.dispatcher._in_flight < 14
    rig.log.release()
    await asyncio.sleep(0.5)
    assert [len(sink.jobs) for sink in sinks] == [2] * 50
