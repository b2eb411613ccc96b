"""Counts executed bytecode instructions: what a step costs, without a clock.

Unlike time, the count is the same on a busy machine, as long as what is counted does not look at a
clock itself. It leaves out what C code does, and differs between releases of Python.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


class Steps:
    """Of this thread, inside `counting()`; frames that were entered before do not count."""

    def __init__(self) -> None:
        self._by_code: Counter[CodeType] = Counter()

    @property
    def total(self) -> int:
        return self._by_code.total()

    def dearest(self, count: int = 5) -> list[tuple[str, int]]:
        """The functions that took the most."""
        return [
            (f"{Path(code.co_filename).name}:{code.co_qualname}", steps)
            for code, steps in self._by_code.most_common(count)
        ]

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self._by_code[frame.f_code] += 1
        return self._step
