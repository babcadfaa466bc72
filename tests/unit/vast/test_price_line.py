# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ``plan`` says that a run's inputs bill on the offer that would be rented: the very expression of the role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import input_sizes
from jinja2.nativetypes import NativeEnvironment

TASKS = Path(__file__).parents[3] / "roles" / "provision" / "tasks" / "predict.yml"
NAME = "Predict | Say what the box would download, and what that bills"


def task() -> dict[str, Any]:
    found = [each for each in yaml.safe_load(TASKS.read_text()) if each["name"] == NAME]
    assert len(found) == 1
    return dict(found[0])


def line(clocks: dict[str, Any], *sizes: int | None) -> str:
    """``msg`` of the task, for inputs of these sizes."""
    known = [{"dest": str(n), "bytes": size, "why": "", "source": "https"} for n, size in enumerate(sizes)]
    facts: dict[str, Any] = {
        "__provision_rental": {"would": {"clocks": clocks}},
        "__provision_inputs": {"total": input_sizes.total(known, None), "lines": []},
    }
    environment = NativeEnvironment()
    written = task()
    for name in ("__per_gb", "__price"):
        facts[name] = environment.from_string(written["vars"][name].strip()).render(facts)
    (told,) = environment.from_string(written["ansible.builtin.debug"]["msg"]).render(facts)
    return str(told)


GB = 10**9


def test_known_sizes_are_priced_by_the_offer() -> None:
    assert line({"download_per_gb": 0.012}, 40 * GB, 10 * GB) == "$0.6000 at $0.012 per GB"


def test_law_7_what_is_unknown_is_never_called_nothing() -> None:
    assert line({"download_per_gb": 0.02}, 5 * GB, None) == (
        "$0.1000 at $0.02 per GB, and what the inputs of unknown size bill"
    )
    assert line({}, 5 * GB) == "the offer does not say what a GB costs"
    assert line({"download_per_gb": None}, 5 * GB) == "the offer does not say what a GB costs"


def test_free_bandwidth_is_told_as_such() -> None:
    assert line({"download_per_gb": 0.0}, 5 * GB) == "$0.0000 at $0.0 per GB"


@pytest.mark.parametrize(
    ("price", "text"),
    [(0.012, "3 inputs: 50.000 GB and 1 of unknown size, at least $0.6000 of bandwidth"), (None, "1 of unknown size")],
)
def test_the_total_says_the_least_that_it_bills(price: float | None, text: str) -> None:
    found = [{"bytes": 40 * GB}, {"bytes": 10 * GB}, {"bytes": None}]
    assert input_sizes.total(found, price)["text"].endswith(text)


def test_it_is_said_in_a_plan_that_would_rent_and_only_there() -> None:
    assert task()["when"] == "__provision_inputs.total is defined"
    attempt = yaml.safe_load(TASKS.with_name("admit_or_bail.yml").read_text())
    (asking,) = [each for each in attempt if each.get("ansible.builtin.include_tasks") == "predict.yml"]
    assert asking["when"] == ["ansible_check_mode", "__provision_rental.would is defined"]
