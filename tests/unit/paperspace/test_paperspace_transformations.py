# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Rows of Paperspace's, some of which no provider should send."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.transformations import (
    address_left,
    clocks_of,
    drive_left,
    epoch_of,
    fits,
    machine_result,
    to_machine,
)
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import RESTING

STAMP = "gt1/digits/box-a/g1/0123456789abcdef"
ROW: dict[str, Any] = {
    "id": "psm9u09bwu5i", "name": STAMP, "state": "ready", "publicIp": "184.105.1.2", "publicIpType": "dynamic",
    "usageRate": 1.5, "storageRate": 0.01, "autoShutdownEnabled": True, "autoShutdownTimeout": 6,
    "lastStart": "2026-11-21T10:00:00.000Z",
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "state", "intended"),
    [
        ("off", "stopped", "stopped"),
        ("provisioning", "loading", "running"),
        ("starting", "loading", "running"),
        ("serviceready", "loading", "running"),
        ("ready", "running", "running"),
        ("restarting", "loading", "running"),
        ("upgrading", "loading", "running"),
        ("stopping", "loading", "stopped"),
        ("melting", "unknown", ""),
    ],
)
def test_every_state_of_the_schema_has_a_word_of_ours(status: str, state: str, intended: str) -> None:
    found = to_machine({**ROW, "state": status})
    assert (found.state, found.intended) == (state, intended)
    assert (found.state in RESTING) == (status == "off")


def test_a_machine_is_reached_at_its_address_on_port_22() -> None:
    found = to_machine(ROW)
    assert (found.host, found.port, found.user) == ("184.105.1.2", 22, "paperspace")
    assert to_machine({**ROW, "publicIp": None}).state == "loading"
    assert to_machine({**ROW, "state": "off"}).host == ""


@pytest.mark.parametrize("address", ["-oProxyCommand=id", "a b", 7, ["1.2.3.4"], {"ip": "1.2.3.4"}])
def test_law_8_an_address_that_cannot_be_one_is_no_host(address: Any) -> None:
    found = to_machine({**ROW, "publicIp": address})
    assert (found.host, found.endpoint_problem != "") == ("", True)


@pytest.mark.parametrize("value", [None, "", [], {}, "{{ 7 * 7 }}", -1, float("nan"), True])
@pytest.mark.parametrize("name", sorted(set(ROW) - {"id"}))
def test_no_value_breaks_a_row(name: str, value: Any) -> None:
    shown = machine_result(to_machine({**ROW, name: value}), 1_800_000_000.0)
    assert shown["provider_id"] == ROW["id"]


def test_a_price_holds_the_disk_and_the_static_address_and_is_unknown_when_one_is() -> None:
    assert to_machine(ROW).dph_total == pytest.approx(1.51)
    static = to_machine({**ROW, "publicIpType": "static"})
    assert static.dph_total == pytest.approx(1.5145)
    assert static.storage_per_hour == pytest.approx(0.0145)
    assert to_machine({**ROW, "storageRate": None}).dph_total is None


def test_the_shutdown_is_foretold_by_the_provider_s_clock() -> None:
    start = epoch_of(ROW["lastStart"])
    assert start is not None
    clocks = clocks_of(to_machine(ROW), start + 3600)
    assert (clocks["auto_shutdown_at"], clocks["auto_shutdown_left_s"]) == ("2026-11-21T16:00:00Z", 5 * 3600)
    for changes in ({"state": "off"}, {"autoShutdownEnabled": False}, {"lastStart": None}, {"lastStart": "soon"}):
        assert clocks_of(to_machine({**ROW, **changes}), start)["auto_shutdown_at"] is None


def test_the_stamp_of_a_script_counts_where_the_name_has_none() -> None:
    assert str(to_machine({**ROW, "name": "x", "startupScripts": ["other", STAMP]}).stamp) == STAMP
    assert to_machine({**ROW, "name": "x", "startupScripts": ["other", 7]}).stamp is None


def test_what_is_left_is_told_with_what_is_known_of_its_price() -> None:
    address = address_left({"ip": "1.2.3.4", "region": "East Coast (NY2)"})
    assert (address.state, address.per_hour, address.box) == ("not assigned", 0.0045, "")
    drive = drive_left({"id": "sd1", "name": "d", "size": 720 * 1024**3})
    assert drive.per_hour == pytest.approx(0.29)
    assert drive_left({"id": "sd1"}).as_result()["price_per_hour"] is None


def test_a_template_says_on_which_types_it_is_available() -> None:
    """PS11: the driver of an H100 is in a template of Ubuntu 22.04 alone."""
    template = {"availableMachineTypes": [{"machineTypeLabel": "A6000", "isAvailable": True}]}
    assert (fits(template, "A6000"), fits(template, "H100"), fits({}, "H100")) == (True, False, None)
