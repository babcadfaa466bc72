# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``make soak``: many seeded sequences of operations and faults on a virtual clock, into docs/benchmarks.md.

``SOAK_SEQUENCES`` takes another number. Exit 1 when any rule was broken; the seeds that broke one are printed.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS.parent / "src"), str(TESTS.parent / "collections")]
sys.path[:0] = [str(TESTS / "unit" / "vast"), str(TESTS / "bench")]

from fault_sequence import (  # noqa: E402 - it lies beside the unit tests
    DEADLINE_S,
    LEAST_OPERATIONS,
    LEAST_STRUCK,
    RENTED_TWICE,
    RULES,
    Broken,
    Sequence,
    creates_are_repeated,
)
from harness import machine  # noqa: E402 - it lies beside the benches
from run import PAGE, put_section  # noqa: E402

SEQUENCES = int(os.environ.get("SOAK_SEQUENCES", "10000"))
CAUGHT_WITHIN = 500


@dataclass(frozen=True)
class Played:
    """What came of a sequence; ``broken`` is the rule that it broke, empty for none."""

    seed: int
    broken: str
    said: str
    operations: int
    struck: int
    refused: int
    converged_s: float
    processor_s: float


def played(seed: int) -> Played:
    begun = time.process_time()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        sequence = Sequence(Path(folder) / "market", seed)
        rule, said = "", ""
        try:
            sequence.play()
        except Broken as broken:
            rule, said = broken.rule, str(broken)
    return Played(
        seed,
        rule,
        said,
        len(sequence.operations),
        sequence.struck_in_all,
        sequence.refused,
        sequence.converged_s,
        time.process_time() - begun,
    )


def first_caught() -> int | None:
    """The first seed that notices a client which repeats its creates."""
    with creates_are_repeated():
        return next((seed for seed in range(CAUGHT_WITHIN) if played(seed).broken in RENTED_TWICE), None)


def report(all_played: Iterable[Played], caught: int | None) -> str:
    found = list(all_played)
    broken = Counter(one.broken for one in found)
    slowest = max(one.converged_s for one in found)
    cost_ms = 1000 * sum(one.processor_s for one in found) / len(found)
    rows = [
        ("sequences", f"{len(found):,}", "-"),
        ("operations", f"{sum(one.operations for one in found):,}", f"≥ {LEAST_OPERATIONS} a sequence"),
        ("faults that struck", f"{sum(one.struck for one in found):,}", f"≥ {LEAST_STRUCK} a sequence"),
        ("operations that failed and said what is safe", f"{sum(one.refused for one in found):,}", "-"),
        *((rule, str(broken[rule]), "0") for rule in RULES),
        ("slowest to converge after the last fault, virtual seconds", f"{slowest:.0f}", f"≤ {DEADLINE_S:.0f} a state"),
        ("first seed that catches a client which repeats its creates", str(caught), f"< {CAUGHT_WITHIN}"),
        ("processor milliseconds a sequence", f"{cost_ms:.0f}", "-"),
    ]
    lines = "".join(f"| {what} | {figure} | {wanted} |\n" for what, figure, wanted in rows)
    head = f"## Seeded sequences of operations and faults (`make soak`)\n\n{machine()}, {time.strftime('%B %Y')}.\n\n"
    return f"{head}| what | figure | bar |\n|---|---|---|\n{lines}"


def main() -> int:
    logging.disable()  # what each fault does is not news
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        found = pool.map(played, range(SEQUENCES), chunksize=50)
    caught = first_caught()
    text = report(found, caught)
    print(text, flush=True)
    PAGE.write_text(put_section(PAGE.read_text(encoding="utf-8"), "soak", text), encoding="utf-8")
    broken = [one for one in found if one.broken]
    for one in broken:
        print(f"seed {one.seed}: {one.said}", file=sys.stderr)
    few = [one.seed for one in found if one.operations < LEAST_OPERATIONS or one.struck < LEAST_STRUCK]
    return 1 if broken or few or caught is None else 0


if __name__ == "__main__":
    sys.exit(main())
