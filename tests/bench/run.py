# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``make bench``: run every bench, or those named, and put each table into its section of docs/benchmarks.md."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness import Figure, Row

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "benchmarks.md"
NOT_BENCHES = ("run", "harness", "memory_group", "remote_executions")


def topics() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_BENCHES)


def put_section(page: str, topic: str, text: str) -> str:
    """``page`` with the section of ``topic`` replaced, or added at its end."""
    begin, end = f"<!-- bench {topic} -->", f"<!-- end {topic} -->"
    section = f"{begin}\n{text.rstrip()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _match: section, page)
    return page.rstrip() + "\n\n" + section + "\n"


def put_rows(page: str, topic: str, rows: Sequence[Row | Figure]) -> str:
    """``page`` with the lines of ``rows`` in the section of ``topic``, whose other lines stay.

    :raises LookupError: the page has no such section yet, so there is nothing that a part of a bench could be put into.
    """
    begin, end = f"<!-- bench {topic} -->", f"<!-- end {topic} -->"
    before, opened, rest = page.partition(begin)
    section, closed, after = rest.partition(end)
    if not opened or not closed:
        raise LookupError(f"the page has no section of {topic}: run the whole bench first")
    lines = section.splitlines()
    for row in rows:
        known = [number for number, line in enumerate(lines) if line.startswith(f"| {row.name} |")]
        last = max(number for number, line in enumerate(lines) if line.startswith("|"))
        lines[known[0] if known else last + 1 : known[0] + 1 if known else last + 1] = [row.markdown()]
    return before + begin + "\n".join(lines) + "\n" + end + after


def main(wanted: list[str]) -> int:
    # As people run it: Python keeps what it has compiled. A workplace that forbids it makes each start twice as long.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.path.insert(0, str(HERE))
    for folder in ("collections", "src"):
        sys.path.insert(0, str(HERE.parent.parent / folder))
    from harness import machine, table

    unknown = sorted(set(wanted) - set(topics()))
    if unknown:
        print(f"no such bench: {', '.join(unknown)}; there are {', '.join(topics())}", file=sys.stderr)
        return 2
    missed = 0
    for topic in wanted or topics():
        bench = importlib.import_module(topic)
        rows = bench.rows()
        head = f"## {bench.TITLE} (`make bench BENCH={topic}`)\n\n{machine()}, {time.strftime('%B %Y')}.\n\n"
        text = head + (table(rows) if rows else bench.text())
        figures = bench.figures() if hasattr(bench, "figures") else []
        text += "\n" + table(figures) if figures else ""
        text += "\n" + bench.details() if hasattr(bench, "details") else ""
        print(text, flush=True)
        page = PAGE.read_text(encoding="utf-8")
        # What a bench was asked to leave out keeps its lines.
        page = put_rows(page, topic, rows) if getattr(bench, "PART", False) else put_section(page, topic, text)
        PAGE.write_text(page, encoding="utf-8")
        missed += sum(not row.met for row in [*rows, *figures])
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
