"""What a node tells whoever looks for what is wrong with it: enough, not too much, no secrets."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec
import pytest
from api_fakes import Api, FakeNode, serving

from cluster.api import debug
from cluster.settings import HIDDEN, Settings
from cluster.settings.layers import is_secret

SECRET = 'quote" and \\ slash and ümlaut'


async def test_a_node_tells_what_it_knows_of_itself(api: Api, node: FakeNode) -> None:
    node.services.vitals.queues = lambda: {"dispatcher.mailbox": 3}
    (node.settings.data / "journal").mkdir()
    (node.settings.data / "journal" / "00000001.seg").write_bytes(b"x" * 70)
    told = await api.get("/v1/debug")
    assert told["node_id"] == node.raft.node_id
    assert told["versions"]["quorate"] == "1.0"
    assert told["versions"]["pysyncobj"] == "0.3.17"
    assert told["settings"]["heartbeat_ms"] == 50
    assert set(told["readiness"].values()) == {""}
    assert told["status"]["term"] == 1
    assert told["queues"] == {"dispatcher.mailbox": 3}
    assert told["process"]["resident_bytes"] > 1 << 20
    assert told["process"]["open_files"] > 2
    files = {file["name"]: file["bytes"] for file in told["files"]}
    assert files["journal/00000001.seg"] == 70
    assert "history.sqlite" in files
    assert any(line.startswith("MainThread: ") for line in told["threads"])
    assert told["tasks_total"] >= 1 and any(" in " in line for line in told["tasks"])


async def test_it_is_told_without_a_leader_and_while_draining(api: Api, node: FakeNode) -> None:
    node.raft.follow(None, None)
    node.services.draining = True
    told = await api.get("/v1/debug")
    assert told["readiness"]["leader_known"] and told["readiness"]["not_draining"]


async def test_the_last_lines_of_the_log_are_in_it(api: Api, node: FakeNode) -> None:
    node.services.vitals.start()
    logging.getLogger("quorate.anything").warning("something happened")
    told = await api.get("/v1/debug")
    node.services.vitals.stop()
    assert told["log"][-1].endswith("quorate.anything something happened")


def with_every_secret() -> dict[str, str]:
    infos = msgspec.structs.fields(Settings)
    return {info.name: f"{SECRET} {info.name}" for info in infos if is_secret(info)}


async def test_no_secret_is_told_wherever_it_got_to(tmp_path: Path) -> None:
    secrets = with_every_secret()
    assert "cluster_secret" in secrets
    async with serving(tmp_path, **secrets) as api:
        node = api.node
        vitals = node.services.vitals
        vitals.start()
        for name, value in secrets.items():
            logging.getLogger("quorate.careless").warning("starting with --%s %s", name, value)
            vitals.queues = lambda value=value: {f"queue {value}": 1}  # type: ignore[misc]
            node.raft.node_id = value
            (node.settings.data / value.replace("/", "")).touch()
        answer = await api("GET", "/v1/debug")
        vitals.stop()
        told = answer.json
    shown = json.dumps(told, ensure_ascii=False)
    for name, value in secrets.items():
        assert json.dumps(value, ensure_ascii=False)[1:-1] not in shown
        assert value.encode() not in answer.raw
        assert told["settings"][name] == HIDDEN
    assert told["node_id"] == HIDDEN
    assert told["queues"] == {f"queue {HIDDEN}": 1}
    assert told["log"][-1].endswith(HIDDEN)
    assert HIDDEN in [file["name"] for file in told["files"]]


async def test_a_folder_of_many_files_is_cut(
    api: Api, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debug, "FILES_MAX", 3)
    before = len(list(node.settings.data.iterdir()))
    for number in range(10):
        (node.settings.data / f"{number}.seg").touch()
    told = await api.get("/v1/debug")
    assert len(told["files"]) == 3
    assert told["files_left_out"] == before + 10 - 3
