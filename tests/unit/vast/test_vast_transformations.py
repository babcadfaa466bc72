# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Rows into words: states, stamps, endpoints."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.endpoint import check_endpoint
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import current_and_superseded, local_moment
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import (
    charges_by_box,
    state_of,
    to_box,
)
from hypothesis import given
from hypothesis import strategies as st
from wire_market import WireMarket

STAMP = new_stamp("digits", "vast-a", 3)
HOSTILE = [
    "-oProxyCommand=touch /tmp/x",
    "a b",
    "",
    "a;b",
    "$(id)",
    "{{ 7 * 7 }}",
    "a\nb",
    "fe80::1%eth0",
    "..",
    "a" * 254,
]


def row(**changes: Any) -> dict[str, Any]:
    return WireMarket().add(**{"label": str(STAMP), **changes})


@pytest.mark.parametrize(
    ("actual", "intended", "contract", "extra", "state"),
    [
        ("running", "running", "running", {}, "running"),
        (None, "running", "running", {}, "loading"),
        (None, "running", None, {}, "loading"),
        ("created", "running", "running", {}, "loading"),
        ("loading", "running", "running", {}, "loading"),
        ("rebooting", "running", "running", {}, "loading"),
        ("created", "running", "running", {"status_msg": "OCI runtime create failed: x"}, "exited"),
        ("exited", "running", "running", {}, "exited"),
        ("exited", "running", "stopped", {}, "scheduling"),
        ("exited", "stopped", "stopped", {}, "stopped"),
        ("stopped", "stopped", "stopped", {}, "stopped"),
        ("running", "stopped", "stopped", {}, "stopped"),
        ("exited", "stopped", "stopped", {"min_bid": 0.5}, "outbid"),
        ("exited", "stopped", "stopped", {"min_bid": 0.5, "is_bid": False}, "stopped"),
        ("exited", "stopped", "stopped", {"status_msg": "Outbid by another user"}, "outbid"),
        ("offline", "running", "running", {}, "offline"),
        ("unknown", "running", "running", {}, "unknown"),
        ("frozen", "running", "running", {}, "unknown"),
        ("exited", "stopped", "unloaded", {}, "unknown"),
        ("running", "running", "unloaded", {}, "unknown"),
    ],
)
def test_four_fields_make_one_word(
    actual: Any, intended: str, contract: Any, extra: dict[str, Any], state: str
) -> None:
    fields = {"actual_status": actual, "intended_status": intended, "cur_state": contract, **extra}
    assert state_of(row(**fields)) == state


@given(st.dictionaries(st.sampled_from(sorted(row())), st.none() | st.text() | st.integers() | st.lists(st.text())))
def test_no_row_breaks_the_listing(changes: dict[str, Any]) -> None:
    changes.pop("id", None)
    box = to_box(row(**changes))
    assert box.state in ("loading", "running", "stopped", "outbid", "scheduling", "exited", "offline", "unknown")
    if box.host:
        assert check_endpoint(box.host, box.port, box.user) == (box.host, box.port, box.user)


@pytest.mark.parametrize("moment", [-1e308, 1e308, 0, -5, "now", float("nan"), True])
def test_a_moment_that_no_clock_shows_is_not_known(moment: Any) -> None:
    box = to_box({"id": 1, "start_date": moment, "end_date": moment})
    assert (box.start_date, box.end_date) == (None, None)


def test_a_direct_port_wins_over_the_proxy() -> None:
    box = to_box(row())
    assert (box.host, box.port, box.user, box.proxy) == ("127.0.0.1", 20000, "root", False)
    box = to_box(row(ports={}))
    assert (box.host, box.port, box.proxy) == ("ssh5.vast.ai", 20001, True)
    box = to_box(row(ports={}, image_runtype="jupyter_proxy ssh_proxy"))
    assert box.port == 20002
    assert to_box(row(ports=None, ssh_host=None)).host == ""


@pytest.mark.parametrize("host", [text for text in HOSTILE if text])
@pytest.mark.parametrize("where", ["public_ipaddr", "ssh_host"])
def test_a_hostile_host_never_becomes_one(host: str, where: str) -> None:
    changes: dict[str, Any] = {where: host}
    if where == "ssh_host":
        changes["ports"] = {}
    box = to_box(row(**changes))
    assert (box.host, box.port) == ("", 0)
    assert "host" in box.endpoint_problem
    assert box.stamp == STAMP, "it is still seen, so that it can be destroyed"


@pytest.mark.parametrize("host", HOSTILE)
def test_endpoint_hosts(host: str) -> None:
    with pytest.raises(TenantFailure) as caught:
        check_endpoint(host, 22, "root")
    assert caught.value.kind == "provider"


@pytest.mark.parametrize("port", [0, -1, 65536, "22 -v", "0x16", "٢٢", True, None, 22.0, "022"])
def test_endpoint_ports(port: Any) -> None:
    with pytest.raises(TenantFailure, match="port"):
        check_endpoint("a.example", port, "root")


@pytest.mark.parametrize("user", ["-l", "root -v", "", None, "a/b", "r" * 33, "root\n"])
def test_endpoint_users(user: Any) -> None:
    with pytest.raises(TenantFailure, match="user"):
        check_endpoint("a.example", 22, user)


def test_good_endpoints() -> None:
    assert check_endpoint("ssh5.vast.ai", "40022", "root") == ("ssh5.vast.ai", 40022, "root")
    assert check_endpoint("2001:db8::1", 22, "vastai_kaalia") == ("2001:db8::1", 22, "vastai_kaalia")
    assert check_endpoint("connect.westb.seetacloud.com", 1, "u.x-y")[2] == "u.x-y"


@given(st.text(max_size=60))
def test_whatever_passes_is_no_option_and_no_shell(text: str) -> None:
    try:
        host, _port, user = check_endpoint(text, 22, text or "root")
    except TenantFailure:
        return
    for word in (host, user):
        assert not word.startswith("-")
        assert not set(word) & set(" \t\n;&|$`'\"(){}<>\\%@/")


def test_the_stamp_is_found_in_the_environment_when_the_label_was_edited() -> None:
    assert to_box(row(label="my box", extra_env=[["TENANT_STAMP", str(STAMP)]])).stamp == STAMP
    assert to_box(row(label="my box", extra_env={"TENANT_STAMP": str(STAMP)})).stamp == STAMP
    assert to_box(row(label="gt1/digits/vast-a/g0/xyz", extra_env=None)).stamp is None


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 50)), max_size=8, unique_by=lambda pair: pair[1]),
    st.randoms(),
)
def test_every_controller_agrees_on_the_current_box(pairs: list[tuple[int, int]], chance: random.Random) -> None:
    boxes = [
        to_box(row(id=number, label=str(new_stamp("digits", "vast-a", generation)))) for generation, number in pairs
    ]
    boxes.append(to_box(row(id=99, label=str(new_stamp("digits", "other", 9)))))
    boxes.append(to_box(row(id=98, label=str(new_stamp("elsewhere", "vast-a", 9)))))
    boxes.append(to_box(row(id=97, label=None)))
    first = current_and_superseded(boxes, "digits", "vast-a")
    chance.shuffle(boxes)
    assert current_and_superseded(boxes, "digits", "vast-a") == first
    current, superseded = first
    if not pairs:
        assert first == (None, [])
        return
    assert current is not None
    assert len(superseded) == len(pairs) - 1
    for box in superseded:
        assert (box.generation, -int(box.provider_id)) < (current.generation, -int(current.provider_id))


def test_prices_are_unknown_rather_than_free() -> None:
    box = to_box(row(dph_total=None, storage_cost=None, min_bid="0.1", dph_base=float("nan")))
    assert (box.dph_total, box.storage_per_hour, box.min_bid, box.bid) == (None, None, None, None)
    assert to_box(row(storage_cost=0.36, disk_space=20.0)).storage_per_hour == pytest.approx(0.01)


def test_charges_add_up_by_instance_and_kind() -> None:
    charges = [
        {
            "source": "instance-5",
            "amount": 1.5,
            "items": [{"type": "gpu", "amount": 1.0}, {"type": "disk", "amount": 0.5}],
        },
        {"source": "instance-5", "amount": 0.5, "items": [{"type": "day", "items": [{"type": "gpu", "amount": 0.5}]}]},
        {"source": "volume-9", "amount": 3.0},
        {"source": "instance-6", "amount": None},
    ]
    assert charges_by_box(charges) == {"5": {"total": 2.0, "gpu": 1.5, "disk": 0.5}}


def test_a_providers_moment_moves_onto_our_clock() -> None:
    assert local_moment(None, 5.0) is None
    assert local_moment(5.0, None) is None
    skewed = local_moment(10_000.0, 10_060.0)
    assert skewed is not None
    assert skewed.startswith("20"), "an epoch of 1970 on the provider's clock is a minute ago on ours"
