# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Ports beside ssh's: asked for, mapped, found again, and no text of the provider taken for an endpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ports import (
    MOST_PORTS,
    flag_of,
    mapped_ports,
    ports_asked_in,
    ports_in,
)
from faulty_market import ORDER, FaultyMarket

ASKED = ("8080/tcp", "60000/udp")


def rent(market: FaultyMarket, ports: tuple[str, ...] = ASKED, **changes: Any) -> dict[str, Any]:
    wanted = replace(ORDER.wanted, direct_ports=1 + len(ports), **changes)
    return market.converge("started", offers=40, ports=ports, wanted=wanted)


def test_ports_are_mapped_and_stay_what_they_are(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    box = rent(market)["instance"]
    assert set(box["ports"]) == set(ASKED)
    numbers = [one["port"] for one in box["ports"].values()]
    assert len({*numbers, box["port"]}) == 3
    again = rent(market)
    assert (again["changed"], again["differs"], again["instance"]["ports"]) == (False, [], box["ports"])
    fewer = rent(market, ("8080/tcp",))
    assert fewer["differs"] == [{"name": "ports", "is": "8080/tcp, 60000/udp", "declared": "8080/tcp"}]


def test_the_box_is_told_where_its_ports_are(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    box = rent(market)["instance"]
    told = market.market.boxes._spec(market.market.books.instance(int(box["provider_id"]))).environment
    assert told["VAST_TCP_PORT_8080"] == str(box["ports"]["8080/tcp"]["port"])
    assert told["VAST_UDP_PORT_60000"] == str(box["ports"]["60000/udp"]["port"])


def test_offers_with_too_few_direct_ports_are_refused(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    books = market.market.books
    few = [one for one in market.offers() if books.machine_of_offer(one).direct_ports <= 2]
    desire = {"ports": ASKED, "wanted": replace(ORDER.wanted, direct_ports=3)}
    market.offers = lambda: few  # type: ignore[method-assign]
    with pytest.raises(TenantFailure, match="direct ports and 3 are wanted"):
        market.converge("started", **desire)
    assert not market.rows()


def test_no_two_boxes_have_a_port_and_none_survives_a_move(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    one = rent(market)["instance"]
    two = market.converge("started", offers=40, name="vast-b", ports=ASKED)["instance"]
    listed = [box["port"] for box in (one, two)]
    listed += [port["port"] for box in (one, two) for port in box["ports"].values()]
    assert len(set(listed)) == 6
    market.market.incidents.move_ports(int(one["provider_id"]))
    moved = rent(market)["instance"]
    assert not {port["port"] for port in moved["ports"].values()}.intersection(listed)


@pytest.mark.parametrize("given", [["0"], ["65536"], ["x"], ["80:80"], ["22"], ["8080/sctp"], ["-1"]])
def test_what_is_no_port(given: list[str]) -> None:
    with pytest.raises(TenantFailure) as caught:
        ports_in(given)
    assert caught.value.kind == "config"


def test_the_most_that_are_opened() -> None:
    assert len(ports_in(range(1000, 1000 + MOST_PORTS - 1))) == MOST_PORTS - 1
    with pytest.raises(TenantFailure, match="at most"):
        ports_in(range(1000, 1000 + MOST_PORTS))


def test_flags_are_those_of_the_markets_own_client() -> None:
    asked = ports_in(["8080", 8080, "53/udp"])
    assert asked == ("53/udp", "8080/tcp")
    flags = [flag_of(port) for port in asked]
    assert flags == ["-p 53:53/udp", "-p 8080:8080"]
    assert ports_asked_in(dict.fromkeys([*flags, "-p 22:22", "A"], "1")) == asked


@pytest.mark.parametrize(
    ("ports", "address"),
    [
        (None, "1.2.3.4"),
        ({"8080/tcp": None}, "1.2.3.4"),
        ({"8080/tcp": [{"HostPort": "x"}]}, "1.2.3.4"),
        ({"8080/tcp": [{"HostPort": "20000"}]}, "-oProxyCommand=id"),
        ({"8080/tcp": [{"HostPort": "20000"}]}, None),
        ({"8080/tcp; id": [{"HostPort": "20000"}]}, "1.2.3.4"),
        ({"22/tcp": [{"HostPort": "20000"}]}, "1.2.3.4"),
    ],
)
def test_no_text_of_the_provider_is_taken_for_an_endpoint(ports: Any, address: Any) -> None:
    assert mapped_ports({"ports": ports, "public_ipaddr": address}) == {}
