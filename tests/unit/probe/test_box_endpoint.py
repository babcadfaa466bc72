# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.provider_list import ProviderList
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import parse_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box


def listed(number: int, generation: int = 1, name: str = "a1", **changes: Any) -> Box:
    row = {"id": number, "label": f"gt1/demo/{name}/g{generation}/0123456789abcdef"}
    known = dataclasses.replace(to_box(row), host="192.0.2.1", port=40000, user="root", state="running")
    return dataclasses.replace(known, **changes)


def located(*boxes: Box) -> dict[str, Any]:
    return box_endpoint.from_provider(boxes, "demo", "a1", "/usr/bin/python3", "root")


def test_the_newest_generation_is_current_and_the_rest_superseded() -> None:
    found = located(listed(9, 1), listed(7, 2), listed(8, 2), listed(5, 9, name="other"))
    assert (found["provider_id"], found["generation"], found["alias"]) == ("7", 2, "a1.g2")
    assert [old["provider_id"] for old in found["superseded"]] == ["8", "9"]


@pytest.mark.parametrize("state", ["stopped", "outbid", "loading", "scheduling", "exited"])
def test_a_box_that_does_not_run_has_no_address(state: str) -> None:
    found = located(listed(1, state=state))
    assert (found["host"], found["state"]) == (box_endpoint.NOWHERE, state)


@pytest.mark.parametrize("state", ["running", "offline", "unknown"])
def test_a_box_that_may_answer_keeps_its_address(state: str) -> None:
    assert located(listed(1, state=state))["host"] == "192.0.2.1"


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "x\ny", "$(x)", "{{ x }}"])
def test_an_address_is_checked_once_more_at_the_door(host: str) -> None:
    with pytest.raises(TenantFailure, match="cannot be one"):
        located(listed(1, host=host))


def test_without_an_api_the_inventory_is_believed() -> None:
    found = box_endpoint.from_inventory("a1", "192.0.2.7", 22, "kim", "/usr/bin/python3", 3)
    assert (found["provider_id"], found["alias"], found["state"]) == ("ssh:192.0.2.7:22", "a1.g3", "running")
    with pytest.raises(TenantFailure, match="the inventory gives the host"):
        box_endpoint.from_inventory("a1", "-oProxyCommand=x", 22, "kim", "", 1)


def test_a_generation_never_goes_back(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    assert box_endpoint.generation_without_provider(store, "demo", "a1", None) == 1
    store.update_box("demo", "a1", 4, provider_id="x")
    assert box_endpoint.generation_without_provider(store, "demo", "a1", None) == 4
    assert box_endpoint.generation_without_provider(store, "demo", "a1", 5) == 5
    with pytest.raises(TenantFailure, match="generation 4 of it is on record"):
        box_endpoint.generation_without_provider(store, "demo", "a1", 3)


def test_a_lost_store_does_not_take_a_generation_back(tmp_path: Path) -> None:
    store, results = StateStore(str(tmp_path / "empty")), str(tmp_path / "results")
    (tmp_path / "results/demo/r1/a1/g3").mkdir(parents=True)
    assert box_endpoint.generation_without_provider(store, "demo", "a1", None, results) == 3
    assert box_endpoint.generation_without_provider(store, "demo", "a1", 4, results) == 4
    with pytest.raises(TenantFailure, match="generation 3 of it is on record or at home"):
        box_endpoint.generation_without_provider(store, "demo", "a1", 2, results)
    assert box_endpoint.generation_without_provider(store, "demo", "a2", None, results) == 1


def test_a_list_that_contradicts_the_record_is_doubted(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    here = located(listed(1, 1))
    assert not box_endpoint.differs_from_record(store, "demo", "a1", here)
    store.update_box("demo", "a1", 1, provider_id="1")
    assert not box_endpoint.differs_from_record(store, "demo", "a1", here)
    assert box_endpoint.differs_from_record(store, "demo", "a1", located())
    store.update_box("demo", "a1", 2, provider_id="2")
    assert box_endpoint.differs_from_record(store, "demo", "a1", here)
    store.update_box("demo", "a1", 2, destroyed_at="2026-11-21T00:00:00Z")
    assert not box_endpoint.differs_from_record(store, "demo", "a1", here)


def test_two_names_for_one_machine() -> None:
    here = located(listed(1))
    box_endpoint.refuse_shared_machine("a1", here, [])
    with pytest.raises(TenantFailure, match="a2 and a1 reach the same machine, 192"):
        box_endpoint.refuse_shared_machine("a1", here, ["a2"])
    box_endpoint.refuse_shared_machine("a1", located(), ["a2"])


def test_the_providers_list_tells_of_two_names_at_one_endpoint() -> None:
    here = located(listed(1))
    boxes = [listed(1), listed(2, name="a2"), listed(3, name="a3", port=40001), listed(4, name="a4")]
    boxes.append(listed(5, name="a5", state="stopped"))
    assert box_endpoint.listed_at(boxes, "demo", "a1", here, ["a1", "a2", "a3", "a5"]) == ["a2"]


class Asked:
    """A provider that counts, on a clock that stands still until it is moved."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.times = 0
        self.boxes: list[Box] = [listed(1)]
        self.failure: TenantFailure | None = None
        self.shared = ProviderList(StateStore(str(folder)), "vast", "account", clock=lambda: self.now)

    def fetch(self) -> list[Box]:
        self.times += 1
        if self.failure:
            raise self.failure
        return self.boxes


def test_boxes_of_a_cluster_share_its_login_node_and_no_folder() -> None:
    place = box_endpoint.place
    assert place("login", "slurm", "/scratch/ada/one") != place("login", "slurm", "/scratch/ada/two")
    assert place("login", "slurm", "/scratch/ada/one") == place("login", "slurm", "/scratch/ada/one")
    assert place("10.0.0.1", "ssh-rental", "/one") == place("10.0.0.1", "ssh-rental", "/two")


def test_a_list_is_shared_until_it_is_too_old(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    first = asked.shared.get(asked.fetch, asked.now - 5)
    assert asked.shared.get(asked.fetch, asked.now - 5) == first
    assert asked.times == 1
    asked.now += 6
    asked.shared.get(asked.fetch, asked.now - 5)
    assert asked.times == 2


def test_a_box_comes_back_from_the_file_as_it_went_in(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.shared.get(asked.fetch, asked.now)
    (again,) = asked.shared.get(asked.fetch, asked.now).boxes
    assert again == listed(1)
    assert again.stamp == parse_stamp("gt1/demo/a1/g1/0123456789abcdef")
    assert asked.times == 1


def test_law_8_what_may_be_a_secret_of_a_box_is_not_written(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.boxes = [dataclasses.replace(listed(1), environment={"TOKEN": "s3cret"}, onstart="export TOKEN=s3cret")]
    asked.shared.get(asked.fetch, asked.now)
    assert asked.shared.get(asked.fetch, asked.now).boxes == [listed(1)]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "s3cret" in path.read_text()]


def test_a_failure_is_shared_too_and_then_forgotten(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.failure = TenantFailure("provider", "the provider is down", fix="wait")
    for _fork in range(3):
        with pytest.raises(TenantFailure, match="the provider is down"):
            asked.shared.get(asked.fetch, asked.now - 5)
    assert asked.times == 1
    asked.failure = None
    asked.now += 6
    assert asked.shared.get(asked.fetch, asked.now - 5).boxes


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": "gpu-tenant/provider-list/v1", "observed_at": 1000, "boxes": [{"x": 1}]}'],
)
def test_a_damaged_file_is_asked_for_anew(tmp_path: Path, text: str) -> None:
    asked = Asked(tmp_path)
    asked.shared.get(asked.fetch, asked.now)
    (path,) = (tmp_path / "cache").glob("*.json")
    path.write_text(text, encoding="utf-8")
    assert asked.shared.get(asked.fetch, asked.now).boxes == [listed(1)]
    assert json.loads(path.read_text())["observed_at"] == 1000.0


def test_a_list_from_the_future_is_not_believed(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.now = 5000.0
    asked.shared.get(asked.fetch, 0)
    asked.now = 1000.0
    asked.shared.get(asked.fetch, 0)
    assert asked.times == 2
