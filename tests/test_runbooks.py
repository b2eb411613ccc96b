"""The runbooks say what the product says: commands, log lines, problem codes and metrics."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from cluster.api.errors import KINDS
from quorate.cli import build_parser
from quorate.testing import local_node

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "runbooks"
PAGES = sorted(FOLDER.glob("*.md"))
NAMES = [page.stem for page in PAGES]
# Where a row or a sentence of these quotes what is printed.
SAID = re.compile(r"^\| (?:log|stderr) \| (.*) \|$", re.MULTILINE)
QUOTED = re.compile(r"`([^`]+)`")
METRIC = re.compile(r"`((?:quorate|clock|queue|job|jobs|schedule|workers|raft)_[a-z_]+)`")


def commands(page: str) -> list[str]:
    """What stands in a block of shell, or in a line of text, as a whole command."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    spoken = QUOTED.findall(re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    return [line for line in [*lines, *spoken] if line.startswith("quorate ")]


@cache
def texts() -> str:
    """Every string of the product; the pieces of f-strings one by one."""
    found: list[str] = []
    for folder in ("cluster", "quorate"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return "\0".join(found)


def test_every_runbook_is_listed_and_says_what_was_tried() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.stem != "README":
            assert f"]({page.name})" in index
            assert "\n## When it was tried\n" in page.read_text(encoding="utf-8"), page.name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_understood(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)[1:]
        words = words[: words.index("--")] if "--" in words else words
        try:
            build_parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page.name}: {line}")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_is_said_to_be_logged_is_logged(page: Path) -> None:
    for row in SAID.findall(page.read_text(encoding="utf-8")):
        for text in QUOTED.findall(row):
            found = text in texts()
            assert found, f"{page.name}: {text}"


async def test_codes_and_metrics_exist() -> None:
    from quorate import Client

    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    codes = re.findall(r"\b(?:409|422|429|503) `([a-z_]+)`", pages)
    assert set(codes) >= {"no_quorum", "disk_full", "queue_full", "conflict"}
    assert [code for code in codes if code not in KINDS] == []
    async with local_node() as url, Client(url) as client:
        await client.submit("nobody", queue="hot")
        text = (await client.transport.request("GET", "/metrics")).body.decode()
    names = set(METRIC.findall(pages)) - settings_names() - {*KINDS, "schedule_id"}
    assert len(names) > 8
    assert [name for name in sorted(names) if not re.search(rf"^# TYPE {name} ", text, re.M)] == []


def settings_names() -> set[str]:
    from cluster.settings import Settings

    return set(Settings.__struct_fields__)


def test_a_command_that_is_not_there_is_found() -> None:
    page = "```sh\nquorate jobs vanish 1\n```\nor `quorate stats`, `mount`"
    assert commands(page) == ["quorate jobs vanish 1", "quorate stats"]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["jobs", "vanish", "1"])
