"""What strangers, floods and misconfigured members do at a node's door, and what they get."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from consensus_helpers import free_addresses, running, until
from mesh_helpers import (
    CLUSTER,
    KEY,
    address,
    dials_nobody,
    dropped,
    linked,
    make_mesh,
    read_until_closed,
    started,
)

from cluster.consensus import ConsensusConfig, ConsensusStartError
from cluster.consensus.counters import Counters
from cluster.consensus.handshake import GREETING_BYTES, MAGIC, PROOF_BYTES, Handshake
from cluster.consensus.listener import Listener, is_loopback
from cluster.consensus.mesh import Mesh, Refused
from cluster.consensus.resolver import Resolver
from cluster.consensus.strangers import STRANGERS_MAX, WaitingRoom, source_of
from cluster.consensus.wire import FRAME, PROTOCOL, Hello, encode_frame

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def prove(mesh: Mesh, key: bytes = KEY) -> Stream:
    """A stranger that has proved the secret and said nothing else."""
    reader, writer = await asyncio.open_connection(*address(mesh))
    handshake = Handshake(key, is_dialer=True)
    writer.write(handshake.begin())
    writer.write(handshake.feed(await reader.readexactly(GREETING_BYTES)))
    handshake.feed(await reader.readexactly(PROOF_BYTES))
    return reader, writer


async def claim(mesh: Mesh, node_id: str, boot_id: bytes) -> Stream:
    """A stranger with the secret that says who it is."""
    reader, writer = await prove(mesh)
    writer.write(encode_frame(hello_of(mesh, node_id=node_id, boot_id=boot_id)))
    return reader, writer


def hello_of(mesh: Mesh, **changes: Any) -> Hello:
    own = mesh.hello()
    fields = {name: getattr(own, name) for name in own.__struct_fields__}
    return Hello(**(fields | changes))


# The waiting room ---------------------------------------------------------------------------


def test_a_crowd_pushes_out_itself() -> None:
    room: WaitingRoom[str] = WaitingRoom(4)
    for n in range(3):
        assert room.enter(f"flood-{n}", "10.0.0.9") is None
    assert room.enter("member", "10.0.0.1") is None
    assert room.enter("flood-3", "10.0.0.9") == "flood-0"
    assert room.enter("late member", "10.0.0.2") == "flood-1"
    assert room.inside() == ["flood-2", "member", "flood-3", "late member"]
    room.leave("member")
    room.leave("member")
    room.leave("nobody")
    assert len(room) == 3
    assert room.enter("again", "10.0.0.9") is None


def test_one_network_is_one_source() -> None:
    assert source_of("10.0.0.1") == "10.0.0.1"
    assert source_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert source_of("2001:db8:0:1::1") != source_of("2001:db8::1")
    assert source_of("fe80::1%eth0") == "fe80::/64"


async def test_a_member_gets_in_through_a_flood_from_elsewhere() -> None:
    """127.0.0.2 floods; the member comes from 127.0.0.1 and is the only one that dials."""
    a, b = free_addresses(2)
    victim, member = make_mesh(a, b), make_mesh(b, a)
    victim._dial = dials_nobody  # type: ignore[method-assign]
    victim.handshake_timeout_s = 60.0
    async with started(victim):
        flood: list[socket.socket] = []
        for _ in range(STRANGERS_MAX + 10):
            stranger = socket.socket()
            stranger.bind(("127.0.0.2", 0))
            stranger.setblocking(False)
            await asyncio.get_running_loop().sock_connect(stranger, address(victim))
            flood.append(stranger)
        await until(lambda: victim.counters.dropped["too_many_strangers"] >= 10)
        async with started(member):
            await linked(victim, member)
        for stranger in flood:
            stranger.close()


async def test_hundreds_of_idle_strangers_are_shed_and_own_dials_still_work() -> None:
    """From the same address as the members, so that only dialing helps."""
    a, b = free_addresses(2)
    one, other = make_mesh(a, b), make_mesh(b, a)
    other._dial = dials_nobody  # type: ignore[method-assign]
    one.handshake_timeout_s = 60.0
    async with started(one):
        streams = []
        for _ in range(500):
            stranger = socket.socket()
            stranger.setblocking(False)
            await asyncio.get_running_loop().sock_connect(stranger, address(one))
            streams.append(stranger)
        await until(lambda: one.counters.dropped["too_many_strangers"] >= 500 - STRANGERS_MAX)
        assert len(one._strangers) <= STRANGERS_MAX
        async with started(other):
            await linked(one, other)
        for stranger in streams:
            stranger.close()


async def test_whoever_does_not_finish_the_handshake_is_dropped() -> None:
    (a,) = free_addresses(1)
    mesh = make_mesh(a)
    mesh.handshake_timeout_s = 0.05
    async with started(mesh):
        silent = await asyncio.open_connection(*address(mesh))
        half = await asyncio.open_connection(*address(mesh))
        half[1].write(MAGIC + b"n" * 10)
        proved = await prove(mesh)
        for reader, _ in (silent, half, proved):
            assert await read_until_closed(reader) == b""
        assert mesh.counters.dropped["handshake_timeout"] == 3
        assert len(mesh._strangers) == 0


async def test_a_flood_without_tls_handshakes_is_bounded_too(tmp_path: Path) -> None:
    from mesh_helpers import Authority

    (a,) = free_addresses(1)
    mesh = make_mesh(a, tls=Authority(tmp_path).files(a))
    mesh.handshake_timeout_s = 0.5
    async with started(mesh):
        streams = []
        for _ in range(80):
            streams.append(await asyncio.open_connection(*address(mesh)))
            assert len(mesh._strangers) <= STRANGERS_MAX
        for reader, _ in streams:
            assert await read_until_closed(reader) == b""
        counted = mesh.counters.dropped
        assert counted["handshake_timeout"] + counted["too_many_strangers"] == 80
        assert len(mesh._strangers) == 0
        await until(lambda: not mesh._welcomes)


async def test_before_its_hello_nobody_may_send_a_large_frame() -> None:
    (a,) = free_addresses(1)
    mesh = make_mesh(a)
    async with started(mesh):
        reader, writer = await prove(mesh)
        writer.write(FRAME.pack(10, 1 << 20, 0, 0))
        assert await read_until_closed(reader) == b""
        assert mesh.counters.dropped["oversize"] == 1


async def test_a_large_frame_right_behind_the_hello_is_read() -> None:
    from cluster.consensus.wire import Append, Blob

    a, b = free_addresses(2)
    mesh = make_mesh(a, b)
    mesh._dial = dials_nobody  # type: ignore[method-assign]
    blob = Blob.of((b"x" * (1 << 20),))
    async with started(mesh):
        _, writer = await prove(mesh)
        hello = encode_frame(hello_of(mesh, node_id=b, boot_id=b"12345678"))
        append = encode_frame(Append(1, 1, 1, 1, 1, 1), blob)
        writer.write(b"".join((hello, append, *blob.parts)))
        await until(lambda: len(mesh.inbox) == 2)
        assert len(mesh.inbox[1].blob) == 1 << 20  # type: ignore[union-attr]


# Out of descriptors -------------------------------------------------------------------------


async def test_running_out_of_descriptors_stops_nobody_for_ever(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = []
        try:
            stranger = socket.socket()
            free = os.dup(stranger.fileno())
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            stranger.setblocking(False)
            host, port = leader.id.split(":")
            await asyncio.get_running_loop().sock_connect(stranger, (host, int(port)))
            waiting.append(stranger)
            await until(lambda: errors(leader).get("accept_emfile", 0) > 1)
            await cluster.commit(b"two")  # the links that stand go on
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"nonsense and more")
        assert await read_until_closed(reader) == b""  # it is answered again
        for sock in waiting:
            sock.close()


def errors(node: Any) -> dict[str, int]:
    found: dict[str, int] = node.consensus.status()["errors"]
    return found


def test_a_connection_gone_before_it_was_accepted_is_no_reason_to_stop() -> None:
    listener = Listener("127.0.0.1:0", Counters(), protected=False)
    listener.bind()
    try:
        listener._failed(OSError(errno.ECONNABORTED, "gone"))
        assert listener._counters.errors == {"accept_econnaborted": 1}
        assert listener._pause is None
    finally:
        listener.release()


# Exposure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "[::]", "", "[::ffff:0.0.0.0]"])
def test_nothing_but_loopback_is_listened_on_unprotected(host: str) -> None:
    with pytest.raises(ConsensusStartError, match="raft_tls_ca"):
        make_mesh(f"{host}:0").bind()


def test_a_name_is_judged_by_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.9.8.7", 0))]

    monkeypatch.setattr("socket.getaddrinfo", elsewhere)
    with pytest.raises(ConsensusStartError, match=r"localhost:7 is 10\.9\.8\.7"):
        make_mesh("localhost:7").bind()
    assert is_loopback("::ffff:127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("::ffff:10.0.0.1")
    assert not is_loopback("fe80::1%lo")


def test_with_a_secret_any_address_may_be_listened_on() -> None:
    mesh = make_mesh("0.0.0.0:0", cluster_secret="open sesame")
    mesh.bind()
    mesh.release()


# Identity -----------------------------------------------------------------------------------


async def test_an_address_that_leads_back_is_named() -> None:
    """The member list holds an alias of this very node."""
    (a,) = free_addresses(1)
    alias = a.replace("127.0.0.1", "localhost")
    mesh = make_mesh(a, alias)
    async with started(mesh):
        await dropped(mesh, "this_node_itself")
        assert not mesh.epoch(alias)
        assert not mesh.epoch(a)


async def test_a_second_process_does_not_replace_a_living_first() -> None:
    a, b = free_addresses(2)
    mesh = make_mesh(a, b)
    mesh._dial = dials_nobody  # type: ignore[method-assign]
    async with started(mesh):
        _, first = await claim(mesh, b, b"1st boot")
        await until(lambda: mesh.epoch(b))
        reader, _second = await claim(mesh, b, b"2nd boot")
        assert await read_until_closed(reader) == b""
        assert mesh.counters.dropped["same_id_twice"] == 1
        assert mesh.epoch(b) == 1
        first.close()  # as the kernel does for a process that dies
        await until(lambda: not mesh.epoch(b))
        third = await claim(mesh, b, b"3rd boot")
        await until(lambda: mesh.epoch(b))
        third[1].close()


async def test_a_restart_that_closed_nothing_is_let_in_when_the_old_link_is_silent() -> None:
    """As after a power failure: no FIN was ever sent."""
    a, b = free_addresses(2)
    mesh = make_mesh(a, b)
    mesh._dial = dials_nobody  # type: ignore[method-assign]
    async with started(mesh):
        streams = [await claim(mesh, b, b"1st boot")]
        await until(lambda: mesh.epoch(b) == 1)
        mesh._links[b].last_read -= 5
        streams.append(await claim(mesh, b, b"2nd boot"))
        await until(lambda: mesh.epoch(b) == 2)
        assert mesh.counters.dropped["replaced_link"] == 1


async def test_somebody_elses_claim_to_this_nodes_id_is_refused() -> None:
    a, b = free_addresses(2)
    mesh = make_mesh(a, b)
    async with started(mesh):
        reader, _writer = await claim(mesh, a, b"impostor")
        assert await read_until_closed(reader) == b""
        assert mesh.counters.dropped["same_id_twice"] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": PROTOCOL + 1}, "other_protocol"),
        ({"cluster_id": CLUSTER[::-1] + b"x"}, "other_cluster"),
        ({"folder_id": "removed folder"}, "removed"),
    ],
)
async def test_a_hello_that_does_not_fit_is_refused(changes: dict[str, Any], reason: str) -> None:
    a, b = free_addresses(2)
    mesh = make_mesh(a, b)
    mesh.vet = lambda _, folder: "removed" if folder == "removed folder" else ""
    mesh._dial = dials_nobody  # type: ignore[method-assign]
    async with started(mesh):
        reader, writer = await prove(mesh)
        claims = {"node_id": b, "boot_id": b"12345678"} | changes
        writer.write(encode_frame(hello_of(mesh, **claims)))
        said = await read_until_closed(reader)  # only who can act on it is told why
        assert (reason.encode() in said) is (reason == "removed") is bool(said)
        assert mesh.counters.dropped[reason] == 1
        assert not mesh.inbox


async def test_a_link_ends_when_its_folder_turns_out_to_be_another() -> None:
    """It was made before this node knew; who is on the other side has lost its disk."""
    a, b = free_addresses(2)
    one, other = make_mesh(a, b), make_mesh(b, a)
    async with started(one, other):
        await linked(one, other)
        one.vet = lambda node_id, folder: "other_folder"
        one.set_peers((b,))
        await until(lambda: any(isinstance(event, Refused) for event in other.inbox))
        assert not one.epoch(b)


async def test_a_frame_before_the_hello_is_refused() -> None:
    from cluster.consensus.wire import HigherTerm

    (a,) = free_addresses(1)
    mesh = make_mesh(a)
    async with started(mesh):
        reader, writer = await prove(mesh)
        writer.write(encode_frame(HigherTerm(9)))
        assert await read_until_closed(reader) == b""
        assert mesh.counters.dropped["no_hello"] == 1


async def test_a_relayed_handshake_gives_the_relay_no_proof_for_a_second_one() -> None:
    """Man in the middle: may pass one handshake on (TLS is against that), but learns nothing."""
    a, b = free_addresses(2)
    one, other = make_mesh(a, b), make_mesh(b, a)
    one._dial = other._dial = dials_nobody  # type: ignore[method-assign]
    async with started(one, other):
        reader, writer = await asyncio.open_connection(*address(one))
        far_reader, far_writer = await asyncio.open_connection(*address(other))
        nonce = os.urandom(32)
        for to in (writer, far_writer):  # both are listeners: neither proves anything first
            to.write(MAGIC + nonce)
        await reader.readexactly(GREETING_BYTES)
        far_greeting = await far_reader.readexactly(GREETING_BYTES)
        writer.write(far_greeting[len(MAGIC) :])
        assert await read_until_closed(reader) == b""
        assert one.counters.dropped["bad_proof"] == 1
        far_writer.close()


# Names --------------------------------------------------------------------------------------


async def test_a_hanging_name_server_costs_one_thread_and_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, calls = threading.Event(), []

    def hangs(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        calls.append(host)
        release.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.7", 0))]

    monkeypatch.setattr("socket.getaddrinfo", hangs)
    resolver = Resolver()
    try:
        attempts = [asyncio.create_task(resolver.addresses("n2.example")) for _ in range(20)]
        await until(lambda: calls)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolver.addresses("n2.example")
        assert await resolver.addresses("localhost") == ["127.0.0.1", "::1"]
        assert await resolver.addresses("::1") == ["::1"]
        assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        release.set()
    assert await asyncio.gather(*attempts) == [["10.0.0.7"]] * 20
    assert calls == ["n2.example"]


async def test_while_names_do_not_resolve_the_last_answer_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Any] = [["10.0.0.7", "10.0.0.8"], OSError("no server"), ["10.0.0.9"]]

    def look_up(host: str) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return list(answer)

    monkeypatch.setattr("cluster.consensus.resolver.look_up", look_up)
    resolver = Resolver()
    assert await resolver.addresses("n2.example") == ["10.0.0.7", "10.0.0.8"]
    assert await resolver.addresses("n2.example") == ["10.0.0.7", "10.0.0.8"]
    assert await resolver.addresses("n2.example") == ["10.0.0.9"]
    answers.append(OSError("no server"))
    with pytest.raises(OSError, match="no server"):
        await resolver.addresses("n3.example")


async def test_a_name_that_cannot_be_asked_for_is_an_error_each_time() -> None:
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(OSError):
            async with asyncio.timeout(5):
                await resolver.addresses("x" * 70 + ".example")


async def test_a_name_with_several_addresses_is_tried_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = free_addresses(2)
    name = b.replace("127.0.0.1", "n2.example")
    one, other = make_mesh(a, name), make_mesh(name, a)
    monkeypatch.setattr(
        "cluster.consensus.resolver.look_up", lambda host: ["127.0.0.77", "127.0.0.1"]
    )
    config = ConsensusConfig(name, b, (a,), Path("unused"))
    other = Mesh(config, KEY, Counters(), lambda: None)
    other.identify(CLUSTER, "folder")
    other.set_peers(config.peers)
    other._dial = dials_nobody  # type: ignore[method-assign]
    async with started(one, other):
        await until(lambda: one.epoch(name))


def test_struct_sizes_bound_what_a_stranger_can_make_us_hold() -> None:
    """Before the proof: one greeting and one proof; nothing is parsed, nothing is allocated."""
    handshake = Handshake(KEY, is_dialer=False)
    handshake.feed(MAGIC + b"n" * 32)
    for _ in range(PROOF_BYTES - 1):
        handshake.feed(b"p")
    assert len(handshake._buffer) == PROOF_BYTES - 1
    assert struct.calcsize("<IIII") == FRAME.size
