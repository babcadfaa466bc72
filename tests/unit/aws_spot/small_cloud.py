# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A little EC2 in this process, on a virtual clock: the answers that boto3 gives, and what the modules of amazon.aws do
to it. The modules themselves, against a server, are in tests/integration/test_aws_spot_plays.py."""

from __future__ import annotations

import datetime
import email.utils
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.actions import SpotAccount
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.api import STAMP_TAG, Ec2Client
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.rental import SpotOrder
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from botocore.exceptions import ClientError

BEGINNING = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
IMAGE, BIG, SMALL = "ami-0123456789abcdef0", "g5.xlarge", "g4dn.xlarge"
ORDER = SpotOrder(
    "digits", "box-a", instance_types=(BIG, SMALL), image=IMAGE, public_key="ssh-ed25519 AAAAKEY me", disk_gb=100,
    security_groups=("sg-1",), price_cap=0.6, capacity_wait_s=60.0, wait_s=300.0,
)  # fmt: skip
_CARD = {"Name": "A10G", "Manufacturer": "NVIDIA", "Count": 1, "MemoryInfo": {"SizeInMiB": 24576}}


class SmallCloud:
    """:ivar filled: when a request of a type is filled: ``now``, ``never``, or ``as it is cancelled``.
    :ivar lost: how many results of a module never arrive, although it did its work.
    :ivar refused: EC2's code, by module or by instance type.
    """

    def __init__(self, folder: Path) -> None:
        self.store = StateStore(str(folder / "state"))
        self.now = 0.0
        self.requests: dict[str, dict[str, Any]] = {}
        self.instances: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, str] = {}
        self.filled: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.lost: Counter[str] = Counter()
        self.ran: list[tuple[str, dict[str, Any]]] = []
        self.lifecycle = "spot"
        self.volumes_stay = False
        self.price = "0.3500"

    # -- the driver ----------------------------------------------------------------------------------------------

    def client(self, **changes: Any) -> Ec2Client:
        settings = {"run_module": self.run_module, "clock": lambda: self.now, "sleep": self.sleep}
        made = Ec2Client("us-east-1", jitter=lambda: 1.0, **{**settings, **changes})
        made._ec2 = self
        return made

    def account(self) -> SpotAccount:
        return SpotAccount(self.client(), self.store)

    def bring(self, state: str, check: bool = False, **order: Any) -> Any:
        """What ``aws_spot_instance`` returns; in check mode no module runs."""
        begun = len(self.ran)
        result = converge(self.account(), Desire(state, replace(ORDER, **order)), check)
        assert not check or len(self.ran) == begun
        return result

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def count(self, module: str) -> int:
        return sum(name == module for name, _arguments in self.ran)

    def living(self) -> list[str]:
        return [one for one, row in self.instances.items() if row["State"]["Name"] != "terminated"]

    def open_requests(self) -> list[str]:
        return [one for one, row in self.requests.items() if row["State"] == "open"]

    # -- what amazon.aws does ------------------------------------------------------------------------------------

    def run_module(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        short = name.removeprefix("amazon.aws.")
        assert name == f"amazon.aws.{short}"
        self.ran.append((short, dict(arguments)))
        kind = (arguments.get("launch_specification") or {}).get("instance_type", "")
        code = self.refused.get(short) or self.refused.get(kind)
        if code:
            return {"failed": True, "msg": "Failed", "error": {"code": code, "message": "so says the test"}}
        done = {
            "ec2_key": lambda _arguments: {"changed": True},
            "ec2_spot_instance": self._spot,
            "ec2_tag": self._tag,
            "ec2_instance": self._terminate,
        }[short](arguments)
        if self.lost[short] > 0:
            self.lost[short] -= 1
            return {"failed": True, "msg": "Failed to request spot instances", "traceback": "ConnectionClosedError"}
        return done

    def _spot(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if arguments["state"] == "absent":
            for one in arguments["spot_instance_request_ids"]:
                row = self.requests[one]
                if row["State"] == "open" and self.filled.get(self._kind(row)) == "as it is cancelled":
                    self._fill(one)
                row["State"] = "cancelled"
            return {"changed": True}
        token = arguments["client_token"]
        if token not in self.tokens:
            self.tokens[token] = self._request(arguments)
        return {"changed": True, "spot_request": {"spot_instance_request_id": self.tokens[token]}}

    def _request(self, arguments: Mapping[str, Any]) -> str:
        made = f"sir-{len(self.requests):08x}"
        asked = arguments["launch_specification"]
        self.requests[made] = {
            "SpotInstanceRequestId": made,
            "State": "open",
            "Status": {"Code": "capacity-not-available", "Message": "There is no capacity."},
            "SpotPrice": arguments["spot_price"],
            "CreateTime": BEGINNING,
            "Tags": _tags(arguments["tags"]),
            "LaunchSpecification": {"InstanceType": asked["instance_type"], "ImageId": asked["image_id"]},
        }
        if self.filled.get(asked["instance_type"], "now") == "now":
            self._fill(made)
        return made

    def _fill(self, request_id: str) -> None:
        row = self.requests[request_id]
        made, volume = f"i-{len(self.instances):08x}", f"vol-{len(self.volumes):08x}"
        row.update(State="active", InstanceId=made, Status={"Code": "fulfilled", "Message": ""})
        self.volumes[volume] = {"VolumeId": volume, "Size": 100, "State": "in-use", "Tags": []}
        self.instances[made] = {
            "InstanceId": made,
            "InstanceType": self._kind(row),
            "InstanceLifecycle": self.lifecycle,
            "State": {"Name": "running"},
            "LaunchTime": BEGINNING + datetime.timedelta(seconds=self.now),
            "Placement": {"AvailabilityZone": "us-east-1a"},
            "PublicIpAddress": "198.51.100.7",
            "PrivateIpAddress": "10.0.0.7",
            "ImageId": IMAGE,
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeId": volume}}],
            "Tags": [],
        }

    @staticmethod
    def _kind(request: Mapping[str, Any]) -> str:
        return str(request["LaunchSpecification"]["InstanceType"])

    def _tag(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        row = self.instances.get(arguments["resource"]) or self.volumes[arguments["resource"]]
        row["Tags"] = _tags({**{tag["Key"]: tag["Value"] for tag in row["Tags"]}, **arguments["tags"]})
        return {"changed": True}

    def _terminate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        (one,) = arguments["instance_ids"]
        row = self.instances.get(one)
        if row is None or row["State"]["Name"] == "terminated":
            return {"changed": False}
        row["State"] = {"Name": "terminated"}
        for mapped in row["BlockDeviceMappings"]:
            volume = self.volumes[mapped["Ebs"]["VolumeId"]]
            volume["State"] = "available" if self.volumes_stay else "deleted"
        return {"changed": True}

    # -- what boto3 answers --------------------------------------------------------------------------------------

    def get_paginator(self, call: str) -> Any:
        outer = self

        class Pages:
            def paginate(self, **about: Any) -> Iterator[dict[str, Any]]:
                yield getattr(outer, call)(**about)

        return Pages()

    def describe_instances(self, InstanceIds: Any = (), Filters: Any = ()) -> dict[str, Any]:
        unknown = [one for one in InstanceIds if one not in self.instances]
        if unknown:
            raise _error("InvalidInstanceID.NotFound", "DescribeInstances")
        rows = [row for one, row in self.instances.items() if not InstanceIds or one in InstanceIds]
        found = [row for row in rows if _fits(row, Filters, {"instance-id": row["InstanceId"]})]
        return self._answer(Reservations=[{"Instances": found}])

    def describe_spot_instance_requests(self, SpotInstanceRequestIds: Any = (), Filters: Any = ()) -> dict[str, Any]:
        unknown = [one for one in SpotInstanceRequestIds if one not in self.requests]
        if unknown:
            raise _error("InvalidSpotInstanceRequestID.NotFound", "DescribeSpotInstanceRequests")
        rows = [
            row for one, row in self.requests.items() if not SpotInstanceRequestIds or one in SpotInstanceRequestIds
        ]
        return self._answer(SpotInstanceRequests=[dict(row) for row in rows if _fits(row, Filters, {})])

    def describe_volumes(self, Filters: Any = ()) -> dict[str, Any]:
        rows = [row for row in self.volumes.values() if row["State"] != "deleted"]
        return self._answer(Volumes=[row for row in rows if _fits(row, Filters, {"volume-id": row["VolumeId"]})])

    def describe_images(self, ImageIds: Any) -> dict[str, Any]:
        disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 30}}
        row = {"ImageId": IMAGE, "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": [disk]}
        return self._answer(Images=[row] if IMAGE in ImageIds else [])

    def describe_instance_types(self, InstanceTypes: Any) -> dict[str, Any]:
        if not set(InstanceTypes) <= {BIG, SMALL}:
            raise _error("InvalidInstanceType", "DescribeInstanceTypes")
        return self._answer(InstanceTypes=[{"GpuInfo": {"Gpus": [_CARD]}}])

    def describe_spot_price_history(self, **_about: Any) -> dict[str, Any]:
        row = {"AvailabilityZone": "us-east-1a", "SpotPrice": self.price, "Timestamp": BEGINNING}
        return self._answer(SpotPriceHistory=[row] if self.price else [])

    def _answer(self, **found: Any) -> dict[str, Any]:
        date = email.utils.format_datetime(BEGINNING + datetime.timedelta(seconds=self.now))
        return {**found, "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {"date": date}}}


def _fits(row: Mapping[str, Any], filters: Any, fields: Mapping[str, str]) -> bool:
    tags = {tag["Key"]: tag["Value"] for tag in row.get("Tags", [])}
    known = {"tag-key": STAMP_TAG if STAMP_TAG in tags else "", f"tag:{STAMP_TAG}": tags.get(STAMP_TAG, ""), **fields}
    return all(known[one["Name"]] in one["Values"] for one in filters)


def _tags(named: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in named.items()]


def _error(code: str, call: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, call)
