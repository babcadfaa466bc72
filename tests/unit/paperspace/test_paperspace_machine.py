# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The driver of Paperspace's machines against the marketplace: its litany, its faults, its gate, its full stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate, power_record
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.desired import list_machines
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import keeps_of
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from machine_market import REGION, TYPE, MachineMarket

from gpu_tenant.marketplace.instances import Phase

DISK = 100 * 0.10 / 720


@pytest.fixture
def market(tmp_path: Path) -> MachineMarket:
    return MachineMarket(tmp_path)


def test_the_litany(market: MachineMarket) -> None:
    predicted = market.bring("started", check=True)
    assert predicted["changed"]
    assert predicted["would"]["price_per_hour"] is None  # unknown is not 0
    assert predicted["would"]["clocks"]["auto_shutdown_hours"] == 168
    assert market.machines() == []

    made = market.bring("started")
    assert made["changed"]
    machine = made["machine"]
    assert (machine["state"], machine["status"], machine["host"]) == ("running", "ready", "127.0.0.1")
    assert (machine["user"], machine["num_gpus"], machine["machine_type"]) == ("paperspace", 1, TYPE)
    assert machine["price_per_hour"] == pytest.approx(1.89 + DISK)
    assert made["diff"]["after"]["generation"] == predicted["diff"]["after"]["generation"] == 1
    assert market.show(machine["provider_id"])["name"] == made["stamp"] == machine["stamp"]

    for state in ("present", "started"):
        again = market.bring(state)
        assert not again["changed"]
        assert again["machine"]["provider_id"] == machine["provider_id"]
    assert market.creates() == 1

    assert market.bring("stopped", check=True)["changed"]
    stopped = market.bring("stopped")
    assert (stopped["changed"], stopped["machine"]["state"]) == (True, "stopped")
    assert stopped["gate"][0]["rule"] == "keeps_disk"
    assert stopped["machine"]["clocks"]["stopped_per_hour"] == pytest.approx(DISK)
    assert not market.bring("stopped")["changed"]
    assert not market.bring("present")["changed"]

    assert market.bring("started", check=True)["diff"]["after"] == {"state": "started"}
    started = market.bring("started")
    assert (started["changed"], started["machine"]["state"]) == (True, "running")
    assert started["machine"]["port"] != machine["port"]  # another address after each start

    assert market.bring("absent", check=True)["gate"][0]["rule"] == "virgin"
    assert len(market.machines()) == 1
    gone = market.bring("absent")
    assert (gone["changed"], gone["machine"]) == (True, None)
    assert (market.machines(), gone["leftovers"]) == ([], [])
    assert not market.bring("absent")["changed"]
    assert market.store.read_box("digits", "box-a", 1)["destroyed_at"]
    assert market.bring("started")["generation"] == 2


def test_a_stranger_s_machine_is_never_touched(market: MachineMarket) -> None:
    stranger = market.make(name="somebody's own")
    ours = market.used(deployed=False)
    shown = list_machines(market.machine_client(), "digits", None)
    assert ([one["provider_id"] for one in shown["machines"]], shown["unstamped"]) == ([ours], 1)
    market.bring("absent")
    assert market.listed() == [stranger]


def test_the_stamp_of_the_script_counts_when_the_name_was_edited(market: MachineMarket) -> None:
    ours = market.used()
    assert market.ask("PUT", f"/machines/{ours}", {"name": "edited in the console"})[0] == 200
    assert market.bring("present")["machine"]["provider_id"] == ours
    assert market.creates() == 1


def test_what_the_startup_script_lets_in_goes_with_the_machine(market: MachineMarket) -> None:
    ours = market.used(deployed=False)
    (script,) = market.items("/startup-scripts")
    assert script["assignedMachineIds"] == [ours]
    assert script["isRunOnce"]
    market.bring("absent")
    assert market.items("/startup-scripts") == []


# --- a create that is lost, or that finds nothing -----------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lost_answer"},
        {"kind": "garbled"},
        {"kind": "slow", "seconds": 60.0},
        {"kind": "server_error", "status": 500, "done": True},
    ],
)
def test_a_create_whose_answer_is_lost_is_found_by_its_stamp(market: MachineMarket, fault: dict[str, Any]) -> None:
    market.inject(call="create", **fault)
    made = market.bring("started")
    assert len(market.machines()) == market.creates() == 1
    assert made["machine"]["state"] == "running"


@pytest.mark.parametrize("fault", [{"kind": "lost_request"}, {"kind": "server_error", "status": 500}])
def test_a_create_that_never_arrived_is_not_repeated(market: MachineMarket, fault: dict[str, Any]) -> None:
    market.inject(call="create", **fault)
    with pytest.raises(TenantFailure, match="nothing was rented") as failure:
        market.bring("started")
    assert failure.value.kind == "provider"
    assert market.creates() == 1
    assert market.bring("started")["generation"] == 2


def test_each_create_may_surface_from_when_it_is_sent_on(market: MachineMarket) -> None:
    opened, told = market.open, []

    def sends(request: Any, timeout: float) -> Any:
        if request.get_method() == "POST" and request.full_url.endswith("/machines"):
            told.append((market.store.read_box("digits", "box-a", 1) or {})["sent_at"])
            market.store.update_box("digits", "box-a", 1, sent_at="2020-01-01T00:00:00Z")
        return opened(request, timeout)

    market.open = sends  # type: ignore[method-assign, assignment]
    market.inject("no_capacity", "create")
    market.bring("started", machine_types=(TYPE, "H100"), template="tiq8mhti", price_cap=9.0)
    assert len(told) == 2
    assert "2020-01-01T00:00:00Z" not in told, "the second waited for the first"


def test_the_next_type_is_tried_where_nothing_of_the_first_is_free(market: MachineMarket) -> None:
    """PS5, PS8: what is free in a region comes and goes."""
    market.inject("no_capacity", "create", times=1)
    made = market.bring("started", machine_types=(TYPE, "H100"), template="tiq8mhti", price_cap=9.0)
    assert (made["machine"]["machine_type"], market.creates(), len(market.machines())) == ("H100", 2, 1)


def test_nothing_free_is_said_and_leaves_nothing(market: MachineMarket) -> None:
    market.inject("no_capacity", "create", times=None)
    with pytest.raises(TenantFailure, match="out of capacity") as failure:
        market.bring("started")
    assert (failure.value.kind, market.machines(), market.items("/startup-scripts")) == ("no_offer", [], [])
    market.clear()
    assert market.bring("started")["generation"] == 1  # it certainly never was


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "t0000000"}, "no template"),
        ({"machine_types": ("H100",)}, "not available on machine type H100"),
        ({"public_key": "not a key"}, "not one OpenSSH public key"),
        ({"public_key": "ssh-ed25519 AAAA'; rm -rf /"}, "not one OpenSSH public key|damaged"),
        ({"disk_gb": 10}, "50 to 2000"),
        ({"auto_shutdown_h": 200}, "auto_shutdown_hours"),
        ({"public_ip_type": "none"}, "without an address"),
        ({"price_cap": 0.0}, "not consented"),
        ({"machine_types": ()}, "missing"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_what_cannot_be_rented_is_said_before_a_create(
    market: MachineMarket, changes: dict[str, Any], said: str, check: bool
) -> None:
    with pytest.raises(TenantFailure, match=said) as failure:
        market.bring("started", check=check, **changes)
    assert failure.value.kind == "config"
    assert (market.creates(), market.machines()) == (0, [])


def test_a_machine_dearer_than_the_cap_is_given_back_at_once(market: MachineMarket) -> None:
    with pytest.raises(TenantFailure, match="above the price_cap") as failure:
        market.bring("started", price_cap=1.0)
    assert failure.value.kind == "no_offer"
    assert (market.machines(), market.creates()) == ([], 1)


# --- a full stop ----------------------------------------------------------------------------------------------------


def test_a_full_stop_shuts_down_deletes_and_releases_in_that_order(market: MachineMarket) -> None:
    """PS1: off is not the end of the bill, and so is deleted not."""
    ours = market.used(deployed=False, public_ip_type="static")
    assert market.items("/public-ips")[0]["assignedMachineId"] == ours
    market.ask("POST", "/shared-drives", {"name": "sets", "networkId": "n1", "region": REGION, "size": 250})
    begun = len(market.sent)
    gone = market.bring("absent")
    changes = [(method, path.rpartition("/")[2]) for method, path in market.sent[begun:] if method != "GET"]
    assert [change[0] for change in changes] == ["PATCH", "DELETE", "DELETE", "DELETE"]
    assert changes[0][1] == "stop"
    assert changes[1][1] == ours
    assert (market.machines(), market.items("/public-ips")) == ([], [])
    assert [left["kind"] for left in gone["leftovers"]] == ["shared drive"]
    assert len(gone["diff"]["after"]["released"]) == 1
    verbs = [line["verb"] for line in Journal(market.store).lines() if line["kind"] == "effect"]
    assert verbs[-3:] == ["stop", "destroy", "release static IP"]


def test_an_address_whose_release_was_lost_is_released_by_the_next_try(market: MachineMarket) -> None:
    market.used(deployed=False, public_ip_type="static")
    market.inject("server_error", "volumes", status=500, times=None, after=2)
    with pytest.raises(TenantFailure):
        market.bring("absent")
    market.clear()
    assert market.machines() == []
    assert len(market.items("/public-ips")) == 1
    assert len(market.bring("absent")["diff"]["after"]["released"]) == 1
    assert market.items("/public-ips") == []


def test_an_address_that_a_person_gave_to_another_machine_is_kept(market: MachineMarket) -> None:
    ours = market.used(deployed=False, public_ip_type="static")
    other = market.make(name="somebody's own", region="ams1", machineType="A100-80G")
    (address,) = market.items("/public-ips")
    market.bring("stopped")
    record = market.store.read_box("digits", "box-a", 1)
    assert record["provider_id"] == ours
    market.store.update_box("digits", "box-a", 1, static_ip=address["ip"])
    market.ask("PUT", f"/public-ips/{address['ip']}", {"machineId": other})
    market.bring("absent")
    assert market.items("/public-ips")[0]["assignedMachineId"] == other


def test_snapshots_drives_and_templates_are_told_and_never_deleted(market: MachineMarket) -> None:
    """PS9."""
    stranger = market.make(name="somebody's own", region="ams1", machineType="A100-80G")
    ours = market.used(deployed=False)
    for path, body in (
        ("/snapshots", {"name": "before", "machineId": stranger}),
        ("/custom-templates", {"name": "gold", "machineId": ours}),
    ):
        assert market.ask("POST", path, body)[0] == 200
    told = {left["kind"]: left for left in market.bring("absent")["leftovers"]}
    assert set(told) == {"snapshot", "custom template"}
    assert told["snapshot"]["price_per_hour"] is None  # nobody says how large it is
    assert (told["custom template"]["machine"], len(market.items("/snapshots"))) == (ours, 1)
    assert len(list_machines(market.machine_client(), None, None)["leftovers"]) == 2


def test_absent_waits_until_the_provider_says_gone_twice(market: MachineMarket) -> None:
    market.used(deployed=False)
    market.bring("stopped")
    market.inject("slow_destroy", "destroy", seconds=30.0)
    begun = market.clock()
    market.bring("absent")
    assert market.clock() - begun >= 30
    assert (market.machines(), market.deletions()) == ([], 1)


def test_a_deleted_machine_that_a_list_goes_on_showing_is_not_taken_for_one(market: MachineMarket) -> None:
    market.used(deployed=False)
    market.inject("slow_destroy", "destroy", seconds=600.0, lingers="list")
    market.bring("absent")
    assert len(market.listed()) == 1
    assert not market.bring("absent")["changed"]
    assert market.bring("started")["generation"] == 2


# --- the gate -------------------------------------------------------------------------------------------------------


def test_a_used_machine_is_not_ended_without_evidence_and_not_even_shut_down(market: MachineMarket) -> None:
    market.used()
    for check in (True, False):
        with pytest.raises(TenantFailure, match="no seal") as failure:
            market.bring("absent", check=check)
        assert failure.value.kind == "gate_refused"
    (machine,) = market.machines()
    assert machine["phase"] == "running"
    assert market.deletions() == 0


def test_no_variable_opens_the_gate(market: MachineMarket) -> None:
    market.used()
    for keeps in ({"destroy": ["disk"]}, keeps_of({"full_stop": [{"verb": "destroy", "keeps": ["disk", "snapshot"]}]})):
        with pytest.raises(TenantFailure, match="refused"):
            market.bring("absent", keeps=keeps)
    assert len(market.machines()) == 1


def test_evidence_and_one_approval_end_it(market: MachineMarket) -> None:
    market.used()
    market.seal()
    approval = market.approve()
    gone = market.bring("absent")
    assert (gone["gate"][0]["rule"], gone["gate"][0]["approval_id"]) == (gate.RULE_STANDING, approval)
    assert market.machines() == []


def test_a_stop_that_the_profile_says_wipes_asks_the_gate(market: MachineMarket) -> None:
    market.used()
    with pytest.raises(TenantFailure, match="no seal"):
        market.bring("stopped", keeps={"stop": []})
    assert market.machines()[0]["phase"] == "running"


# --- what the provider does by itself -----------------------------------------------------------------------------


def test_the_automatic_shutdown_is_told_with_its_deadline_and_counts_as_no_stop_of_ours(market: MachineMarket) -> None:
    """PS2: it works on until then, so that a seal from before says nothing; it is started and harvested again."""
    market.used(auto_shutdown_h=6)
    told = market.bring("present")["machine"]["clocks"]
    assert (told["auto_shutdown_hours"], told["running_per_hour"]) == (6.0, pytest.approx(1.89 + DISK))
    assert 0 < told["auto_shutdown_left_s"] <= 6 * 3600
    market.seal()
    market.approve()
    market.sleep(6 * 3600.0 + 60)
    (machine,) = market.machines()
    assert machine["phase"] == Phase.STOPPED.value
    assert market.bring("present")["machine"]["state"] == "stopped"
    with pytest.raises(TenantFailure, match="not because we stopped it"):
        market.bring("absent")
    assert market.bring("started")["machine"]["state"] == "running"


def test_without_a_shutdown_clock_it_runs_on(market: MachineMarket) -> None:
    market.used(auto_shutdown_h=0)
    market.sleep(400 * 3600.0)
    assert market.machines()[0]["phase"] == "running"
    assert market.bring("present")["machine"]["clocks"]["auto_shutdown_at"] is None


def test_a_start_that_finds_nothing_free_leaves_it_parked_as_it_was(market: MachineMarket) -> None:
    ours = market.used()
    market.bring("stopped")
    parked = power_record.read(market.store, market.identity())
    books = market.market.books
    (machine,) = [one for one in books.state.instances.values() if one.core is not None]
    books.put(replace(machine, id=31_999_999, core=None, phase=Phase.RUNNING, wants_card=True))
    with pytest.raises(TenantFailure, match="out of capacity") as failure:
        market.bring("started")
    assert "rests as before" in failure.value.safe
    assert market.show(ours)["state"] == "off"
    now = power_record.read(market.store, market.identity())
    assert parked is not None
    assert now is not None
    assert (now["parked_at"], now["started_at"]) == (parked["parked_at"], parked.get("started_at"))


def test_a_start_behind_our_back_is_seen_by_the_gate(market: MachineMarket) -> None:
    """A row does not tell when a machine was started; the events do, to the second."""
    ours = market.used()
    market.seal(ago_s=30.0)
    market.bring("stopped")
    market.approve()
    for verb in ("start", "stop"):
        assert market.do(ours, verb)[0] == 200
    with pytest.raises(TenantFailure, match=r"it was started at .* after its seal was read"):
        market.bring("absent")
    assert len(market.machines()) == 1


@pytest.mark.parametrize("call", ["list", "show", "keys", "volumes", "change", "destroy"])
@pytest.mark.parametrize("kind", ["lost_answer", "lost_request", "rate_limited", "server_error", "garbled"])
def test_every_other_call_survives_one_fault(market: MachineMarket, call: str, kind: str) -> None:
    market.bring("started", public_ip_type="static")
    market.inject(kind, call, **({"status": 503} if kind == "server_error" else {}))
    market.bring("stopped")
    market.bring("absent")
    assert (market.machines(), market.items("/public-ips")) == ([], [])


@pytest.mark.parametrize("shape", ["no_list", "no_ids", "no_key"])
def test_a_malformed_list_is_an_error_and_not_zero_machines(market: MachineMarket, shape: str) -> None:
    market.used()
    market.inject("malformed_list", "list", shape=shape, times=None)
    with pytest.raises(TenantFailure, match="list of machines"):
        market.bring("started")
    assert market.creates() == 1


def test_an_empty_list_does_not_make_it_rent_twice(market: MachineMarket) -> None:
    market.used()
    market.inject("empty_list", "list", times=None)
    with pytest.raises(TenantFailure, match="lacks"):
        market.bring("started")
    assert market.creates() == 1


def test_an_empty_disk_on_our_side_finds_it_again_and_does_not_take_it_for_virgin(
    market: MachineMarket, tmp_path: Path
) -> None:
    ours = market.used()
    market.store = StateStore(str(tmp_path / "another"))
    assert market.bring("present")["machine"]["provider_id"] == ours
    with pytest.raises(TenantFailure, match="refused"):
        market.bring("absent")


def test_another_key_is_said_as_such(market: MachineMarket) -> None:
    client = market.machine_client()
    client._key = "wrong"
    with pytest.raises(TenantFailure, match="refused the key") as failure:
        client.list_instances()
    assert "PAPERSPACE_API_KEY" in failure.value.fix


def test_a_list_of_many_pages_is_read_to_its_end(market: MachineMarket) -> None:
    for number in range(250):
        market.ask("POST", "/startup-scripts", {"name": f"script {number}", "script": "true"})
    assert len(market.machine_client().list_scripts()) == 250


def test_a_new_machine_that_sticks_is_given_back(market: MachineMarket) -> None:
    """PS8: the wait ends, and the failure names the state that it stuck in."""
    market.inject("stuck_loading", "create", times=1)
    with pytest.raises(TenantFailure, match="still loading after 300 s, the provider says: starting") as failure:
        market.bring("started")
    assert failure.value.kind == "no_offer"
    assert (market.machines(), market.creates()) == ([], 1)
