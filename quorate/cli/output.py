"""Prints answers: aligned tables for people, JSON lines for programs.

Colours and boxes are left out on purpose; the output pastes cleanly anywhere.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .options import TRUE_WORDS

CELL_CHARS_MAX = 48


def wants_json(args: argparse.Namespace) -> bool:
    """True for --json, QUORATE_JSON, or a stdout that is no terminal."""
    if getattr(args, "json", False):
        return True
    if os.environ.get("QUORATE_JSON", "").lower() in TRUE_WORDS:
        return True
    return not sys.stdout.isatty()


def print_json(value: Any) -> None:
    """One line of JSON."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def print_rows(
    args: argparse.Namespace, items: Iterable[Mapping[str, Any]], columns: Sequence[str]
) -> None:
    """A table of `columns`, or every item whole as a JSON line."""
    if wants_json(args):
        for item in items:
            print_json(item)
        return
    rows = [[_cell(item.get(column)) for column in columns] for item in items]
    print_table(columns, rows)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [
        max(len(name), *(len(row[index]) for row in rows)) if rows else len(name)
        for index, name in enumerate(columns)
    ]
    lines = [[name.upper() for name in columns], *rows]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def print_item(args: argparse.Namespace, item: Mapping[str, Any]) -> None:
    """One thing: `name: value` lines without what is absent, or a JSON line."""
    if wants_json(args):
        print_json(item)
        return
    shown = {name: value for name, value in item.items() if value not in (None, [], {})}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{name.ljust(width)}  {_text(value)}")


def print_done(args: argparse.Namespace, text: str, data: Mapping[str, Any]) -> None:
    """A sentence for people, the same facts as JSON for programs."""
    if wants_json(args):
        print_json(data)
    else:
        print(text)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, (dict, list, tuple)):
        import msgspec

        return msgspec.json.encode(value).decode()
    return str(value)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = " ".join(_text(value).split())
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 1] + "…"
