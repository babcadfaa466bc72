# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whose receipt says that the work of a watched box is home, and what a look at it leaves on record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import power_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box

from gpu_tenant import decide
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.watched import Watched


def watched(folder: Path, variables: Mapping[str, Any] | None = None, **spec: Any) -> Watched:
    path = folder / "run.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "id": "digits",
                "command": ["true"],
                "artifacts": [{"glob": "m.json", "role": "metrics", "loader": "json"}],
                **spec,
            }
        )
    )
    known = {"tenant_project": "vision", "tenant_state_dir": str(folder / "state"), **(variables or {})}
    return Watched([BoxHost("node-b", known)], str(path))


@pytest.mark.parametrize(
    ("parts", "box", "counts"),
    [
        (["node-a", "node-b"], "node-a", False),
        (["node-a", "node-b"], "node-b", True),
        ([], "box-that-was-lost", True),
    ],
)
def test_a_share_of_another_box_says_nothing_of_this_ones(
    tmp_path: Path, parts: list[str], box: str, counts: bool
) -> None:
    (tmp_path / "code.py").touch()
    one = watched(tmp_path, parts=parts)
    path = StateStore(str(tmp_path / "state")).receipt_path("vision", "digits", box, 1)
    records.write_record(
        path, "receipt", {"complete": True, "box": box, "generation": 1, "spec_sha256": one.spec["spec_sha256"]}
    )
    assert [receipt["box"] for receipt in one._receipts()] == ([box] if counts else [])


def test_a_look_finds_the_stop_of_a_process_that_died_and_a_start_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "code.py").touch()
    one, store = watched(tmp_path), StateStore(str(tmp_path / "state"))
    stamp = new_stamp("vision", "node-b", 1)
    resting = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped"}
    store.update_box("vision", "node-b", 1, provider_id="7", stamp=str(stamp))
    power_record.note_stopping(store, BoxIdentity("vision", "node-b", 1, "7"), 0.0)

    def look(row: dict[str, str], asked_at: str) -> dict[str, Any]:
        item = to_box({"id": 7, "label": str(stamp), **row})
        one.take(Observation("node-b", asked_at, item.state, item, asked_at=asked_at))
        return store.read_box("vision", "node-b", 1) or {}

    assert look(resting, records.utc_now())["parked_at"]
    record = look(dict.fromkeys(resting, "running"), "2099-01-01T00:00:00Z")
    assert (record["parked_at"], record["started_at"]) == (None, "2099-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("verbs", "again", "bills"),
    [({"park": [{"verb": "stop"}]}, decide.HARVEST, False), ({"park": []}, decide.FINISH, True)],
)
def test_a_harvest_is_repeated_only_for_a_stop_that_there_is(
    tmp_path: Path, verbs: dict[str, Any], again: str, bills: bool
) -> None:
    """Lambda has none: what is home there bills until its end, which is said, and harvesting it again helps nobody."""
    (tmp_path / "code.py").touch()
    one = watched(tmp_path, {"platform_driver": "lambda", "platform_verbs": verbs})
    store, stamp = StateStore(str(tmp_path / "state")), new_stamp("vision", "node-b", 1)
    store.update_box("vision", "node-b", 1, provider_id="7", stamp=str(stamp), created_at="2026-11-21T00:00:00Z")
    complete = {"complete": True, "box": "node-b", "generation": 1, "verified_at": "2026-11-22T00:00:00Z"}
    receipt = {**complete, "spec_sha256": one.spec["spec_sha256"]}
    records.write_record(store.receipt_path("vision", "digits", "node-b", 1), "receipt", receipt)
    item = to_box({"id": 7, "label": str(stamp), **dict.fromkeys(("actual_status", "cur_state"), "running")})
    one.take(Observation("node-b", records.utc_now(), "running", item))
    action = one.judge("")
    assert (action.kind, "bills on" in action.why) == (again, bills)
