# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Spot Instances: rented once, found again from EC2 alone, and ended through the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, spent
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from small_cloud import BIG, IMAGE, SMALL, SmallCloud


def test_it_is_rented_tagged_and_found_again(cloud: SmallCloud) -> None:
    first = cloud.bring("started")
    assert first["changed"] is True
    box = first["instance"]
    assert (box["state"], box["host"], box["user"], box["port"]) == ("running", "198.51.100.7", "ubuntu", 22)
    assert (box["gpu_name"], box["num_gpus"], box["gpu_ram_mb"]) == ("NVIDIA A10G", 1, 24576)
    assert box["price_per_hour"] == pytest.approx(0.35 + 100 * 0.16 / 720)
    (request,) = cloud.requests.values()
    assert float(request["SpotPrice"]) == pytest.approx(0.6 - 100 * 0.16 / 720, abs=1e-4), "the cap, disk included"
    for row in (*cloud.instances.values(), *cloud.volumes.values()):
        assert {"Key": "gpu-tenant-stamp", "Value": first["stamp"]} in row["Tags"]
    asked = next(arguments for name, arguments in cloud.ran if name == "ec2_spot_instance")
    assert (asked["spot_type"], asked["interruption"], asked["count"]) == ("one-time", "terminate", 1)
    begun = len(cloud.ran)
    second = cloud.bring("started")
    assert (second["changed"], second["generation"], len(cloud.ran)) == (False, 1, begun)


def test_check_mode_says_what_it_would_cost_and_rents_nothing(cloud: SmallCloud) -> None:
    told = cloud.bring("started", check=True)
    assert told["changed"] is True
    assert told["would"]["spot_prices"] == {BIG: 0.35, SMALL: 0.35}
    assert told["would"]["problem"] == ""
    cloud.price = "0.9"
    assert "as little as price_cap" in cloud.bring("started", check=True)["would"]["problem"]
    cloud.price = ""
    assert cloud.bring("started", check=True)["would"]["spot_prices"] == {BIG: None, SMALL: None}, "unknown is not 0"
    assert cloud.requests == {}


def test_an_unfilled_request_is_taken_back_before_the_next_type_is_asked_for(cloud: SmallCloud) -> None:
    cloud.filled[BIG] = "never"
    box = cloud.bring("started")["instance"]
    assert box["instance_type"] == SMALL
    assert cloud.open_requests() == []
    assert [row["State"] for row in cloud.requests.values()] == ["cancelled", "active"]


def test_a_cap_that_was_lowered_leaves_the_instance_and_fails(cloud: SmallCloud) -> None:
    """By what EC2 may bill, whatever it bills now; of a request that it forgot nobody knows that."""
    box = cloud.bring("started")["instance"]
    assert box["price_per_hour"] < 0.5
    with pytest.raises(
        TenantFailure, match=r"may cost up to \$0.6000 an hour .* above the price_cap of \$0.5"
    ) as caught:
        cloud.bring("started", price_cap=0.5)
    assert (caught.value.kind, caught.value.box) == ("budget", "box-a")
    assert "it was left as it is" in caught.value.safe
    assert cloud.living() == [box["provider_id"]]
    cloud.requests.clear()
    assert cloud.bring("started", price_cap=0.5)["changed"] is False


def test_no_capacity_of_any_type_leaves_nothing_asked(cloud: SmallCloud) -> None:
    cloud.filled = {BIG: "never", SMALL: "never"}
    with pytest.raises(TenantFailure, match="capacity-not-available") as caught:
        cloud.bring("started")
    assert (caught.value.kind, caught.value.safe) == ("no_offer", "nothing was rented")
    assert cloud.open_requests() == cloud.living() == []
    cloud.filled = {}
    assert cloud.bring("started")["generation"] == 1, "a generation that never was is given out again"


def test_a_request_that_is_filled_as_it_is_cancelled_is_no_lost_box(cloud: SmallCloud) -> None:
    cloud.filled[BIG] = "as it is cancelled"
    box = cloud.bring("started")["instance"]
    assert (box["instance_type"], len(cloud.requests), cloud.living()) == (BIG, 1, [box["provider_id"]])


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_answer_never_makes_a_second_instance(cloud: SmallCloud, lost: int) -> None:
    cloud.lost["ec2_spot_instance"] = lost
    box = cloud.bring("started")["instance"]
    assert (len(cloud.requests), cloud.living()) == (1, [box["provider_id"]])


def test_lost_for_good_and_unfilled_the_request_is_found_by_its_stamp(cloud: SmallCloud) -> None:
    cloud.filled, cloud.lost["ec2_spot_instance"] = {BIG: "never"}, 3
    with pytest.raises(TenantFailure, match="was not filled"):
        cloud.bring("started", instance_types=(BIG,))
    assert cloud.open_requests() == [], "and taken back"


class Killed(BaseException):
    """The process ends here."""


def killed_while_it_waits(cloud: SmallCloud) -> str:
    """The request that it leaves open."""
    cloud.filled[BIG] = "never"
    wait = cloud.sleep
    cloud.sleep = _die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        cloud.bring("started")
    cloud.sleep = wait  # type: ignore[method-assign]
    (request_id,) = cloud.open_requests()
    return request_id


def test_what_a_killed_process_asked_for_is_found_and_tagged(cloud: SmallCloud) -> None:
    cloud._fill(killed_while_it_waits(cloud))
    told = cloud.bring("started")
    assert (len(cloud.requests), cloud.living()) == (1, [told["instance"]["provider_id"]])
    record = cloud.store.read_box("digits", "box-a", 1)
    assert record is not None
    assert record["provider_id"] == told["instance"]["provider_id"]
    assert cloud.instances[told["instance"]["provider_id"]]["Tags"], "before EC2 forgets its request"


def test_a_request_that_is_open_still_is_waited_for_and_no_other_is_sent(cloud: SmallCloud) -> None:
    killed_while_it_waits(cloud)
    cloud.filled[BIG] = "as it is cancelled"
    told = cloud.bring("started")
    assert (len(cloud.requests), cloud.living()) == (1, [told["instance"]["provider_id"]])
    record = cloud.store.read_box("digits", "box-a", 1)
    assert record is not None
    assert record["provider_id"] == told["instance"]["provider_id"], "the instance, and not the request"
    assert_one_machine_that_ends(cloud, str(told["instance"]["provider_id"]))


def assert_one_machine_that_ends(cloud: SmallCloud, instance_id: str) -> None:
    """The journal knows the instance alone, with its price, and once it is destroyed nothing costs any more."""
    assert machines(cloud) == {instance_id: accrual.RUNNING}
    assert spent.of_project(Journal(cloud.store).lines(), "digits", "2100-01-01T00:00:00Z")
    assert cloud.bring("absent")["changed"] is True
    assert machines(cloud) == {instance_id: accrual.ENDED}


def machines(cloud: SmallCloud) -> dict[str, str]:
    """How the account of each machine stands, by its id."""
    acts = accrual.acts_by_machine(Journal(cloud.store).lines())
    return {key[2]: accrual.intervals(found, records.utc_now())[1] for key, found in acts.items()}


def test_one_that_was_filled_after_who_waited_for_it_was_killed_too_is_an_instance_of_ours(cloud: SmallCloud) -> None:
    request_id = killed_while_it_waits(cloud)
    wait = cloud.sleep
    cloud.sleep = _die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        cloud.bring("started")
    cloud.sleep = wait  # type: ignore[method-assign]
    waiting = cloud.store.read_box("digits", "box-a", 1) or {}
    assert (waiting["provider_id"], machines(cloud)) == (request_id, {}), "known, and no machine"
    cloud._fill(request_id)
    box = cloud.bring("started")["instance"]
    record = cloud.store.read_box("digits", "box-a", 1) or {}
    assert (record["provider_id"], record["created_at"]) == (box["provider_id"], waiting["created_at"])
    assert_one_machine_that_ends(cloud, str(box["provider_id"]))


def test_a_request_that_an_empty_disk_knows_nothing_of_makes_no_virgin_box(cloud: SmallCloud, tmp_path: Path) -> None:
    request_id = killed_while_it_waits(cloud)
    cloud.store = StateStore(str(tmp_path / "another"))
    cloud.account().locate("digits", "box-a")
    cloud._fill(request_id)
    cloud.bring("started")
    assert cloud.store.read_box("digits", "box-a", 1)["created_at"] is None  # type: ignore[index]


def _die(_seconds: float) -> None:
    raise Killed


@pytest.mark.parametrize("filled", ["now", "as it is cancelled"])
def test_a_request_that_arrives_after_its_sender_was_killed_is_the_only_one(cloud: SmallCloud, filled: str) -> None:
    run, wait, late = cloud.run_module, cloud.sleep, []

    def die(name: str, arguments: Any) -> Any:
        if not name.endswith("ec2_spot_instance"):
            return run(name, arguments)
        cloud.run_module = run  # type: ignore[method-assign]
        late.append((name, arguments))
        raise Killed

    def arrive(seconds: float) -> None:
        wait(seconds)
        while late:
            run(*late.pop())

    cloud.run_module = die  # type: ignore[method-assign, assignment]
    with pytest.raises(Killed):
        cloud.bring("started")
    cloud.filled[BIG] = filled
    # Two lists before the lock and two under it find nothing; then it arrives.
    cloud.sleep = arrive  # type: ignore[method-assign]
    told = cloud.bring("started")
    assert (len(cloud.requests), cloud.living()) == (1, [told["instance"]["provider_id"]])
    assert cloud.store.read_box("digits", "box-a", 1)["provider_id"] == told["instance"]["provider_id"]  # type: ignore[index]
    assert {"Key": "gpu-tenant-stamp", "Value": told["stamp"]} in cloud.instances[told["instance"]["provider_id"]][
        "Tags"
    ]
    assert_one_machine_that_ends(cloud, str(told["instance"]["provider_id"]))


def test_absent_takes_an_open_request_back(cloud: SmallCloud) -> None:
    killed_while_it_waits(cloud)
    assert cloud.bring("absent")["changed"] is True
    assert cloud.open_requests() == cloud.living() == []
    assert cloud.bring("absent")["changed"] is False


@pytest.mark.parametrize("filled", ["now", "never"])
def test_only_what_carries_our_stamp_is_seen(cloud: SmallCloud, filled: str) -> None:
    cloud.filled[BIG] = filled
    foreign = {
        "tags": {"Name": "ours, not yours"},
        "spot_price": "1",
        "launch_specification": {"instance_type": BIG, "image_id": IMAGE},
    }
    cloud._request(foreign)
    assert cloud.client().list_instances() == []
    cloud.bring("absent")
    assert len(cloud.living()) == (filled == "now")


def test_an_instance_on_demand_is_given_back(cloud: SmallCloud) -> None:
    cloud.lifecycle = ""
    with pytest.raises(TenantFailure, match="billed on demand"):
        cloud.bring("started")
    assert cloud.living() == []


def test_a_used_instance_goes_through_the_gate_only(cloud: SmallCloud) -> None:
    box = cloud.bring("started")["instance"]
    cloud.store.update_box("digits", "box-a", 1, deploy_started_at=records.utc_now())
    with pytest.raises(TenantFailure) as caught:
        cloud.bring("absent")
    assert caught.value.kind == "gate_refused"
    assert (cloud.living(), cloud.count("ec2_instance")) == ([box["provider_id"]], 0)


def test_a_virgin_one_goes_and_a_volume_that_stays_is_told(cloud: SmallCloud) -> None:
    cloud.volumes_stay = True
    cloud.bring("started")
    gone = cloud.bring("absent")
    assert (gone["instance"], cloud.living()) == (None, [])
    assert [(one["volume_id"], one["gb"], one["state"]) for one in gone["left"]] == [("vol-00000000", 100, "available")]
    assert cloud.bring("absent")["left"] == gone["left"], "as long as it bills"
    assert cloud.bring("absent")["changed"] is False


def test_an_interrupted_instance_is_gone_and_the_next_one_is_another_generation(cloud: SmallCloud) -> None:
    first = cloud.bring("started")["instance"]
    cloud._terminate({"instance_ids": [first["provider_id"]]})
    again = cloud.bring("started")
    assert (again["generation"], len(cloud.living())) == (2, 1)


def test_one_that_somebody_stopped_is_kept_and_said_so(cloud: SmallCloud) -> None:
    box = cloud.bring("started")["instance"]
    cloud.instances[box["provider_id"]]["State"] = {"Name": "stopped"}
    with pytest.raises(TenantFailure, match="stopped by somebody else"):
        cloud.bring("started")
    assert cloud.living() == [box["provider_id"]]


def test_nothing_stops_one(cloud: SmallCloud) -> None:
    cloud.bring("started")
    begun = len(cloud.ran)
    with pytest.raises(TenantFailure, match="no state of rest"):
        cloud.bring("stopped")
    assert len(cloud.ran) == begun


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"instance_types": ()}, "one of them is empty"),
        ({"image": ""}, "one of them is empty"),
        ({"security_groups": ()}, "the default group lets nobody in"),
        ({"public_key": "ssh-ed25519"}, "not the text of a public key"),
        ({"ssh_user": "-oProxyCommand=x"}, "no way to log in"),
        ({"ssh_port": 0}, "no way to log in"),
        ({"price_cap": None}, "not consented to"),
        ({"price_cap": 0.02}, "does not even pay for a disk"),
        ({"capacity_wait_s": 0.0}, "must be above 0"),
        ({"image": "ami-00000000"}, "has no machine image ami-00000000"),
        ({"disk_gb": 8}, "has 30 GB, and disk_gb is 8"),
        ({"instance_types": (BIG, "g5.xlrage")}, "has no instance type g5.xlrage"),
    ],
)
def test_bad_orders_cost_nothing(cloud: SmallCloud, order: dict[str, Any], said: str) -> None:
    with pytest.raises(TenantFailure, match=said) as caught:
        cloud.bring("started", **order)
    assert (caught.value.kind, caught.value.safe) == ("config", "nothing was rented")
    assert cloud.ran == []


@pytest.mark.parametrize(
    ("refused", "kind", "said"),
    [
        ({"ec2_spot_instance": "UnauthorizedOperation"}, "config", "see to the credentials"),
        ({"ec2_spot_instance": "MaxSpotInstanceCountExceeded"}, "provider", "higher quota of Spot vCPUs"),
        ({BIG: "InsufficientInstanceCapacity", SMALL: "SpotMaxPriceTooLow"}, "no_offer", "name more instance_types"),
        ({"ec2_key": "InvalidKey.Format"}, "provider", "correct what it names"),
    ],
)
def test_what_ec2_refuses_is_told_with_what_to_do(
    cloud: SmallCloud, refused: dict[str, str], kind: str, said: str
) -> None:
    cloud.refused = refused
    with pytest.raises(TenantFailure) as caught:
        cloud.bring("started")
    assert (caught.value.kind, cloud.living()) == (kind, [])
    assert said in str(caught.value)


def test_a_tag_that_fails_keeps_the_instance_and_the_next_run_tags_it(cloud: SmallCloud) -> None:
    cloud.refused["ec2_tag"] = "RequestLimitExceeded"
    with pytest.raises(TenantFailure, match="run again"):
        cloud.bring("started")
    cloud.refused = {}
    told = cloud.bring("started")
    assert (told["generation"], cloud.living()) == (1, [told["instance"]["provider_id"]])
    assert cloud.instances[told["instance"]["provider_id"]]["Tags"]
