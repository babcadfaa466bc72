# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a part of a bench does to the page of measured figures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


harness, run = load("harness"), load("run")
PAGE = """# Benchmarks

<!-- bench pull -->
## A pull

2 cores.

| what | ratio |
|---|---|
| one file | 1.13 × |
| many files | 1.40 × |
<!-- end pull -->

Words.
"""


def test_a_part_of_a_bench_leaves_the_other_lines_alone() -> None:
    rows = [harness.Row("many files", (3.0,), (2.0,), 1.3), harness.Row("many files, shaped", (2.0,), (2.0,))]
    page = run.put_rows(PAGE, "pull", rows)
    old, new = PAGE.splitlines(), page.splitlines()
    place = old.index("| many files | 1.40 × |")
    assert new[place : place + 2] == [
        "| many files | 1.50 × | ≤ 1.3 (**not met**) | 3.00 s / 2.00 s |",
        "| many files, shaped | 1.00 × | - | 2.00 s / 2.00 s |",
    ]
    assert new[:place] == old[:place]
    assert new[place + 2 :] == old[place + 1 :]
    assert run.put_rows(page, "pull", rows) == page


def test_a_part_has_no_section_of_its_own() -> None:
    with pytest.raises(LookupError, match="run the whole bench"):
        run.put_rows(PAGE, "attacks", [])


def test_what_does_not_end_is_said_with_the_time_it_was_given() -> None:
    row = harness.Endless("many files, to a slow one", (3.0,), (180.0,))
    assert row.markdown() == "| many files, to a slow one | < 0.02 × | - | 3.00 s / did not end within 3 min |"
    assert row.met
