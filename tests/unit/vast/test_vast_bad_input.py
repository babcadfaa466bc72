# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Bad input and a market that refuses: a clear error, and nothing rented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.image_cuda import driver_problem
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import search
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Work
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order
from ansible_collections.tenant.gpu.plugins.module_utils.vast.search_query import COLUMNS, SETTINGS, check_query
from wire_market import WireMarket

from gpu_tenant.marketplace.filters import ALIASES, VIRTUAL
from gpu_tenant.marketplace.offers import generate, offer_row

WANTED = Constraints(min_disk_gb=20.0, price_cap=0.5)
ORDER = Order("digits", "vast-a", "python:3.12", 20.0, WANTED)
GONE = (
    404,
    {"success": False, "error": "invalid_args", "msg": "error 404/3603: no_such_ask Instance type by id 1"},
    {},
)
BROKE = (400, {"success": False, "error": "missing_billing", "msg": "Your account has no credit left."}, {})


def refused(market: WireMarket, folder: Path, offers: list[int], left: int = 0, **changes: Any) -> TenantFailure:
    """Renting fails, and neither a box nor a record of one is left beside the ``left`` that there were."""
    store = StateStore(str(folder / "state"))
    wanted = replace(WANTED, min_disk_gb=changes.get("disk_gb", WANTED.min_disk_gb))
    order = replace(ORDER, wanted=wanted, **changes)
    with pytest.raises(TenantFailure) as caught:
        converge(Account(market.client(), store, {}), Desire("present", order, offers))
    assert len(market.instances) == left
    assert store.last_generation("digits", "vast-a") == 0
    return caught.value


def test_an_offer_that_went_after_the_search(tmp_path: Path) -> None:
    failure = refused(WireMarket(), tmp_path, [1])
    assert failure.kind == "no_offer"
    assert "none of the 1 offers is on the market any more" in failure.what
    assert "search again" in failure.fix


def test_an_offer_that_goes_with_the_create(tmp_path: Path) -> None:
    market = WireMarket()
    market.offer(1)
    market.fault("PUT", "asks", answer=GONE)
    failure = refused(market, tmp_path, [1])
    assert failure.kind == "no_offer"
    assert "offer 1" in failure.what
    assert len(market.sent("PUT", "asks")) == 1, "a create is sent once"


@pytest.mark.parametrize(
    ("disk_gb", "words"),
    [
        (9.9, "disk_gb is 9.9 GB, and the market rents no disk below 10 GB"),
        (500.0, "has 200.0 GB of disk and 500.0 GB are wanted"),
    ],
)
def test_a_disk_that_cannot_be(tmp_path: Path, disk_gb: float, words: str) -> None:
    market = WireMarket()
    market.offer(1)
    assert words in refused(market, tmp_path, [1], disk_gb=disk_gb).what
    assert not market.sent("PUT", "asks")


def test_a_search_for_a_disk_that_cannot_be() -> None:
    market = WireMarket()
    market.offer(1)
    with pytest.raises(TenantFailure, match="min_disk_gb is 5 GB, and the market rents no disk below 10 GB"):
        search(market.client(), replace(WANTED, min_disk_gb=5.0), Work(), 5)
    assert not market.requests


def test_an_empty_balance(tmp_path: Path) -> None:
    market = WireMarket()
    market.offer(1)
    market.offer(2)
    market.fault("PUT", "asks", times=9, answer=BROKE)
    failure = refused(market, tmp_path, [1, 2])
    assert "no credit left" in failure.what
    assert failure.kind == "budget"
    assert "pay in" in failure.fix
    assert len(market.sent("PUT", "asks")) == 1, "no other offer cures an empty balance"


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key(tmp_path: Path, status: int) -> None:
    market = WireMarket()
    market.offer(1)
    answer = (status, {"success": False, "error": "auth_error", "msg": "Invalid user key"}, {})
    market.fault("GET", "instances", times=9, answer=answer)
    failure = refused(market, tmp_path, [1])
    assert failure.kind == "config"
    assert "refused the key" in failure.what
    assert not market.sent("PUT", "asks")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "auth_error", "Session expired. Please log in again."),
        (403, "", "Two-factor authentication required"),
        (401, "tfa_required", "2FA code required."),
    ],
)
def test_a_two_factor_login_that_ran_out(tmp_path: Path, status: int, code: str, said: str) -> None:
    market = WireMarket()
    market.offer(1)
    market.fault("GET", "instances", times=9, answer=(status, {"success": False, "error": code, "msg": said}, {}))
    failure = refused(market, tmp_path, [1])
    assert failure.kind == "config"
    assert "two-factor login" in failure.what
    assert "API key" in failure.fix
    assert not market.sent("PUT", "asks")
    assert len(market.requests) == 1, "waiting does not mend it"


@pytest.mark.parametrize(
    ("image", "cuda_max", "words"),
    [
        ("pytorch/pytorch:2.9.1-cuda13.0-cudnn9-runtime", 12.8, "the image has CUDA 13.0"),
        ("nvidia/cuda:12.8.1-base-ubuntu22.04", 12.4, "driver supports 12.4 at most"),
        ("docker.io/nvidia/cuda:12.8.1-base-ubuntu22.04", 12.4, "driver supports 12.4 at most"),
        ("pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel", 12.4, "driver supports 12.4 at most"),
        ("somebody/else:torch2.9-cu130@sha256:" + "a" * 64, 12.8, "the image has CUDA 13.0"),
        ("nvidia/cuda:12.4.1-base", None, "the host does not say what its driver supports"),
    ],
)
def test_an_image_whose_cuda_is_above_the_driver(
    tmp_path: Path, image: str, cuda_max: float | None, words: str
) -> None:
    market = WireMarket()
    market.offer(1, cuda_max_good=cuda_max)
    failure = refused(market, tmp_path, [1], image=image)
    assert failure.kind == "no_offer"
    assert words in failure.what
    assert not market.sent("PUT", "asks")


@pytest.mark.parametrize(
    ("image", "cuda_max"),
    [
        ("python:3.12", 11.8),
        ("pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime", 12.4),
        ("nvidia/cuda:12.4.1-base", 12.4),
        ("nvidia/cuda:11.8.0-base", 12.2),
        ("somebody/cuda9.9-tools:latest", 9.0),
    ],
)
def test_an_image_that_the_driver_runs(image: str, cuda_max: float) -> None:
    assert driver_problem(image, cuda_max) == ""


@pytest.mark.parametrize(
    ("offer", "words"),
    [({"verification": "unverified"}, "is not verified"), ({"direct_port_count": 0}, "has no direct port")],
)
def test_a_host_that_cannot_move_what_is_declared(tmp_path: Path, offer: dict[str, Any], words: str) -> None:
    market = WireMarket()
    market.offer(1, **offer)
    bulky = replace(WANTED, bulk_transfer=True)
    store = StateStore(str(tmp_path / "state"))
    with pytest.raises(TenantFailure, match=f"bulk_transfer is declared, and its host {words}") as caught:
        converge(Account(market.client(), store, {}), Desire("present", replace(ORDER, wanted=bulky), [1]))
    assert caught.value.kind == "no_offer"
    assert not market.instances
    assert not market.sent("PUT", "asks")
    with pytest.raises(TenantFailure, match=r"bulk_transfer \(verified, with a direct port\) excludes 1"):
        search(market.client(), bulky, Work(), 5)


@pytest.mark.parametrize("contrary", [{"verified": False}, {"direct_ports": 0}])
def test_bulk_transfers_from_hosts_that_cannot_is_no_wish(contrary: dict[str, Any]) -> None:
    with pytest.raises(TenantFailure, match="bulk_transfer needs verified hosts with a direct port") as caught:
        Constraints.from_options({"bulk_transfer": True, **contrary})
    assert caught.value.kind == "config"


def test_a_budget_without_room(tmp_path: Path) -> None:
    market = WireMarket()
    market.offer(1)
    market.add(str(new_stamp("digits", "other", 1)), dph_total=0.3, dph_base=0.3, is_bid=False)
    store = StateStore(str(tmp_path / "state"))

    def rent(budget: float, check_mode: bool = False) -> dict[str, Any]:
        desire = Desire("present", replace(ORDER, budget_per_hour=budget), [1])
        return converge(Account(market.client(), store, {}), desire, check_mode)

    for check_mode in (True, False):
        with pytest.raises(
            TenantFailure, match=r"on top of the \$0.3000 of 1 box is above the budget_per_hour"
        ) as caught:
            rent(0.5, check_mode)
        assert caught.value.kind == "budget"
        assert "budget_per_hour" in caught.value.fix
    assert not market.sent("PUT", "asks")
    assert rent(0.53)["instance"]["state"] == "running"


def test_a_budget_beside_a_box_of_unknown_price(tmp_path: Path) -> None:
    market = WireMarket()
    market.offer(1)
    other = market.add(str(new_stamp("digits", "other", 1)), dph_total=None, dph_base=None, is_bid=False)
    words = f"what instance {other['id']} of the project costs is not known"
    assert words in refused(market, tmp_path, [1], budget_per_hour=9.0, left=1).what


@pytest.mark.parametrize("budget", [0.0, -1.0, float("inf"), float("nan")])
def test_a_budget_that_cannot_be(tmp_path: Path, budget: float) -> None:
    market = WireMarket()
    market.offer(1)
    assert "budget_per_hour is" in refused(market, tmp_path, [1], budget_per_hour=budget).what


def test_no_key() -> None:
    with pytest.raises(TenantFailure) as caught:
        VastClient("", "http://127.0.0.1:1")
    assert caught.value.kind == "config"
    assert "key" in caught.value.what
    assert caught.value.fix


def test_the_longest_names_make_a_label_that_the_market_takes() -> None:
    assert len(str(new_stamp("p" * 63, "b" * 63, 10**9))) <= 256


@pytest.mark.parametrize(
    ("query", "what", "fix"),
    [
        ({"gpu_nam": {"eq": "RTX 4090"}}, "'gpu_nam' in query is no column", "did you mean 'gpu_name'?"),
        ({"reliabilty": {"gte": 0.9}}, "'reliabilty'", "did you mean 'reliability'?"),
        ({"inet_dwn": {"gte": 9}}, "'inet_dwn'", "did you mean 'inet_down'?"),
        ({"GPU_RAM": {"gte": 9}}, "'GPU_RAM'", "did you mean 'gpu_ram'?"),
        ({"xyzzy": {"eq": 1}}, "'xyzzy'", "there are the columns of an offer"),
        ({"gpu_ram": {"gtee": 9}}, "'gtee' in query is no operation on gpu_ram", "did you mean 'gte'?"),
    ],
)
def test_a_typo_in_the_query_is_named_with_the_nearest(query: dict[str, Any], what: str, fix: str) -> None:
    market = WireMarket()
    with pytest.raises(TenantFailure) as caught:
        search(market.client(), replace(WANTED, query=query), Work(), 5)
    assert caught.value.kind == "config"
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert not market.requests


def test_whatever_the_marketplace_can_filter_by_may_be_asked() -> None:
    row = offer_row(generate(0)[0], 1e9, 0.2, True, False, 5.0)
    filterable = {name for name, value in row.items() if not isinstance(value, dict)}
    decoration = {"logo", "webpage", "rn"}
    check_query({name: {"eq": 1} for name in (filterable | set(VIRTUAL) | set(ALIASES)) - decoration})
    check_query({"order": [["score", "desc"]], "geolocation": {"in": ["DE"]}, "verified": {}, "num_gpus": 2})
    assert not COLUMNS & SETTINGS
