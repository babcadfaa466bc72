# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that is there and is not what is declared: shown and told, never mended in silence nor passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.vast.declared import differences
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box
from faulty_market import ORDER, FaultyMarket
from wire_market import WireMarket

HELD = replace(ORDER, onstart="echo hi", env={"A": "1", "SEED": "7"})

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def market(tmp_path: Path) -> FaultyMarket:
    made = FaultyMarket(tmp_path)
    made.converge("started", onstart=HELD.onstart, env=HELD.env)
    return made


def looked(market: FaultyMarket, check: bool = False, **changes: Any) -> dict[str, Any]:
    return market.converge("started", check=check, **{"onstart": HELD.onstart, "env": HELD.env, **changes})


def test_a_box_as_declared_differs_in_nothing(market: FaultyMarket) -> None:
    result = looked(market)
    assert (result["differs"], result["diff"]) == ([], {"before": {}, "after": {}})
    assert "warnings" not in result


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("changes", "name", "there", "declared"),
    [
        ({"image": "python:3.13"}, "image", "python:3.12", "python:3.13"),
        ({"image": f"python@{DIGEST}"}, "image", "python:3.12", f"python@{DIGEST}"),
        ({"disk_gb": 40.0}, "disk_gb", 20.0, 40.0),
        ({"wanted": replace(ORDER.wanted, market="on-demand")}, "market", "interruptible", "on-demand"),
        ({"onstart": "echo ho"}, "onstart", "a script of 7 characters", "a script of 7 characters"),
        ({"onstart": ""}, "onstart", "a script of 7 characters", "none"),
        ({"env": {"A": "1", "SEED": "8"}}, "env", "SEED set", "SEED set"),
        ({"env": {"A": "1", "SEED": "7", "B": "2"}}, "env", "B not set", "B set"),
        ({"env": {"A": "1"}}, "env", "SEED set", "SEED not set"),
    ],
)
def test_each_aspect_is_told_and_nothing_is_changed(
    market: FaultyMarket, check: bool, changes: dict[str, Any], name: str, there: Any, declared: Any
) -> None:
    before = market.rows()
    result = looked(market, check, **changes)
    assert result["differs"] == [{"name": name, "is": there, "declared": declared}]
    assert not result["changed"]
    assert result["diff"]["before"] == {name: there}
    assert f"declared: {declared}" in result["diff"]["after"][name]
    (warning,) = result["warnings"]
    assert warning.startswith(f"instance {result['instance']['provider_id']} is not what is declared")
    assert "harvest it and rent another" in warning
    assert {number: row["image_uuid"] for number, row in market.rows().items()} == {
        number: row["image_uuid"] for number, row in before.items()
    }


def test_values_of_the_environment_are_shown_nowhere(market: FaultyMarket) -> None:
    result = looked(market, env={"A": "s3cret-value", "SEED": "7"})
    assert [one["name"] for one in result["differs"]] == ["env"]
    assert "s3cret-value" not in repr(result)


def test_who_names_no_image_declares_no_box(market: FaultyMarket) -> None:
    assert looked(market, image="", disk_gb=99.0)["differs"] == []


@pytest.mark.parametrize(
    "image", ["docker.io/library/python:3.12", "library/python:3.12", "index.docker.io/python:3.12"]
)
def test_a_registry_that_goes_without_saying_is_no_difference(image: str) -> None:
    row = WireMarket().add("x", image_uuid=image)
    assert differences(to_box(row), ORDER) == []


def test_what_the_provider_does_not_say_is_not_known_to_differ() -> None:
    row = WireMarket().add("x")
    del row["extra_env"]
    box = to_box(dict(row, image_uuid=None, disk_space=None))
    assert differences(box, HELD) == []
