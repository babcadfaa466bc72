# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``make bench``: run every bench, or those named, and put each table into its section of docs/benchmarks.md."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from pathlib import Path

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
        PAGE.write_text(put_section(PAGE.read_text(encoding="utf-8"), topic, text), encoding="utf-8")
        missed += sum(not row.met for row in [*rows, *figures])
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
