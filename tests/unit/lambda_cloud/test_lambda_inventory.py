# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What Lambda's inventory plugin shows of the account, from the in-process market."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import listed_boxes
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.api import LambdaClient
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.shown import SHOWN
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from vm_market import REGION, TYPE, VmMarket

ROOT = Path(__file__).parents[3]


@pytest.fixture
def market(tmp_path: Path) -> VmMarket:
    return VmMarket(tmp_path)


def asked(market: VmMarket, **more: Any) -> list[dict[str, Any]]:
    """The rows as the plugin caches them: plain JSON."""
    answer = listed_boxes.ask(market.vm_client(), SHOWN, **more)
    assert json.loads(json.dumps(answer)) == answer
    assert listed_boxes.is_usable(answer, market.vm_client())
    return list(answer["boxes"])


def test_a_declared_instance_an_orphan_and_a_stranger(market: VmMarket) -> None:
    ours = market.used()
    orphan = market.launch(name=str(new_stamp("digits", "box-b", 3)), region_name="us-west-1")
    found = listed_boxes.sort_out(asked(market), {"box-a": "digits"})
    ((name, row),) = found.declared.items()
    assert (name, row["provider_id"], row["instance_type"], row["region"]) == ("box-a", ours, TYPE, REGION)
    assert row["clocks"]["running_per_hour"] == row["price_per_hour"] > 0
    assert "no state of rest" in row["clocks"]["warning"]
    assert row["state"] == "running"
    connection = listed_boxes.connection_of(row, market.store)
    assert (connection["ansible_user"], connection["ansible_host"]) == (row["user"], row["host"])
    assert [each["provider_id"] for each in found.undeclared] == [orphan]
    assert listed_boxes.undeclared_name(found.undeclared[0]) == f"digits.box-b.g3.{orphan}"


def test_a_stranger_is_told_without_a_way_to_it(market: VmMarket) -> None:
    stranger = market.launch(name="somebody's own")
    (row,) = listed_boxes.sort_out(asked(market), {}).strangers
    assert (row["provider_id"], row["instance_type"]) == (stranger, TYPE)
    assert not {"host", "port", "user", "stamp", "hostname"} & set(row)


def test_one_that_was_shut_down_from_inside_shows_its_alert(market: VmMarket) -> None:
    market.shut_down(market.used())
    (row,) = asked(market)
    assert (row["state"], row["alert"]) == ("offline", True)
    assert row["clocks"]["running_per_hour"] > 0, "it bills on"


def test_of_two_generations_the_newer_counts_and_names_the_older(market: VmMarket) -> None:
    older = market.launch(name=str(new_stamp("digits", "box-a", 1)))
    newer = market.launch(name=str(new_stamp("digits", "box-a", 2)))
    found = listed_boxes.sort_out(asked(market), {"box-a": "digits"})
    assert found.declared["box-a"]["provider_id"] == newer
    assert [old["provider_id"] for old in found.declared["box-a"]["superseded"]] == [older]


def test_law_5_an_empty_list_is_an_error_unless_it_is_said_to_be_true(market: VmMarket) -> None:
    with pytest.raises(TenantFailure, match="no instance at all, in two answers"):
        asked(market)
    assert asked(market, allow_empty=True) == []


def test_the_plugin_says_what_it_is_and_its_documentation_what_its_client_does() -> None:
    """Its name is a word of Python, so that only a loader by name gets at it, as Ansible's is."""
    module = importlib.import_module("ansible_collections.tenant.gpu.plugins.inventory.lambda")
    plugin = module.InventoryModule
    assert (plugin.NAME, plugin.DRIVER, plugin.VARIABLE) == ("tenant.gpu.lambda", "lambda", "lambda_box")
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert options["plugin"]["choices"] == [plugin.NAME]
    assert options["api_url"]["default"] == LambdaClient.URL
    assert options["api_url"]["env"] == [{"name": LambdaClient.URL_VARIABLE}]
    assert LambdaClient.KEY_VARIABLE in str(options["api_key_file"]["description"])
    for document in yaml.safe_load_all(module.EXAMPLES):
        assert document["plugin"] == plugin.NAME


@pytest.mark.parametrize(("name", "taken"), [("lambda.yml", True), ("x.lambda.yaml", True), ("hosts.yml", False)])
def test_a_source_is_known_by_the_end_of_its_name(tmp_path: Path, name: str, taken: bool) -> None:
    module = importlib.import_module("ansible_collections.tenant.gpu.plugins.inventory.lambda")
    (tmp_path / name).write_text("plugin: tenant.gpu.lambda\n")
    assert module.InventoryModule().verify_file(str(tmp_path / name)) is taken
