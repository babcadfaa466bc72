# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Attack by level by format, the manifest withheld: what each level finds by itself. Not a timing.

``ATTACK_FLIPS`` bits are flipped in each format, one at a time, at random places from a seed; 1000 if not given.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "collections"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "unit" / "evidence"))

import attack_fixtures as attacks
from ansible_collections.tenant.gpu.plugins.module_utils.load_checks import LEVELS
from attack_fixtures import Specimen
from harness import Row

TITLE = "Attacks on checkpoints, the manifest withheld"
_NOTE = """
Found of all, by each level alone; levels are cumulative. *Unfound* is what no level found, and *changed* how many of
those read otherwise than before: a flipped bit in the padding of a zip file changes nothing, one in the
plain numbers of safetensors or JSON changes a number and only a hash can know. With the manifest everything is found.
"""


def rows() -> list[Row]:
    """No timing here."""
    return []


def text() -> str:
    lines = [
        "| attack | format | structure | load | expect | unfound, changed | with the manifest |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for attack, whole, variants in _attacks(Path(scratch)):
            folder = Path(tempfile.mkdtemp(dir=scratch))
            lines.append(_line(attack, whole, variants, folder))
    return _NOTE + "\n" + "\n".join(lines) + "\n"


def _attacks(scratch: Path) -> list[tuple[str, Specimen, list[Specimen]]]:
    whole = attacks.specimens(scratch / "whole")
    older = attacks.specimens(scratch / "older", step=300)
    flips = int(os.environ.get("ATTACK_FLIPS", "1000"))
    ranks = attacks.two_ranks(_made(scratch / "ranks"))
    found = []
    for name, specimen in whole.items():
        found += [
            ("cut at every 1/64 of each file", specimen, list(attacks.truncated(specimen))),
            (f"one bit flipped, {flips} places", specimen, list(attacks.flipped(specimen, flips))),
            ("file of an older step, same size", specimen, [attacks.stale(specimen, older[name])]),
            ("NaN in one tensor", specimen, [attacks.with_nan(specimen, _made(scratch / f"nan-{name}"))]),
        ]
    for specimen in (whole["hf"], ranks[100]):
        found.append(("each file missing", specimen, [specimen.without(name) for name in specimen.files][1:]))
    other = ranks[100].with_file("__1_0.distcp", ranks[200].files["__1_0.distcp"])
    return [*found, ("rank's file of another step", ranks[100], [other])]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _line(attack: str, whole: Specimen, variants: Sequence[Specimen], folder: Path) -> str:
    expect = {"metrics": ["loss"]} if whole.name == "json" else {}
    found = {level: attacks.found(variants, folder / level, level, **expect) for level in LEVELS}
    unfound = [number for number in range(len(variants)) if not any(caught[number] for caught in found.values())]
    original = attacks.content(whole, whole.written(folder / "whole"))
    changed = sum(attacks.content(variants[number], folder / "expect" / f"v{number}") != original for number in unfound)
    manifest = sum(attacks.found_by_manifest(whole, variants, folder / "manifest"))
    counts = " | ".join(f"{sum(found[level])} / {len(variants)}" for level in LEVELS)
    return f"| {attack} | {whole.name} | {counts} | {len(unfound)}, {changed} | {manifest} / {len(variants)} |"


if __name__ == "__main__":
    print(text())
