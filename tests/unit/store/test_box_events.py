# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Events of a box are noted once for each machine, and every folder that was deployed to."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box_events import changes, roots_in

AT = "2026-11-22T09:00:00Z"


def noted(before: dict[str, Any], event: str, root: str = "", **detail: Any) -> dict[str, Any]:
    return changes(before, "7", event, AT, detail, root)


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ("admitted", {"admitted_at": AT, "admission": {"gpus": 2}}),
        ("rejected", {"rejected_at": AT, "rejection": {"gpus": 2}}),
        ("deploy_started", {"deploy_started_at": AT}),
    ],
)
def test_an_event_is_noted_once_for_each_machine(event: str, found: dict[str, Any]) -> None:
    assert noted({}, event, gpus=2) == found
    assert noted({"provider_id": "7", **found}, event, gpus=3) == {}
    assert noted({"provider_id": "8", **found}, event, gpus=2) == found


def test_every_folder_that_was_deployed_to_is_kept() -> None:
    record = {"provider_id": "7", **noted({}, "deploy_started", "/workspace/gpu-tenant")}
    assert roots_in(record) == ["/workspace/gpu-tenant"]
    assert noted(record, "deploy_started", "/workspace/gpu-tenant") == {}
    record.update(noted(record, "deploy_started", "/root/gpu-tenant"))
    assert roots_in(record) == ["/workspace/gpu-tenant", "/root/gpu-tenant"]
    assert record["deploy_started_at"] == AT
    another = noted({**record, "provider_id": "8"}, "deploy_started", "/data")
    assert another["tenant_roots"] == ["/data"], "another machine holds nothing of it"
    assert noted({}, "admitted", "/data") == {"admitted_at": AT, "admission": {}}
