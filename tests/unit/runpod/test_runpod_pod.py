# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The driver of RunPod's pods against the marketplace: its litany, its faults, its gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate, power_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import keeps_of
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.desired import Desire, converge, list_pods
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from pod_market import GPU, ORDER, PodMarket

from gpu_tenant.marketplace.instances import Phase
from gpu_tenant.marketplace.runpod.pods import DATA_CENTERS, GPU_TYPES
from gpu_tenant.marketplace.runpod.terms import number_of

POD = r"^/v[12]/pods/[a-z0-9]+$"


@pytest.fixture(params=["/v1", "/v2"])
def market(tmp_path: Path, request: pytest.FixtureRequest) -> PodMarket:
    """Every story is told in both versions of RunPod's REST."""
    return PodMarket(tmp_path, version=request.param)


def test_the_litany(market: PodMarket) -> None:
    predicted = market.bring("started", check=True)
    assert predicted["changed"]
    assert predicted["would"]["price_per_hour"] is None  # unknown is not 0
    assert predicted["would"]["clocks"]["stopped_per_hour"] == pytest.approx(36 * 0.20 / 720)
    assert market.pods() == []

    made = market.bring("started")
    assert made["changed"]
    pod = made["pod"]
    assert (pod["state"], pod["host"], pod["user"], pod["num_gpus"]) == ("running", "127.0.0.1", "root", 1)
    assert made["diff"]["before"]["state"] == "absent"
    assert made["diff"]["after"]["generation"] == predicted["diff"]["after"]["generation"] == 1
    assert market.show(pod["provider_id"])["env"]["TENANT_STAMP"] == made["stamp"] == pod["stamp"]

    told = [line for line in Journal(market.store).lines() if line["verb"] == "priced"]
    assert [(line["provider_id"], line["price_per_hour"]) for line in told] == [
        (pod["provider_id"], pod["price_per_hour"])
    ]

    for state in ("present", "started"):
        again = market.bring(state)
        assert not again["changed"]
        assert again["pod"]["provider_id"] == pod["provider_id"]
    assert market.count("POST", "^/v[12]/pods$") == 1

    assert market.bring("stopped", check=True)["changed"]
    stopped = market.bring("stopped")
    assert (stopped["changed"], stopped["pod"]["state"]) == (True, "stopped")
    assert stopped["gate"][0]["rule"] == "keeps_disk"
    assert stopped["pod"]["clocks"]["stopped_per_hour"] == pytest.approx(2 * 36 * 0.10 / 720)
    assert not market.bring("stopped")["changed"]
    assert not market.bring("present")["changed"]

    assert market.bring("started", check=True)["diff"]["after"] == {"state": "started"}
    started = market.bring("started")
    assert (started["changed"], started["pod"]["state"]) == (True, "running")
    assert started["pod"]["port"] != pod["port"]

    assert market.bring("absent", check=True)["gate"][0]["rule"] == "virgin"
    assert len(market.pods()) == 1
    gone = market.bring("absent")
    assert (gone["changed"], gone["pod"], gone["gate"][0]["rule"]) == (True, None, "virgin")
    assert market.pods() == []
    assert not market.bring("absent")["changed"]
    assert market.store.read_box("digits", "pod-a", 1)["destroyed_at"]
    assert market.bring("started")["generation"] == 2


def test_a_stranger_s_pod_is_never_touched(market: PodMarket) -> None:
    stranger = market.make(name="somebody's own")
    ours = market.used(deployed=False)
    shown = list_pods(market.pod_client(), "digits", None)
    assert ([pod["provider_id"] for pod in shown["pods"]], shown["unstamped"]) == ([ours], 1)
    market.bring("absent")
    assert [pod["id"] for pod in market.ask("GET", "/v1/pods")[1]] == [stranger["id"]]


def test_the_stamp_in_the_environment_counts_when_the_name_was_edited(market: PodMarket) -> None:
    ours = market.used()
    _rename(market, ours, "edited in the console")
    assert market.bring("present")["pod"]["provider_id"] == ours


def _rename(market: PodMarket, pod: str, name: str) -> None:
    books = market.market.books
    (instance,) = [one for one in books.state.instances.values() if one.pod is not None and one.live]
    assert instance.pod is not None
    books.put(replace(instance, pod=replace(instance.pod, name=name)))


# --- a create that is lost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lost_answer"},
        {"kind": "garbled"},
        {"kind": "slow", "seconds": 60.0},
        {"kind": "server_error", "status": 500, "done": True},  # the API's own: made, and then not read back
        {"kind": "server_error", "status": 504, "done": True},
    ],
)
def test_a_create_whose_answer_is_lost_is_found_by_its_stamp(market: PodMarket, fault: dict[str, Any]) -> None:
    market.inject(call="create", **fault)
    made = market.bring("started")
    assert len(market.pods()) == 1
    assert market.count("POST", "^/v[12]/pods$") == 1
    assert made["pod"]["state"] == "running"


@pytest.mark.parametrize("fault", [{"kind": "lost_request"}, {"kind": "server_error", "status": 500}])
def test_a_create_that_never_arrived_is_not_repeated(market: PodMarket, fault: dict[str, Any]) -> None:
    market.inject(call="create", **fault)
    with pytest.raises(TenantFailure, match="nothing was rented") as failure:
        market.bring("started")
    assert failure.value.kind == "provider"
    assert market.count("POST", "^/v[12]/pods$") == 1
    assert market.store.read_box("digits", "pod-a", 1)["provider_id"] == ""
    assert market.bring("started")["generation"] == 2


def test_a_create_that_surfaces_late_is_ours_and_virgin(market: PodMarket) -> None:
    market.inject("lost_answer", "create")
    late = market.inject("empty_list", "list", times=None)
    with pytest.raises(TenantFailure, match="nothing was rented"):
        market.bring("started")
    market.request("DELETE", f"/control/faults/{late}", {})
    found = market.bring("started")
    assert (found["generation"], found["changed"], len(market.pods())) == (1, False, 1)
    assert market.bring("absent")["gate"][0]["rule"] == "virgin"


def test_a_list_that_lags_behind_a_lost_create_is_not_the_end_of_it(market: PodMarket) -> None:
    market.inject("lost_answer", "create")
    market.inject("empty_list", "list", after=3, times=2)
    assert market.bring("started")["pod"]["state"] == "running"
    assert len(market.pods()) == 1


def test_without_capacity_it_says_so(market: PodMarket) -> None:
    with pytest.raises(TenantFailure, match="no longer any instances") as failure:
        market.bring("started", gpu_types=("NVIDIA B200",))
    assert failure.value.kind == "no_offer"
    assert market.store.read_box("digits", "pod-a", 1) is None
    assert market.pods() == []


def test_a_rate_limited_create_was_refused_for_certain(market: PodMarket) -> None:
    market.inject("rate_limited", "create")
    with pytest.raises(TenantFailure, match="nothing was rented"):
        market.bring("started")
    assert len(market.bring("started")["superseded"]) == 0


# --- lists that lie ------------------------------------------------------------------------------------------------


def test_a_pod_that_the_list_lacks_is_not_rented_twice(market: PodMarket) -> None:
    ours = market.used()
    market.inject("empty_list", "list", times=2)
    with pytest.raises(TenantFailure, match="which the provider still has"):
        market.bring("started")
    assert market.bring("started")["pod"]["provider_id"] == ours
    assert market.count("POST", "^/v[12]/pods$") == 1


@pytest.mark.parametrize("shape", ["no_list", "no_key", "no_ids"])
def test_a_malformed_list_is_an_error(market: PodMarket, shape: str) -> None:
    market.used()
    market.inject("malformed_list", "list", times=None, shape=shape)
    with pytest.raises(TenantFailure, match="nothing was concluded"):
        market.bring("started")


def test_an_empty_disk_on_our_side_finds_the_pod_and_does_not_take_it_for_virgin(
    market: PodMarket, tmp_path: Path
) -> None:
    ours = market.used()
    market.store = StateStore(str(tmp_path / "another"))
    assert market.bring("present")["pod"]["provider_id"] == ours
    with pytest.raises(TenantFailure) as failure:
        market.bring("absent")
    assert failure.value.kind == "gate_refused"


def test_a_terminated_pod_that_a_list_goes_on_showing_is_not_taken_for_one(market: PodMarket) -> None:
    market.used(deployed=False)
    market.inject("slow_destroy", "destroy", lingers="list", seconds=3600.0)
    market.bring("absent")
    assert len(market.ask("GET", "/v1/pods")[1]) == 1
    assert market.bring("started")["generation"] == 2


@pytest.mark.parametrize("kind", ["lost_answer", "lost_request", "server_error", "rate_limited", "garbled"])
@pytest.mark.parametrize("call", ["list", "show", "change", "destroy"])
def test_every_other_call_survives_one_fault(market: PodMarket, kind: str, call: str) -> None:
    market.inject(kind, call)
    for state, seen in (("started", "running"), ("stopped", "stopped"), ("started", "running")):
        assert market.bring(state)["pod"]["state"] == seen
    market.bring("absent")
    assert market.pods() == []
    assert market.faults()[0]["struck"] == 1


def test_absent_waits_until_the_provider_says_gone_twice(market: PodMarket) -> None:
    market.used(deployed=False)
    market.inject("slow_destroy", "destroy", seconds=30.0)
    begun = market.clock()
    market.bring("absent")
    assert market.clock() - begun >= 30
    assert market.count("DELETE", POD) == 1


def test_only_a_machine_whose_driver_runs_the_image_is_taken(market: PodMarket) -> None:
    """RP9."""
    with pytest.raises(TenantFailure) as failure:
        market.bring("started", cuda_versions=("9.0",))
    assert failure.value.kind == "no_offer"
    assert market.pods() == []
    books = market.market.books
    cards = [one for one in books.machines if one.hosting_type == 0 and one.model.name == "RTX 4090"]
    newest = max(one.cuda for one in cards)
    ours = market.bring("started", cuda_versions=(f"{newest:.1f}",))["pod"]["provider_id"]
    assert books.machine_of(number_of(ours)).cuda == newest


def test_law_5_one_answer_that_a_pod_is_not_there_does_not_close_its_record(market: PodMarket) -> None:
    ours = market.used()
    market.hidden = 1
    with pytest.raises(TenantFailure) as failure:
        market.bring("absent")
    assert failure.value.kind == "gate_refused", "it is there and holds results, so the gate is asked"
    assert market.store.read_box("digits", "pod-a", 1)["destroyed_at"] is None
    assert market.bring("present")["pod"]["provider_id"] == ours


# --- money ---------------------------------------------------------------------------------------------------------


def test_a_pod_above_the_cap_is_given_back(market: PodMarket) -> None:
    with pytest.raises(TenantFailure, match="above the price_cap of") as failure:
        market.bring("started", price_cap=0.05)
    assert failure.value.kind == "no_offer"
    assert market.pods() == []
    record = market.store.read_box("digits", "pod-a", 1)
    assert "price_cap" in record["rejected"]["reason"]
    assert record["destroyed_at"]


def test_a_cap_that_was_lowered_leaves_the_pod_and_fails(market: PodMarket) -> None:
    market.used()
    with pytest.raises(TenantFailure, match="left as it is") as failure:
        market.bring("present", price_cap=0.01)
    assert failure.value.kind == "budget"
    market.bring("stopped")
    assert not market.bring("present", price_cap=0.01)["changed"]
    with pytest.raises(TenantFailure, match="price_cap"):
        market.bring("started", price_cap=0.01)


def test_a_pod_that_comes_up_above_the_cap_is_stopped_again(market: PodMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = market.used()
    market.bring("stopped")
    _dearer_at_start(market, monkeypatch)
    with pytest.raises(TenantFailure, match=r"costs \$9.* above the price_cap of") as failure:
        market.bring("started")
    assert (failure.value.kind, failure.value.box) == ("budget", "pod-a")
    assert "stopped again" in failure.value.safe
    assert market.show(ours)["desiredStatus"] == "EXITED"
    record = power_record.read(market.store, market.identity())
    assert record is not None
    assert record["parked_at"]
    stops = [line for line in Journal(market.store).lines() if (line["kind"], line["verb"]) == ("intent", "stop")]
    assert len(stops) == 2, "it went through the gate like any stop"


def test_a_pod_above_the_cap_that_may_not_be_stopped_says_that_it_bills(
    market: PodMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = market.used()
    market.bring("stopped")
    _dearer_at_start(market, monkeypatch)
    account = market.account(keeps=keeps_of({"stop": []}))
    with pytest.raises(TenantFailure, match="above the price_cap of") as failure:
        converge(account, Desire("started", ORDER), False)
    assert failure.value.kind == "budget"
    assert "runs on and bills" in failure.value.safe
    assert "is refused" in failure.value.safe
    assert market.show(ours)["desiredStatus"] == "RUNNING"


def _dearer_at_start(market: PodMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an hour costs is known once the pod runs."""
    sent = market.open

    def dearer(request: Any, timeout: float) -> Any:
        if request.get_method() == "POST" and request.full_url.endswith(("/start", "/action")):
            books = market.market.books
            (instance,) = [one for one in books.state.instances.values() if one.pod is not None and one.live]
            assert instance.pod is not None
            books.put(replace(instance, pod=replace(instance.pod, gpu_price=9.0)))
        return sent(request, timeout)

    monkeypatch.setattr(market, "open", dearer)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"image": ""}, "image"),
        ({"gpu_types": ()}, "gpu_types"),
        ({"price_cap": None}, "price_cap"),
        ({"price_cap": 0.0}, "price_cap"),
        ({"price_cap": float("inf")}, "price_cap"),
        ({"volume_gb": 0}, "wiped by a stop"),
        ({"gpu_count": 0}, "gpu_count"),
        ({"ports": ("80/tcp", "80/http")}, "ports"),
        ({"ports": ("80",)}, "ports"),
        ({"env": {"TENANT_STAMP": "gt1/other"}}, "ours"),
        ({"env": {"KEY": "x k3y-that-must-never-be-seen"}}, "API key"),
        ({"start_command": ("k3y-that-must-never-be-seen",)}, "API key"),
    ],
)
def test_bad_orders_are_refused_before_anything_is_rented(
    market: PodMarket, changes: dict[str, Any], word: str
) -> None:
    for check in (True, False):
        with pytest.raises(TenantFailure, match=word) as failure:
            market.bring("started", check=check, **changes)
        assert failure.value.kind == "config"
        assert "k3y-that" not in str(failure.value)
    assert market.count("POST", "") == 0


# --- pods that do not come up --------------------------------------------------------------------------------------


def test_a_new_pod_that_sticks_is_given_back(market: PodMarket) -> None:
    market.inject("stuck_loading", "create")
    with pytest.raises(TenantFailure, match=r"given back: pod .* is still loading"):
        market.bring("started")
    assert market.pods() == []


def test_a_pod_that_was_there_before_and_sticks_is_kept(market: PodMarket) -> None:
    market.used()
    market.inject("host_offline", "list", times=1)
    with pytest.raises(TenantFailure, match="kept as it is"):
        market.bring("started")
    assert len(market.pods()) == 1


def test_a_pod_that_comes_back_without_its_gpu_is_noticed(market: PodMarket) -> None:
    ours = market.used()
    market.bring("stopped")
    market.inject("zero_gpu", "change", times=None)
    with pytest.raises(TenantFailure, match="runs with 0 of 1 GPUs") as failure:
        market.bring("started")
    assert "it was stopped again" in failure.value.safe
    assert market.bring("present")["pod"]["state"] == "stopped"
    harvested = market.bring("started", gpus=0)
    assert (harvested["pod"]["provider_id"], harvested["pod"]["num_gpus"], harvested["changed"]) == (ours, 0, True)
    with pytest.raises(TenantFailure, match="runs with 0 of 1 GPUs") as failure:
        market.bring("present")  # it still has none, and another call started it
    assert "kept as it is" in failure.value.safe


def test_a_start_without_a_free_gpu_leaves_it_parked_as_it_was(market: PodMarket) -> None:
    ours = market.used()
    market.bring("stopped")
    before = power_record.read(market.store, market.identity())
    _let_to_another(market)
    before_sent = market.count("POST", f"/v[12]/pods/{ours}/(start|action)$")
    with pytest.raises(TenantFailure, match="not enough free GPUs"):
        market.bring("started")
    assert (
        market.count("POST", f"/v[12]/pods/{ours}/(start|action)$") == before_sent + 1
    )  # a second later there is none either
    after = power_record.read(market.store, market.identity())
    assert before is not None
    assert after is not None
    assert before["parked_at"] is not None
    assert after["parked_at"] == before["parked_at"]
    assert after["started_at"] == before.get("started_at")


def _let_to_another(market: PodMarket) -> None:
    books = market.market.books
    (pod,) = [one for one in books.state.instances.values() if one.pod is not None and one.live]
    books.put(replace(pod, id=31_999_999, pod=None, phase=Phase.RUNNING, wants_card=True))


# --- the gate ------------------------------------------------------------------------------------------------------


def test_a_used_pod_is_not_terminated_without_evidence(market: PodMarket) -> None:
    market.used()
    for check in (True, False):
        with pytest.raises(TenantFailure) as failure:
            market.bring("absent", check=check)
        assert failure.value.kind == "gate_refused"
    assert market.count("DELETE", "") == 0


@pytest.mark.parametrize("keeps", [{"destroy": ["disk"]}, {"destroy": ["disk", "network_volume"]}, {"stop": []}])
def test_no_variable_opens_the_gate(market: PodMarket, keeps: dict[str, Any]) -> None:
    market.used()
    pod = market.account().locate("digits", "pod-a").current
    assert pod is not None
    with pytest.raises(TenantFailure, match="is refused"):
        market.account(keeps=keeps_of(keeps)).destroy(pod)
    assert market.count("DELETE", "") == 0


def test_a_sealed_pod_goes_with_an_approval_which_is_used_once(market: PodMarket) -> None:
    market.used()
    market.seal()
    with pytest.raises(TenantFailure, match="nobody approved"):
        market.bring("absent")
    market.approve()
    gone = market.bring("absent")
    assert (gone["gate"][0]["rule"], gone["gate"][0]["approver"]) == ("standing_approval", "ada")
    assert market.pods() == []
    intents = [line for line in Journal(market.store).lines() if line["kind"] == "intent"]
    assert [(line["verb"], line["platform"]) for line in intents] == [("rent", "runpod"), ("destroy", "runpod")]


def test_law_2_a_pod_that_is_started_while_the_evidence_is_read_is_kept(
    market: PodMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = market.used()
    market.seal()
    market.approve()
    gather = gate.gather

    def slow(*args: Any, **keywords: Any) -> Any:
        found = gather(*args, **keywords)
        for verb in ("stop", "start"):
            market.clock.now += 5
            market.ask("POST", f"/v1/pods/{ours}/{verb}")
        return found

    monkeypatch.setattr(gate, "gather", slow)
    with pytest.raises(TenantFailure, match="was started again while the evidence was read"):
        market.bring("absent")
    assert len(market.pods()) == 1
    assert market.count("DELETE", "") == 0


def test_a_stop_that_would_wipe_the_results_asks_the_gate(market: PodMarket) -> None:
    """A pod of ours that was made by hand without a volume: nothing of it survives a stop."""
    stamp = "gt1/digits/pod-a/g1/0123456789abcdef"
    market.make(name=stamp, volumeInGb=0)
    with pytest.raises(TenantFailure, match=r"stop of pod .* is refused"):
        market.bring("stopped")
    assert market.ask("GET", "/v1/pods")[1][0]["desiredStatus"] == "RUNNING"


def test_a_stop_that_would_wipe_a_data_folder_beside_the_volume_asks_the_gate(market: PodMarket) -> None:
    made = market.bring("started", mount_path="/data")
    assert "wipes /workspace, which is not below the mount path of a volume (/data)" in made["warnings"][0]
    market.store.update_box("digits", "pod-a", 1, deploy_started_at=records.utc_now())
    for check in (True, False):
        with pytest.raises(TenantFailure, match=r"stop of pod .* is refused") as failure:
            market.bring("stopped", check=check)
        assert failure.value.kind == "gate_refused"
    assert market.show(made["pod"]["provider_id"])["desiredStatus"] == "RUNNING"
    with pytest.raises(TenantFailure, match=r"stop of pod .* is refused"):
        converge(market.account(data_dir=""), Desire("stopped", ORDER), False)
    below = market.account(data_dir="/data/results")
    assert converge(below, Desire("stopped", ORDER), False)["gate"][0]["rule"] == "keeps_disk"


def test_a_variable_that_names_another_data_folder_opens_no_gate(market: PodMarket) -> None:
    market.used()
    market.store.update_box("digits", "pod-a", 1, tenant_roots=["/workspace/gpu-tenant", "/root/gpu-tenant"])
    with pytest.raises(TenantFailure, match=r"stop of pod .* is refused"):
        market.bring("stopped")
    market.store.update_box("digits", "pod-a", 1, tenant_roots=["/workspace/gpu-tenant"])
    assert market.bring("stopped")["gate"][0]["rule"] == "keeps_disk"


def test_a_network_volume_makes_a_stop_harmless_and_is_never_deleted(market: PodMarket) -> None:
    machine = next(
        one for one in market.market.books.machines if GPU_TYPES[one.model.name] == GPU and one.hosting_type == 0
    )
    body = {"name": "data", "size": 10, "dataCenterId": DATA_CENTERS[machine.geolocation]}
    volume = market.ask("POST", "/v1/networkvolumes", body)[1]
    made = market.bring("started", network_volume=volume["id"], volume_gb=0)
    assert (made["pod"]["network_volume"], made["pod"]["volume_gb"]) == (volume["id"], 0)
    assert market.bring("stopped")["gate"][0]["rule"] == "keeps_disk"
    market.bring("absent")
    assert market.ask("GET", "/v1/networkvolumes")[1] == [volume]


def test_two_pods_of_one_name_are_judged_before_one_is_touched(market: PodMarket) -> None:
    market.used(deployed=False)
    market.make(name="gt1/digits/pod-a/g2/0123456789abcdef", gpuTypeIds=[])
    with pytest.raises(TenantFailure) as failure:
        market.bring("absent")
    assert failure.value.kind == "gate_refused"
    assert len(market.pods()) == 2
    shown = market.bring("present", price_cap=50.0)
    assert (shown["generation"], len(shown["superseded"])) == (2, 1)
    first = shown["superseded"][0]["provider_id"]
    assert market.bring("absent", provider_id=first)["gate"][0]["rule"] == "virgin"
    assert len(market.pods()) == 1
