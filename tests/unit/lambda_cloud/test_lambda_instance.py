# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The driver of Lambda's instances against the marketplace: its litany, its capacity, its faults, its gate."""

from __future__ import annotations

import base64
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.actions import ALERT_GRACE_S
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.api import LambdaClient
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.desired import Desire, converge, list_vms
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import keeps_of
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from faulty_market import URL
from vm_market import BODY, ORDER, REGION, TYPE, VmMarket
from wire_market import KEY, Answer

from gpu_tenant.marketplace.lambda_cloud.routes import BASE
from gpu_tenant.marketplace.lambda_cloud.terms import INSTANCE, id_of, number_of

GIB = 1024**3
# A body that says its type, as a key of that type does.
OTHER_KEY = (
    f"ssh-ed25519 {base64.b64encode(bytes([0, 0, 0, 11]) + b'ssh-ed25519' + bytes([0, 0, 0, 32]) + b'k' * 32).decode()}"
)
STAMP = "gt1/digits/box-a/g1/0123456789abcdef"


@pytest.fixture
def market(tmp_path: Path) -> VmMarket:
    return VmMarket(tmp_path)


def test_the_litany(market: VmMarket) -> None:
    predicted = market.bring("started", check=True)
    assert predicted["changed"]
    would = predicted["would"]
    assert (would["instance_type"], would["region"], would["price_per_hour"]) == (TYPE, REGION, 0.80)
    assert market.vms() == []

    made = market.bring("started")
    assert made["changed"]
    vm = made["instance"]
    assert (vm["state"], vm["status"], vm["host"], vm["user"]) == ("running", "active", "127.0.0.1", "ubuntu")
    assert (vm["num_gpus"], vm["price_per_hour"], vm["alert"]) == (1, 0.80, False)
    assert made["diff"]["before"]["state"] == "absent"
    assert made["diff"]["after"]["generation"] == predicted["diff"]["after"]["generation"] == 1
    assert market.show(vm["provider_id"])["name"] == made["stamp"] == vm["stamp"]

    for state in ("present", "started"):
        again = market.bring(state)
        assert not again["changed"]
        assert again["instance"]["provider_id"] == vm["provider_id"]
    assert market.launches() == 1

    assert market.bring("absent", check=True)["gate"][0]["rule"] == "virgin"
    assert len(market.vms()) == 1
    gone = market.bring("absent")
    assert (gone["changed"], gone["instance"], gone["gate"][0]["rule"]) == (True, None, "virgin")
    assert market.vms() == []
    assert not market.bring("absent")["changed"]
    assert market.store.read_box("digits", "box-a", 1)["destroyed_at"]
    assert market.bring("started")["generation"] == 2


def test_a_stranger_s_instance_is_never_touched(market: VmMarket) -> None:
    stranger = market.launch(name="somebody's own")
    ours = market.used(deployed=False)
    shown = list_vms(market.vm_client(), "digits", None)
    assert ([vm["provider_id"] for vm in shown["instances"]], shown["unstamped"]) == ([ours], 1)
    market.bring("absent")
    assert market.listed() == [stranger]


def test_the_stamp_in_the_tag_counts_when_the_name_was_edited(market: VmMarket) -> None:
    ours = market.used()
    assert market.ask("POST", f"/instances/{ours}", {"name": "edited in the console"})[0] == 200
    assert market.bring("present")["instance"]["provider_id"] == ours


@pytest.mark.parametrize("check", [False, True])
def test_there_is_no_state_of_rest(market: VmMarket, check: bool) -> None:
    market.used()
    begun = len(market.sent)
    with pytest.raises(TenantFailure, match="no state of rest") as failure:
        market.bring("stopped", check=check)
    assert failure.value.kind == "config"
    assert "gpu-tenant approve destroy box-a, gpu-tenant teardown -l box-a" in failure.value.fix
    assert market.sent[begun:] == []
    assert len(market.vms()) == 1


# --- capacity ------------------------------------------------------------------------------------------------------


def test_it_waits_until_one_is_free(market: VmMarket) -> None:
    """LAM5."""
    market.inject("empty_list", "search", times=4)
    begun = market.clock()
    made = market.bring("started")
    assert made["instance"]["state"] == "running"
    assert 60 <= market.clock() - begun < 300
    assert market.launches() == 1
    assert market.store.last_generation("digits", "box-a") == 1


def test_a_lost_store_gives_no_machine_the_number_of_one_whose_results_are_home(
    market: VmMarket, tmp_path: Path
) -> None:
    (tmp_path / "results/digits/nightly/box-a/g2").mkdir(parents=True)
    account = market.account(results_dir=str(tmp_path / "results"))
    assert converge(account, Desire("started", ORDER), True)["diff"]["after"]["generation"] == 3
    assert converge(account, Desire("started", ORDER), False)["generation"] == 3


def test_a_region_that_is_sold_out_by_the_launch_is_no_failure_before_the_deadline(market: VmMarket) -> None:
    market.inject("no_capacity", "create", times=2)
    made = market.bring("started")
    assert (made["generation"], market.launches()) == (1, 3)
    assert len(market.vms()) == 1
    intents = [line["verb"] for line in Journal(market.store).lines() if line["kind"] == "intent"]
    assert intents == ["rent"] * 3


def test_a_launch_that_came_too_soon_was_refused_for_certain_and_is_tried_again(market: VmMarket) -> None:
    market.inject("rate_limited", "create", times=3)
    with pytest.raises(TenantFailure, match="nothing was rented"):
        market.bring("started", capacity_wait_s=0.0)
    assert market.store.read_box("digits", "box-a", 1) is None
    made = market.bring("started")
    assert (made["superseded"], made["generation"], len(market.vms())) == ([], 1, 1)


def test_it_stays_below_the_provider_s_rates(tmp_path: Path) -> None:
    market = VmMarket(tmp_path, rate_limits=True)
    client = LambdaClient(
        KEY, URL + BASE, opener=market, sleep=market.sleep, clock=market.clock, intervals=LambdaClient.INTERVALS
    )
    for _time in range(3):
        client.list_types()
    with pytest.raises(TenantFailure):
        client.launch({})
    client.launch(BODY)
    assert (market.launches(), len(market.vms())) == (2, 1)


@pytest.mark.parametrize("wait_s", [0.0, 90.0])
def test_the_deadline_of_capacity_ends_it(market: VmMarket, wait_s: float) -> None:
    market.inject("empty_list", "search", times=None)
    begun = market.clock()
    with pytest.raises(TenantFailure, match=f"no {TYPE} is free now") as failure:
        market.bring("started", capacity_wait_s=wait_s)
    assert failure.value.kind == "no_offer"
    assert "capacity_wait_s" in failure.value.fix
    assert wait_s <= market.clock() - begun < wait_s + 30
    assert market.launches() == 0
    assert market.store.read_box("digits", "box-a", 1) is None


def test_in_check_mode_nothing_is_waited_for(market: VmMarket) -> None:
    market.inject("empty_list", "search", times=None)
    begun = market.clock()
    would = market.bring("started", check=True)["would"]
    assert (would["price_per_hour"], would["region"]) == (None, "")
    assert "free" in would["problem"]
    assert market.clock() - begun < 10


def test_types_are_tried_in_their_order_and_regions_in_theirs(market: VmMarket) -> None:
    market.launch()
    market.launch()  # both gpu_1x_a6000
    made = market.bring("started", instance_types=(TYPE, "gpu_1x_h100_sxm5", "gpu_4x_a6000"), price_cap=5.0)
    assert made["instance"]["instance_type"] == "gpu_1x_h100_sxm5"
    market.bring("absent")
    wanted = {"instance_types": ("gpu_4x_a6000",), "price_cap": 5.0}
    made = market.bring("started", regions=("us-east-1", "asia-northeast-2", "us-west-3"), **wanted)
    assert made["instance"]["region"] == "asia-northeast-2"


# --- file systems --------------------------------------------------------------------------------------------------


def test_a_file_system_is_attached_at_launch_in_its_region_and_bills_on(market: VmMarket) -> None:
    """LAM2, LAM6."""
    data = market.file_system("data", "us-west-3")
    types = {"instance_types": (TYPE, "gpu_1x_h100_sxm5"), "price_cap": 5.0}
    made = market.bring("started", file_systems=("data",), **types)
    vm = made["instance"]
    # the first type is free, but not where the file system lies
    assert (vm["instance_type"], vm["region"]) == ("gpu_1x_h100_sxm5", "us-west-3")
    assert (vm["file_systems"], vm["mount_points"]) == (["data"], ["/lambda/nfs/data"])
    market.put(data, "checkpoint", 36 * GIB)
    gone = market.bring("absent")
    (left,) = gone["file_systems"]
    assert (left["name"], left["region"], left["in_use"], left["gib"]) == ("data", "us-west-3", False, 36.0)
    assert left["price_per_hour"] == pytest.approx(36 * 0.20 / 720)
    assert market.ask("GET", "/file-systems")[1][0]["id"] == data["id"]  # never deleted
    assert list_vms(market.vm_client(), None, None)["file_systems"] == gone["file_systems"]


@pytest.mark.parametrize(
    ("order", "word"),
    [
        ({"file_systems": ("unknown",)}, "no file system 'unknown'; it has far"),
        ({"file_systems": ("here", "far")}, "lie apart"),
        ({"file_systems": ("far",), "regions": (REGION,)}, "lie in us-east-1"),
        ({"ssh_key": "unknown"}, "no ssh key 'unknown'; it has laptop"),
        ({"instance_types": ("gpu_1x_abacus",)}, "no instance type 'gpu_1x_abacus'; there are gpu_1x"),
    ],
)
def test_what_the_account_lacks_is_said_before_a_launch(market: VmMarket, order: dict[str, Any], word: str) -> None:
    market.file_system("here")
    market.file_system("far", "us-east-1")
    for check in (True, False):
        with pytest.raises(TenantFailure, match=word) as failure:
            market.bring("started", check=check, **order)
        assert failure.value.kind == "config"
        assert failure.value.box == "box-a"
    assert market.launches() == 0


def test_a_public_key_that_the_account_lacks_is_added_under_a_name_of_its_own(market: VmMarket, tmp_path: Path) -> None:
    file = tmp_path / "id.pub"
    file.write_text(f"{OTHER_KEY} me@home\n")
    order: dict[str, Any] = {"ssh_key": "", "public_key_file": str(file)}
    assert market.bring("started", check=True, **order)["would"]["problem"] == ""
    market.bring("started", **order)
    keys = {row["name"]: row["public_key"] for row in market.ask("GET", "/ssh-keys")[1]}
    (name,) = set(keys) - {"laptop"}
    assert name.startswith("gpu-tenant-")
    assert keys[name].split()[:2] == OTHER_KEY.split()
    (vm,) = market.vms()
    assert market.show(id_of(INSTANCE, vm["id"]))["ssh_key_names"] == [name]
    market.bring("started", **order, name="box-b")
    assert market.count("POST", "/ssh-keys$") == 1, "found by what it is"

    file.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    with pytest.raises(TenantFailure, match="is a private key"):
        market.bring("started", **order, name="box-c")
    assert market.launches() == 2


def test_a_file_system_is_waited_for_in_its_own_region_only(market: VmMarket) -> None:
    market.file_system("far", "us-east-1")
    with pytest.raises(TenantFailure, match=f"no {TYPE} is free in us-east-1 now"):
        market.bring("started", file_systems=("far",), capacity_wait_s=0.0)
    assert market.launches() == 0


# --- a launch that is lost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lost_answer"},
        {"kind": "garbled"},
        {"kind": "slow", "seconds": 60.0},
        {"kind": "server_error", "status": 500, "done": True},
        {"kind": "server_error", "status": 504, "done": True},
    ],
)
def test_a_launch_whose_answer_is_lost_is_found_by_its_stamp(market: VmMarket, fault: dict[str, Any]) -> None:
    market.inject(call="create", **fault)
    made = market.bring("started")
    assert len(market.vms()) == 1
    assert market.launches() == 1
    assert made["instance"]["state"] == "running"


@pytest.mark.parametrize("status", [403, 404, 408, 409, 499])
def test_an_empty_refusal_of_a_launch_that_took_effect_is_looked_into(market: VmMarket, status: int) -> None:
    opened = market.open

    def swapped(request: Any, timeout: float) -> Any:
        answer = opened(request, timeout)
        if not request.full_url.endswith("/instance-operations/launch"):
            return answer
        empty = Answer(status, b"", {})
        raise urllib.error.HTTPError(request.full_url, status, "refused", empty.headers, empty)

    market.open = swapped  # type: ignore[method-assign]
    made = market.bring("started")
    assert (len(market.vms()), market.launches()) == (1, 1)
    assert market.store.read_box("digits", "box-a", 1)["provider_id"] == made["instance"]["provider_id"]


@pytest.mark.parametrize("fault", [{"kind": "lost_request"}, {"kind": "server_error", "status": 500}])
def test_a_launch_that_never_arrived_is_not_repeated(market: VmMarket, fault: dict[str, Any]) -> None:
    market.inject(call="create", **fault)
    with pytest.raises(TenantFailure, match="nothing was rented") as failure:
        market.bring("started")
    assert failure.value.kind == "provider"
    assert market.launches() == 1
    assert market.store.read_box("digits", "box-a", 1)["provider_id"] == ""
    assert market.bring("started")["generation"] == 2


def test_a_launch_that_surfaces_late_is_ours_and_virgin(market: VmMarket) -> None:
    market.inject("lost_answer", "create")
    late = market.inject("empty_list", "list", times=None)
    with pytest.raises(TenantFailure, match="nothing was rented"):
        market.bring("started")
    market.request("DELETE", f"/control/faults/{late}", {})
    found = market.bring("started")
    assert (found["generation"], found["changed"], len(market.vms())) == (1, False, 1)
    assert market.bring("absent")["gate"][0]["rule"] == "virgin"


# --- lists that lie ------------------------------------------------------------------------------------------------


def test_an_instance_that_the_list_lacks_is_not_rented_twice(market: VmMarket) -> None:
    ours = market.used()
    market.inject("empty_list", "list", times=2)
    with pytest.raises(TenantFailure, match="which the provider still has"):
        market.bring("started")
    assert market.bring("started")["instance"]["provider_id"] == ours
    assert market.launches() == 1


@pytest.mark.parametrize("shape", ["no_list", "no_key", "no_ids"])
def test_a_malformed_list_is_an_error(market: VmMarket, shape: str) -> None:
    market.used()
    market.inject("malformed_list", "list", times=None, shape=shape)
    with pytest.raises(TenantFailure, match="nothing was concluded"):
        market.bring("started")


def test_an_empty_disk_on_our_side_finds_the_instance_and_does_not_take_it_for_virgin(
    market: VmMarket, tmp_path: Path
) -> None:
    ours = market.used()
    market.store = StateStore(str(tmp_path / "another"))
    assert market.bring("present")["instance"]["provider_id"] == ours
    with pytest.raises(TenantFailure) as failure:
        market.bring("absent")
    assert failure.value.kind == "gate_refused"


def test_a_terminated_instance_that_a_list_goes_on_showing_is_not_taken_for_one(market: VmMarket) -> None:
    market.used(deployed=False)
    market.inject("slow_destroy", "destroy", lingers="list", seconds=3600.0)
    market.bring("absent")
    assert len(market.listed()) == 1
    assert market.bring("started")["generation"] == 2


@pytest.mark.parametrize("kind", ["lost_answer", "lost_request", "server_error", "rate_limited", "garbled"])
@pytest.mark.parametrize("call", ["list", "show", "search", "keys", "volumes", "destroy"])
def test_every_other_call_survives_one_fault(market: VmMarket, kind: str, call: str) -> None:
    market.file_system()
    market.inject(kind, call)
    assert market.bring("started", file_systems=("data",))["instance"]["state"] == "running"
    market.bring("absent")
    assert market.vms() == []
    assert market.faults()[0]["struck"] == 1


def test_absent_waits_until_the_provider_says_gone_twice(market: VmMarket) -> None:
    """LAM14: a termination that was answered, or not, is no instance that is gone."""
    market.used(deployed=False)
    market.inject("slow_destroy", "destroy", seconds=30.0)
    begun = market.clock()
    market.bring("absent")
    assert market.clock() - begun >= 30
    assert market.terminations() == 1


def test_one_that_is_terminating_is_awaited_and_another_launched(market: VmMarket) -> None:
    ours = market.used(deployed=False)
    market.inject("slow_destroy", "destroy", seconds=30.0)
    market.operate("terminate", ours)
    begun = market.clock()
    assert market.bring("started")["generation"] == 2
    assert market.clock() - begun >= 30


# --- money ---------------------------------------------------------------------------------------------------------


def test_a_type_above_the_cap_is_never_launched(market: VmMarket) -> None:
    with pytest.raises(TenantFailure, match=r"costs \$0\.80 an hour, above the price_cap of \$0\.05") as failure:
        market.bring("started", price_cap=0.05)
    assert failure.value.kind == "no_offer"
    assert market.launches() == 0
    made = market.bring("started", instance_types=("gpu_8x_h100_sxm5", TYPE), price_cap=1.0)
    assert made["instance"]["instance_type"] == TYPE


def test_a_price_that_is_another_by_the_time_of_the_launch_is_given_back(
    market: VmMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = market.vm_client().list_types()
    types[TYPE]["instance_type"]["price_cents_per_hour"] = 10
    monkeypatch.setattr("ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.api.LambdaClient.list_types",
                        lambda _client: types)  # fmt: skip
    with pytest.raises(TenantFailure, match="was given back: it costs"):
        market.bring("started", price_cap=0.20)
    assert market.vms() == []
    assert "price_cap" in market.store.read_box("digits", "box-a", 1)["rejected"]["reason"]


def test_a_cap_that_was_lowered_leaves_the_instance_and_fails(market: VmMarket) -> None:
    market.used()
    with pytest.raises(TenantFailure, match="left as it is, and it bills") as failure:
        market.bring("present", price_cap=0.01)
    assert failure.value.kind == "budget"
    assert len(market.vms()) == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"instance_types": ()}, "instance_types"),
        ({"ssh_key": ""}, "ssh_key"),
        ({"price_cap": None}, "price_cap"),
        ({"price_cap": 0.0}, "price_cap"),
        ({"price_cap": float("inf")}, "price_cap"),
        ({"wait_s": 0.0}, "wait_s"),
        ({"file_systems": ("data", "data")}, "twice"),
        ({"project": "p" * 40}, "at most 64"),
    ],
)
def test_bad_orders_are_refused_before_anything_is_rented(market: VmMarket, changes: dict[str, Any], word: str) -> None:
    for check in (True, False):
        with pytest.raises(TenantFailure, match=word) as failure:
            market.bring("started", check=check, **changes)
        assert failure.value.kind == "config"
    assert market.launches() == 0


# --- instances that are not well -----------------------------------------------------------------------------------


def test_a_new_instance_that_sticks_is_given_back(market: VmMarket) -> None:
    market.inject("stuck_loading", "create")
    with pytest.raises(TenantFailure, match=r"given back: instance .* is still loading"):
        market.bring("started")
    assert market.vms() == []


def test_a_shutdown_from_inside_is_told_and_restarted_only_when_asked(market: VmMarket) -> None:
    """LAM3."""
    ours = market.used()
    market.shut_down(ours)
    begun = market.clock()
    with pytest.raises(TenantFailure, match=r"unhealthy \(Alert\)") as failure:
        market.bring("started")
    assert market.clock() - begun >= ALERT_GRACE_S
    assert "restart_unhealthy" in failure.value.fix
    assert "bill" in failure.value.fix
    shown = list_vms(market.vm_client(), "digits", "box-a")["instances"][0]
    assert (shown["status"], shown["alert"], shown["state"]) == ("unhealthy", True, "offline")
    assert market.bring("started", check=True, restart_unhealthy=True)["gate"][0]["rule"] == "keeps_disk"
    again = market.bring("started", restart_unhealthy=True)
    assert (again["changed"], again["instance"]["state"], again["generation"]) == (True, "running", 1)
    assert not market.bring("started", restart_unhealthy=True)["changed"]
    assert market.count("POST", "/instance-operations/restart$") == 1


def test_one_that_is_unheard_for_a_moment_is_waited_for(market: VmMarket) -> None:
    market.used()
    market.inject("host_offline", "list", seconds=60.0)
    assert market.bring("started")["instance"]["status"] == "active"


def test_a_restart_whose_answer_is_lost_is_not_sent_again(market: VmMarket) -> None:
    ours = market.used()
    market.shut_down(ours)
    market.inject("lost_answer", "reboot")
    with pytest.raises(TenantFailure, match="may have had its effect"):
        market.bring("started", restart_unhealthy=True)
    assert market.count("POST", "/instance-operations/restart$") == 1
    assert market.bring("started")["instance"]["status"] == "active"


# --- the gate ------------------------------------------------------------------------------------------------------


def test_a_used_instance_is_not_terminated_without_evidence(market: VmMarket) -> None:
    market.file_system()
    market.used(file_systems=("data",))
    for check in (True, False):
        with pytest.raises(TenantFailure) as failure:
            market.bring("absent", check=check)
        assert failure.value.kind == "gate_refused"
    assert market.terminations() == 0


@pytest.mark.parametrize("keeps", [{"destroy": ["disk"]}, {"destroy": ["disk", "file_system"]}, {"reboot": []}])
def test_no_variable_opens_the_gate(market: VmMarket, keeps: dict[str, Any]) -> None:
    market.used()
    vm = market.account().locate("digits", "box-a").current
    assert vm is not None
    with pytest.raises(TenantFailure, match="is refused"):
        market.account(keeps=keeps_of(keeps)).destroy(vm)
    assert market.terminations() == 0


def test_a_sealed_instance_goes_with_an_approval_which_is_used_once(market: VmMarket) -> None:
    market.used()
    market.seal()
    with pytest.raises(TenantFailure, match="nobody approved"):
        market.bring("absent")
    market.approve()
    gone = market.bring("absent")
    assert (gone["gate"][0]["rule"], gone["gate"][0]["approver"]) == ("standing_approval", "ada")
    assert market.vms() == []
    intents = [line for line in Journal(market.store).lines() if line["kind"] == "intent"]
    assert [(line["verb"], line["platform"]) for line in intents] == [("rent", "lambda"), ("destroy", "lambda")]


def test_law_2_an_instance_that_changes_while_the_evidence_is_read_is_kept(
    market: VmMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = market.used()
    market.seal()
    market.approve()
    gather = gate.gather

    def slow(*args: Any, **keywords: Any) -> Any:
        found = gather(*args, **keywords)
        market.shut_down(ours)
        return found

    monkeypatch.setattr(gate, "gather", slow)
    with pytest.raises(TenantFailure, match="turned from running to offline while the evidence was read"):
        market.bring("absent")
    assert market.terminations() == 0


def test_two_instances_of_one_name_are_judged_before_one_is_touched(market: VmMarket) -> None:
    market.used(deployed=False)
    market.launch(name=STAMP.replace("g1", "g2"))
    with pytest.raises(TenantFailure) as failure:
        market.bring("absent")
    assert failure.value.kind == "gate_refused"
    assert len(market.vms()) == 2
    shown = market.bring("present")
    assert (shown["generation"], len(shown["superseded"])) == (2, 1)
    first = shown["superseded"][0]["provider_id"]
    assert market.bring("absent", provider_id=first)["gate"][0]["rule"] == "virgin"
    assert len(market.vms()) == 1


def test_an_instance_that_somebody_renamed_to_another_stamp_is_not_terminated(market: VmMarket) -> None:
    ours = market.used(deployed=False)
    vm = market.account().locate("digits", "box-a").current
    assert vm is not None
    books = market.market.books
    instance = books.instance(number_of(INSTANCE, ours))
    assert instance.vm is not None
    books.put(replace(instance, vm=replace(instance.vm, name="gt1/digits/box-b/g1/0123456789abcdef")))
    with pytest.raises(TenantFailure, match="no longer carries the stamp"):
        market.account().destroy(vm)
    assert market.terminations() == 0


def test_law_5_one_answer_that_an_instance_is_not_there_does_not_close_its_record(market: VmMarket) -> None:
    ours = market.used()
    market.hidden = 1
    with pytest.raises(TenantFailure) as failure:
        market.bring("absent")
    assert failure.value.kind == "gate_refused", "it is there and holds results, so the gate is asked"
    assert market.store.read_box("digits", "box-a", 1)["destroyed_at"] is None
    assert market.bring("present")["instance"]["provider_id"] == ours
