"""Holds the import rules and the bounds of the code, by reading every file's syntax tree.

The rules are the tables below; a new package has to be placed in `RANKS` before it passes. Nothing
is executed or imported, so a broken module cannot hide here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES_MAX = 450
TEST_LINES_MAX = 500  # tables of examples are long without being hard to read

# A module imports its own package and whatever has a lower rank; nothing of its own rank.
RANKS = {
    "node": 8,
    "cluster": 7,  # only the package's front door, cluster/__init__.py
    "cluster.node": 7,
    "cluster.main": 7,
    "cluster.ingest": 6,
    "cluster.api": 5,
    "cluster.dashboard": 5,
    "cluster.actors": 4,
    "cluster.raft_state": 3,
    "cluster.levelmark": 2,
    "cluster.projections": 2,
    "cluster.backup": 3,
    "cluster.preflight": 4,
    "cluster.machine": 1,
    "cluster.consensus": 1,
    "cluster.policy": 1,
    "cluster.history": 2,
    "cluster.plan": 0,
    "cluster.timerwheel": 0,
    "cluster.settings": 0,
    "cluster.clock": 0,
    "cluster.vitals": 0,
}
EMBEDDING = {"cluster", "cluster.node", "cluster.main"}  # one layer in three files

PURE = [
    *("asyncio", "logging", "os", "pathlib", "random", "secrets", "selectors", "signal", "socket"),
    *("subprocess", "sys", "threading", "time", "uuid"),
]
# What turns bytes into code.
UNSAFE = ["pickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"]
CODE_CALLS = {"eval", "exec", "compile", "__import__"}
# What the modules below a name may never import, whatever the ranks say.
FORBIDDEN = {
    "cluster": ["quorate", "chaos", "bench", "node", "tests", *UNSAFE],
    "quorate": ["cluster", "chaos", "bench", "node", "tests", "pysyncobj", *UNSAFE],
    "chaos": ["tests", "pysyncobj", *UNSAFE],
    "bench": ["tests", *UNSAFE],
    "node": ["pysyncobj", "pickle"],
    "cluster.api": ["pysyncobj", "cluster.machine.tables", "quorate"],
    "cluster.actors": ["aiohttp", "pysyncobj", "cluster.api"],
    "cluster.raft_state": ["aiohttp", "pysyncobj", "cluster.actors"],
    "cluster.projections": ["aiohttp", "pysyncobj"],
    "cluster.history": ["aiohttp", "pysyncobj"],
    "cluster.backup": ["aiohttp", "pysyncobj"],
    "cluster.settings": ["aiohttp", "asyncio", "pysyncobj"],
    "cluster.vitals": ["aiohttp", "pysyncobj", "cluster.machine"],
    "cluster.policy": [*PURE, "aiohttp", "pysyncobj", "cluster.clock", "cluster.history"],
    "cluster.machine": [*PURE, "aiohttp", "pysyncobj", "croniter", "datetime", "cluster.clock"],
    "cluster.plan": [*PURE, "aiohttp", "pysyncobj", "datetime", "croniter", "cluster"],
    "cluster.timerwheel": [*PURE, "aiohttp", "pysyncobj", "datetime", "cluster"],
}
ONLY_CONSENSUS_IMPORTS = "pysyncobj"
EXEMPT = {("quorate.testing", "cluster")}  # joins both worlds for the tests of users
DETERMINISTIC = ("cluster.machine", "cluster.timerwheel")
CLOCKLESS = (*DETERMINISTIC, "cluster.policy")
CLOCK_CALLS = {"now", "utcnow", "today"}


def python_files() -> list[Path]:
    folders = ["cluster", "quorate", "chaos", "bench", "tests"]
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted([*found, *ROOT.glob("*.py")])


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Absolute names; `from a import b` counts as `a.b`, which may be a module or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, base] if base else kept)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def layer(name: str) -> str | None:
    """The entry of RANKS that a module belongs to; None for what is not ours or not placed."""
    if name in EMBEDDING:
        return name
    places = [place for place in RANKS if place != "cluster" and under(name, place)]
    return max(places, key=len, default=None)


def import_faults(module: str, source: str, is_package: bool = False) -> list[str]:
    """What a module imports against the rules, one sentence each."""
    faults = []
    home = layer(module)
    if home is None and under(module, "cluster"):
        faults.append(f"{module} has no place in RANKS: decide which layer it belongs to")
    for name in imports(ast.parse(source), module, is_package):
        for package, banned in FORBIDDEN.items():
            for other in banned:
                exempt = any(under(module, who) and other == what for who, what in EXEMPT)
                itself = under(module, "cluster.timerwheel") and under(name, "cluster.timerwheel")
                if under(module, package) and under(name, other) and not exempt and not itself:
                    faults.append(f"{module} imports {name}: {package} may not import {other}")
        if (
            under(name, ONLY_CONSENSUS_IMPORTS)
            and under(module, "cluster")
            and not under(module, "cluster.consensus")
        ):
            faults.append(f"{module} imports {name}: only cluster.consensus may")
        target = layer(name) if under(name, "cluster", "node") else None
        if home is None or target is None or home == target or {home, target} <= EMBEDDING:
            continue
        if RANKS[target] >= RANKS[home]:
            faults.append(f"{module} imports {name}: {home} stands below or beside {target}")
    return faults


def purity_faults(module: str, source: str) -> list[str]:
    """Calls whose answer differs between runs or machines, in modules that must not have any."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id == "hash":
            if under(module, *DETERMINISTIC):
                faults.append(f"{module}:{node.lineno} calls hash(): it differs per process")
        elif (
            isinstance(function, ast.Attribute)
            and function.attr in CLOCK_CALLS
            and under(module, *CLOCKLESS)
        ):
            faults.append(f"{module}:{node.lineno} reads a clock: take the time as an argument")
    return faults


def float_faults(module: str, source: str) -> list[str]:
    """Float constants and true division: rounding must not decide what is in the state."""
    return [
        f"{module}:{node.lineno} computes with floats"
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div))
    ]


def set_walk_faults(module: str, source: str) -> list[str]:
    """Loops over a set that is written in place: its order differs between processes."""
    iterables = [
        node.iter
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.For | ast.comprehension)
    ]
    return [
        f"{module}:{walked.lineno} walks over a set: sort it or use a dict"
        for walked in iterables
        if isinstance(walked, ast.Set | ast.SetComp)
        or (
            isinstance(walked, ast.Call)
            and isinstance(walked.func, ast.Name)
            and walked.func.id in ("set", "frozenset")
        )
    ]


def code_faults(module: str, source: str) -> list[str]:
    """Calls that run text as code: nothing that came from outside may ever get near one."""
    return [
        f"{module}:{node.lineno} calls {node.func.id}()"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in CODE_CALLS
    ]


FILES = python_files()
PRODUCT = [path for path in FILES if not under(module_name(path), "tests")]
NAMES = [module_name(path) for path in PRODUCT]


@pytest.mark.parametrize("path", PRODUCT, ids=NAMES)
def test_imports_point_down(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert import_faults(module_name(path), source, path.name == "__init__.py") == []


@pytest.mark.parametrize("path", PRODUCT, ids=NAMES)
def test_no_module_runs_text_as_code(path: Path) -> None:
    assert code_faults(module_name(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", PRODUCT, ids=NAMES)
def test_pure_modules_are_pure(path: Path) -> None:
    module, source = module_name(path), path.read_text(encoding="utf-8")
    faults = purity_faults(module, source)
    if under(module, *DETERMINISTIC):
        faults += float_faults(module, source) + set_walk_faults(module, source)
    assert faults == []


@pytest.mark.parametrize("path", PRODUCT, ids=NAMES)
def test_every_module_says_why_it_exists(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source)), "no module docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    lines_max = TEST_LINES_MAX if under(module_name(path), "tests") else LINES_MAX
    assert lines <= lines_max, f"{lines} lines: split the file, one idea each"


# docs/consensus.md answers for every guard, with tests that exist.

CONSENSUS_PAGE = ROOT / "docs" / "consensus.md"


def guard_names(source: str) -> list[str]:
    """The keys of GUARDS."""
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == "GUARDS":
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return []


def missing_tests(page: str, tests: dict[str, set[str]]) -> list[str]:
    """What a page names as `file::test` and no such file has."""
    named = re.findall(r"`(test_\w+)::(test_\w+)`", page)
    return [f"{file}::{name}" for file, name in named if name not in tests.get(file, set())]


def known_tests() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in FILES:
        if path.name.startswith("test_"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            functions = ast.FunctionDef | ast.AsyncFunctionDef
            names = {n.name for n in ast.walk(tree) if isinstance(n, functions)}
            found.setdefault(path.stem, set()).update(names)
    return found


def test_every_guard_stands_in_the_page_and_is_switched_off_in_some_test() -> None:
    names = guard_names((ROOT / "cluster/consensus/guards.py").read_text(encoding="utf-8"))
    page = CONSENSUS_PAGE.read_text(encoding="utf-8")
    tests = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests/consensus").glob("*.py"))
    assert len(names) > 30
    assert [name for name in names if f"`{name}`" not in page] == []
    assert [name for name in names if f'"{name}"' not in tests] == []
    table = page.partition("## Mutation check")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(names)


def test_every_test_that_the_front_page_names_exists() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.count("::test_") > 4
    assert missing_tests(page, known_tests()) == []


def test_every_test_that_the_page_names_exists() -> None:
    page = CONSENSUS_PAGE.read_text(encoding="utf-8")
    assert page.count("::test_") > 80
    assert missing_tests(page, known_tests()) == []


@pytest.mark.parametrize(
    "items",
    [
        ("A", [*range(1, 12)]),
        ("B", [*range(1, 14)]),
        ("C", [*range(1, 13)]),
        ("D", [*range(1, 4)]),
    ],
    ids=lambda items: items[0],
)
def test_every_known_defect_has_a_row(items: tuple[str, list[int]]) -> None:
    page = CONSENSUS_PAGE.read_text(encoding="utf-8")
    letter, numbers = items
    assert [n for n in numbers if f"\n| {letter}{n} | " not in page] == []


def test_the_tree_was_found() -> None:
    assert {"cluster.timerwheel", "cluster.machine", "cluster.consensus"} <= set(NAMES)


# The rules themselves, on sources that break them.


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("cluster.machine.jobs", "import time", "may not import time"),
        ("cluster.machine.jobs", "from os import path", "may not import os"),
        ("cluster.machine.jobs", "def f():\n    import random", "may not import random"),
        ("cluster.machine.jobs", "from cluster.clock import Clock", "may not import cluster.clock"),
        ("cluster.machine.jobs", "from cluster.policy import cron", "beside cluster.policy"),
        ("cluster.timerwheel", "import uuid", "may not import uuid"),
        ("cluster.timerwheel", "import cluster.clock", "may not import cluster"),
        ("cluster.policy.cron", "import asyncio", "may not import asyncio"),
        ("cluster.policy.cron", "from random import Random", "may not import random"),
        ("cluster.policy.cron", "from cluster import raft_state", "below or beside"),
        ("cluster.actors.desk", "from aiohttp import web", "may not import aiohttp"),
        ("cluster.actors.desk", "from ..api import app", "may not import cluster.api"),
        ("cluster.raft_state", "import cluster.actors.desk", "may not import cluster.actors"),
        ("cluster.projections.ready", "import cluster.raft_state", "below or beside"),
        ("cluster.api.jobs", "import pysyncobj.config", "may not import pysyncobj"),
        ("cluster.api.jobs", "from cluster.machine import tables", "cluster.machine.tables"),
        ("cluster.history.store", "import pysyncobj", "only cluster.consensus may"),
        ("cluster.consensus.engine", "import pickle", "may not import pickle"),
        ("cluster.consensus.engine", "from cluster.machine import apply", "below or beside"),
        ("cluster.consensus.engine", "import quorate", "may not import quorate"),
        ("quorate.client", "from cluster.settings import Settings", "may not import cluster"),
        ("cluster.novelty", "", "no place in RANKS"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, fault: str) -> None:
    assert any(fault in line for line in import_faults(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cluster.machine.jobs", "from cluster.timerwheel import TimerWheel"),
        ("cluster.machine.jobs", "from . import tables\nfrom .tables import Job"),
        ("cluster.consensus.engine", "import time, os, pysyncobj"),
        ("cluster.api.jobs", "from aiohttp import web\nfrom cluster.machine import views"),
        ("cluster.main", "from cluster.node import Node"),
        ("cluster", "from cluster.node import Node"),
        ("quorate.testing", "from cluster import Node"),
        ("quorate.testing.cluster", "from cluster import Node"),
    ],
)
def test_an_allowed_import_is_not(module: str, source: str) -> None:
    assert import_faults(module, source) == []


def test_relative_imports_are_resolved() -> None:
    tree = ast.parse("from . import a\nfrom ..b import c\nfrom .d import e")
    assert list(imports(tree, "x.y.z", is_package=False)) == ["x.y.a", "x.b.c", "x.y.d.e"]
    assert list(imports(tree, "x.y", is_package=True)) == ["x.y.a", "x.b.c", "x.y.d.e"]


def test_code_calls_are_found() -> None:
    source = "x = eval(text)\nexec(x)\nre.compile(y)\n__import__(z)"
    assert [line.split()[-1] for line in code_faults("quorate.app", source)] == [
        "eval()",
        "exec()",
        "__import__()",
    ]


def test_impure_calls_are_found() -> None:
    source = "x = hash('a')\ny = datetime.now(UTC)\nz = 1 / 2\nfor q in {1, 2}: pass"
    assert len(purity_faults("cluster.machine.jobs", source)) == 2
    assert len(purity_faults("cluster.policy.cron", source)) == 1
    assert purity_faults("cluster.api.jobs", source) == []
    assert len(float_faults("cluster.machine.jobs", source)) == 1
    assert len(set_walk_faults("cluster.machine.jobs", source)) == 1


def test_a_page_that_names_a_lost_test_is_found() -> None:
    page = "`test_a::test_x`, `test_a::test_y` and `test_b::test_x`"
    assert missing_tests(page, {"test_a": {"test_x"}}) == ["test_a::test_y", "test_b::test_x"]
    assert guard_names("GUARDS = {'a': 'x', 'b': 'y'}") == ["a", "b"]
