# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The audit of EC2, against moto: instances and volumes of every region that is named, ours by their tags, in pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.api import STAMP_TAG, Ec2Client
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.transformations import disk_rate
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import audit
from gpu_tenant.hosts import BoxHost

moto = pytest.importorskip("moto", reason="it plays EC2")
HERE, THERE = "us-east-1", "eu-west-1"
TYPE, IMAGE = "g4dn.xlarge", "ami-0123456789abcdef0"


class Cloud:
    """An account with instances and volumes, and an inventory of one box there."""

    def __init__(self, folder: Path) -> None:
        self.store = StateStore(str(folder / "state"))
        self.facts: dict[str, Any] = {"aws_spot_region": HERE}
        self._clients: dict[str, Ec2Client] = {}

    @property
    def boxes(self) -> list[BoxHost]:
        facts = {"tenant_project": "digits", "tenant_state_dir": self.store.root, "platform_driver": "aws_spot"}
        return [BoxHost("box-a", {**facts, **self.facts})]

    def client(self, box: str) -> Ec2Client:
        return self._clients.setdefault(box, Ec2Client.from_variables("aws_spot", self.facts.get))

    def ec2(self, region: str = HERE) -> Any:
        return boto3.client("ec2", region_name=region)

    def run(self, name: str = "", region: str = HERE, project: str = "digits", count: int = 1) -> list[str]:
        """Ids of new instances; ``name`` is a box of ours, or none."""
        ec2 = self.ec2(region)
        tags = [{"Key": STAMP_TAG, "Value": str(new_stamp(project, name, 1))}] if name else []
        about = [{"ResourceType": "instance", "Tags": tags}, {"ResourceType": "volume", "Tags": tags}] if tags else []
        made = ec2.run_instances(
            ImageId=IMAGE, InstanceType=TYPE, MinCount=count, MaxCount=count, TagSpecifications=about
        )
        return [one["InstanceId"] for one in made["Instances"]]

    def volume(self, name: str = "", region: str = HERE) -> str:
        tags = [{"Key": STAMP_TAG, "Value": str(new_stamp("digits", name, 1))}] if name else []
        about = [{"ResourceType": "volume", "Tags": tags}] if tags else []
        made = self.ec2(region).create_volume(Size=100, AvailabilityZone=f"{region}a", TagSpecifications=about)
        return str(made["VolumeId"])

    def found(self) -> dict[str, audit.Finding]:
        findings = audit.audit(self, self.boxes).findings  # type: ignore[arg-type]
        told = {one.provider_id: one for one in findings}
        assert len(told) == len(findings), "each is shown once"
        return told


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    """One for all tests here: it reads its catalogue for seconds."""
    with moto.mock_aws():
        yield


@pytest.fixture
def cloud(aws: None, tmp_path: Path) -> Iterator[Cloud]:
    made = Cloud(tmp_path)
    yield made
    for region in (HERE, THERE):
        ec2 = made.ec2(region)
        rented = [one["InstanceId"] for some in ec2.describe_instances()["Reservations"] for one in some["Instances"]]
        if rented:
            ec2.terminate_instances(InstanceIds=rented)
        for volume in ec2.describe_volumes()["Volumes"]:
            ec2.delete_volume(VolumeId=volume["VolumeId"])


def test_each_instance_and_volume_is_somebodys(cloud: Cloud) -> None:
    (ours,), (orphan,), (others,), (strange,) = (
        cloud.run("box-a"), cloud.run("forgotten"), cloud.run("box-a", project="audio"), cloud.run(),
    )  # fmt: skip
    left, somebodys = cloud.volume("box-a"), cloud.volume()
    seen = cloud.found()
    whose = {one: seen[one].whose for one in (ours, orphan, others, strange, left, somebodys)}
    assert whose == {
        ours: audit.OURS, orphan: audit.ORPHAN, others: audit.OTHER_PROJECT, strange: audit.FOREIGN,
        left: audit.ORPHAN, somebodys: audit.FOREIGN,
    }  # fmt: skip
    assert seen[left].per_hour == pytest.approx(disk_rate(100))
    assert "its instance is gone" in seen[left].advice
    assert (seen[strange].kind, seen[strange].per_hour) == ("instance", None)
    assert "never touched" in seen[strange].advice


def test_the_disk_of_an_instance_of_ours_is_in_its_price_and_not_beside_it(cloud: Cloud) -> None:
    cloud.run("box-a")
    assert [one.kind for one in cloud.found().values()] == ["box"]
    cloud.run()
    assert sorted(one.kind for one in cloud.found().values()) == ["box", "instance", "volume"]


def test_an_instance_that_was_terminated_bills_no_more(cloud: Cloud) -> None:
    gone = cloud.run("forgotten") + cloud.run()
    cloud.ec2().terminate_instances(InstanceIds=gone)
    assert cloud.found() == {}


def test_the_regions_that_are_named_are_looked_at_too(cloud: Cloud) -> None:
    (here,), (there,), left = cloud.run("box-a"), cloud.run("box-a", THERE), cloud.volume("box-a", THERE)
    assert sorted(cloud.found()) == [here]
    cloud.facts["aws_spot_audit_regions"] = [HERE, THERE]
    seen = cloud.found()
    assert {one: seen[one].whose for one in seen} == {here: audit.OURS, there: audit.ORPHAN, left: audit.ORPHAN}


def test_what_one_region_lists_is_not_missing_from_another(cloud: Cloud) -> None:
    (here,) = cloud.run("box-a")
    cloud.facts["aws_spot_audit_regions"] = [THERE]
    cloud.store.update_box("digits", "box-a", 1, provider_id=here, platform="aws_spot")
    cloud.store.update_box("digits", "old", 1, provider_id="i-00000000000000000", platform="aws_spot")
    cloud.store.update_box("digits", "pod", 1, provider_id="xedezhzb9la3ye", platform="runpod")
    whose = {one.provider_id: one.whose for one in cloud.found().values()}
    assert whose == {here: audit.OURS, "i-00000000000000000": audit.MISSING}


def test_every_page_is_read(cloud: Cloud) -> None:
    # The server's pages are of reservations.
    many = [one for _each in range(7) for one in cloud.run()] + cloud.run("forgotten")
    pages: list[str] = []

    def small(params: dict[str, Any], **_about: Any) -> dict[str, Any]:
        pages.append(str(params.get("NextToken") or ""))
        return {**params, "MaxResults": 5}

    cloud.client("box-a")._ec2.meta.events.register("provide-client-params.ec2.DescribeInstances", small)
    assert set(many) <= set(cloud.found())
    assert any(pages), "it was one page"


def test_nothing_is_changed_by_a_look(cloud: Cloud) -> None:
    cloud.run("forgotten")
    cloud.volume("box-a")
    before = (cloud.ec2().describe_instances()["Reservations"], cloud.ec2().describe_volumes()["Volumes"])
    cloud.found()
    assert (cloud.ec2().describe_instances()["Reservations"], cloud.ec2().describe_volumes()["Volumes"]) == before
    assert not Path(cloud.store.journal_path).exists()
    parked, failures = audit.park_orphans(cloud, cloud.boxes)  # type: ignore[arg-type]
    assert (parked, [failure.kind for failure in failures]) == ([], ["config"])
    assert "no state of rest" in failures[0].what
