# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of EC2: who it is, what it makes of refusals, and that it changes nothing by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import markets
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.api import Ec2Client, refusal_in
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.transformations import to_spot_box
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from small_cloud import SmallCloud

SECRET = "a-secret-of-the-controller"
TRACEBACK = """\
Traceback (most recent call last):
  File "x.py", line 1, in <module>
botocore.exceptions.ClientError: An error occurred (InvalidAMIID.NotFound) when calling the RequestSpotInstances \
operation (reached max retries: 4): The image id '[ami-1]' does not exist

The above exception was the direct cause of the following exception:

ansible_collections.amazon.aws.plugins.module_utils.ec2.AnsibleEC2Error: Failed to request spot instances
"""


def test_the_variables_of_a_box_name_the_account() -> None:
    values = {"aws_spot_region": "eu-west-1"}
    client = markets.client_of("aws_spot", values.get, timeout_s=3.0)
    assert isinstance(client, Ec2Client)
    assert (client.region, client.timeout_s) == ("eu-west-1", 3.0)
    assert client.base_url == "https://ec2.eu-west-1.amazonaws.com"
    assert SECRET not in repr(client) + client.account + client.redact(f"it was {SECRET}")


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(TenantFailure, match="no usable AWS credentials") as caught:
        Ec2Client("us-east-1")
    assert caught.value.kind == "config"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(TenantFailure, match="no usable AWS credentials"):
        Ec2Client("us-east-1")


def test_no_region_no_profile_no_such_address() -> None:
    with pytest.raises(TenantFailure, match="set aws_spot_region"):
        Ec2Client()
    with pytest.raises(TenantFailure, match="no AWS profile 'nobody'"):
        Ec2Client("us-east-1", "nobody")
    with pytest.raises(TenantFailure, match="neither https nor"):
        Ec2Client("us-east-1", base_url="http://ec2.example.com")
    with pytest.raises(TenantFailure, match="aws_spot_api_url"):
        Ec2Client("us-east-1", base_url="nowhere")


def test_keys_of_a_role_that_change_make_no_other_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def account(key: str, token: str) -> str:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
        return Ec2Client("us-east-1").account

    assert account("ASIAONE", "t1") == account("ASIATWO", "t2")
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    assert account("AKIAONE", "") != account("AKIATWO", "")
    (tmp_path / "aws-config").write_text("[profile team]\naws_access_key_id = A\naws_secret_access_key = B\n")
    assert Ec2Client("us-east-1", "team").account != Ec2Client("us-east-1").account


def test_a_client_that_only_looks_changes_nothing(cloud: SmallCloud) -> None:
    looking = cloud.client(run_module=None)
    assert looking.list_instances() == []
    for change in (lambda: looking.destroy_instance("i-0123456789abcdef0"), lambda: looking.request_spot({})):
        with pytest.raises(TenantFailure, match="runs in a play only"):
            change()


@pytest.mark.parametrize("provider_id", ["", "i-", "vol-01234567", "i-0123456789abcdef0; x", "../i-01234567"])
def test_ids_that_are_none(cloud: SmallCloud, provider_id: str) -> None:
    with pytest.raises(TenantFailure, match="is not the id of an instance"):
        cloud.client().get_instance(provider_id)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"error": {"code": "AuthFailure", "message": "no"}}, ("AuthFailure", "no")),
        ({"traceback": TRACEBACK}, ("InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist")),
        (
            {"traceback": "botocore.exceptions.ConnectionClosedError: Connection was closed\nmore"},
            ("", "ConnectionClosedError: Connection was closed"),
        ),
        ({"msg": "boto3 is required"}, ("", "boto3 is required")),
        ({}, ("", "no reason given")),
    ],
)
def test_what_a_failed_module_tells(result: dict[str, Any], told: tuple[str, str]) -> None:
    assert refusal_in(result) == told


INSTANCE = {"InstanceId": "i-01234567", "InstanceType": "g5.xlarge", "PublicIpAddress": "198.51.100.7"}


@pytest.mark.parametrize(
    ("status", "state", "intended", "leaving", "host"),
    [
        ("pending", "loading", "running", False, ""),
        ("running", "running", "running", False, "198.51.100.7"),
        ("stopping", "unknown", "stopped", False, ""),
        ("stopped", "stopped", "stopped", False, ""),
        ("shutting-down", "unknown", "running", True, ""),
        ("a new word", "unknown", "running", False, ""),
    ],
)
def test_states(status: str, state: str, intended: str, leaving: bool, host: str) -> None:
    box = to_spot_box({"id": "i-01234567", "instance": {**INSTANCE, "State": {"Name": status}}, "request": None})
    assert (box.state, box.intended, box.is_leaving, box.host) == (state, intended, leaving, host)
    assert (box.dph_total, box.num_gpus, box.stamp) == (None, None, None), "unknown is never 0"


def test_how_one_logs_in_is_told_by_its_tag_and_checked() -> None:
    running = {**INSTANCE, "State": {"Name": "running"}}

    def box(**about: Any) -> Any:
        return to_spot_box({"id": "i-01234567", "instance": {**running, **about}, "request": None})

    tagged = box(Tags=[{"Key": "gpu-tenant-login", "Value": "ec2-user:2222"}])
    assert (tagged.user, tagged.port) == ("ec2-user", 2222)
    bad = box(Tags=[{"Key": "gpu-tenant-login", "Value": "-oProxyCommand=x:22"}])
    assert (bad.host, bool(bad.endpoint_problem)) == ("", True)
    private = box(PublicIpAddress=None, PrivateIpAddress="10.0.0.7")
    assert private.host == "10.0.0.7"
    assert box(PublicIpAddress=None).state == "loading"
