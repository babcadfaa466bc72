# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A group of the inventory among the parts of a run is refused with the list that is meant."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import node_group
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

GROUPS = {"all": ["a", "b"], "pair": ["a", "b"], "a": ["a"]}


def act(parts: list[str], box: str = "a") -> dict[str, Any]:
    made: Any = node_group.ActionModule.__new__(node_group.ActionModule)
    variables = {"inventory_hostname": box, "hostvars": {"a": {}, "b": {}}, "groups": GROUPS}
    spec = {"id": "wide", "parts": parts, "nodes": {}}
    found: dict[str, Any] = made.act({"stage": "config", "run_spec": spec}, variables)
    return found


@pytest.mark.parametrize("parts", [["pair"], ["a", "pair"]])
def test_a_group_is_refused_with_its_boxes(parts: list[str]) -> None:
    with pytest.raises(TenantFailure, match="names pair among its parts, which is a group") as caught:
        act(parts)
    assert "parts: [a, b]" in caught.value.fix
    assert "nothing was rented" in caught.value.safe


def test_a_box_whose_group_has_its_name_is_a_box() -> None:
    assert act(["a", "b"]) == {"changed": False}
