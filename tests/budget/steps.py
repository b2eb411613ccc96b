"""Counts executed bytecode instructions by part of the code: what a job costs, without a clock.

Unlike time, the count is the same on a busy machine. It leaves out what C code does, and differs
between releases of Python, so bounds hold for one release.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    *("cluster/api", "cluster/actors", "cluster/consensus", "cluster/history", "cluster/machine"),
    *("cluster/projections", "cluster", "quorate"),
)
LIBRARIES = "libraries"
TESTS = "tests"


class Steps:
    """Only inside `counting()`. Threads that begin after it was made are counted, too."""

    def __init__(self) -> None:
        self._by_code: Counter[CodeType] = Counter()
        self._is_counting = False
        threading.settrace(self._enter)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self._is_counting:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self._by_code[frame.f_code] += 1
        return self._step

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        self._by_code.clear()
        self._is_counting = True
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)
            self._is_counting = False

    def close(self) -> None:
        threading.settrace(None)  # type: ignore[arg-type]  # the way to take it back

    def by_part(self) -> dict[str, float]:
        found: Counter[str] = Counter()
        for code, count in self._by_code.items():
            found[part_of(code.co_filename)] += count
        found.pop(TESTS, None)
        return dict(found)

    def dearest(self, part: str, count: int = 8) -> list[tuple[str, int]]:
        """The functions of a part that took the most."""
        found: Counter[str] = Counter()
        for code, steps in self._by_code.items():
            if part_of(code.co_filename) == part:
                found[f"{Path(code.co_filename).name}:{code.co_qualname}"] += steps
        return found.most_common(count)


def part_of(filename: str) -> str:
    try:
        inside = Path(filename).relative_to(ROOT).as_posix()
    except ValueError:
        return LIBRARIES
    if inside.startswith("."):  # a virtual environment
        return LIBRARIES
    return next((part for part in PARTS if inside.startswith(part + "/")), TESTS)
