"""`pytest tests/machine --rewrite` writes the answers of scenarios; review the diff."""

from __future__ import annotations

import pytest

from cluster.machine.apply import Strictness


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what scenarios answer")


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    # Known only when this folder is named on the command line.
    return bool(request.config.getoption("--rewrite", default=False))


@pytest.fixture(autouse=True)
def bugs_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a reducer stops the test instead of being counted."""
    monkeypatch.setattr(Strictness, "raise_bugs", True)
