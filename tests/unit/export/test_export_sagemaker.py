# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The request: taken by botocore's own check and by moto, and refused by us where the service would refuse it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from botocore.exceptions import ParamValidationError
from export_places import PLACES
from moto import mock_aws

from gpu_tenant.export import sagemaker, targets

PLACE = PLACES["sagemaker"]


def request(spec: dict[str, Any], **place: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(targets.render("sagemaker", spec, replace(PLACE, **place)).text)
    return found


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patched, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patched.setenv(name, "testing")
        yield boto3.client("sagemaker", region_name="eu-west-1")


def test_the_service_takes_it_and_says_it_back(one_cell: dict[str, Any], service: Any) -> None:
    sent = request(one_cell)
    service.create_training_job(**sent)
    known = service.describe_training_job(TrainingJobName=sent["TrainingJobName"])
    for key in ("CheckpointConfig", "StoppingCondition", "EnableManagedSpotTraining", "ResourceConfig"):
        assert known[key] == sent[key], key
    assert sent["EnableManagedSpotTraining"] is True
    assert sent["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert sent["Environment"]["TENANT_CHECKPOINT_DIR"].startswith("/opt/ml/checkpoints/")


def test_botocore_would_refuse_a_wrong_request(one_cell: dict[str, Any], service: Any) -> None:
    for wrong in ({"StoppingCondition": {"MaxRuntimeInSeconds": "long"}}, {"NoSuchKey": 1}):
        with pytest.raises(ParamValidationError):
            service.create_training_job(**{**request(one_cell), **wrong})


def test_the_wait_is_longer_than_the_run(one_cell: dict[str, Any]) -> None:
    assert request(one_cell)["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 14400}
    assert request(one_cell, max_wait_s=7201)["StoppingCondition"]["MaxWaitTimeInSeconds"] == 7201
    for short in (1, 7199, 7200):
        with pytest.raises(TenantFailure, match="--max-wait-s") as refused:
            request(one_cell, max_wait_s=short)
        assert refused.value.exit_code == 10


def test_a_trainer_is_told_no_more_grace_than_there_is(one_cell: dict[str, Any]) -> None:
    rendered = targets.render("sagemaker", {**one_cell, "grace_s": 600}, PLACE)
    assert json.loads(rendered.text)["Environment"]["TENANT_GRACE_S"] == "120"
    assert any(note.startswith("grace_s") for note in rendered.notes)
    assert request(one_cell)["Environment"]["TENANT_GRACE_S"] == "40"


def test_secrets_and_several_cells_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(TenantFailure, match=r"2 cells.*--cell: seed-0, seed-1"):
        request(spec)
    with pytest.raises(TenantFailure, match="no place for the secrets HF_TOKEN"):
        targets.render("sagemaker", spec, PLACE, "seed-0")


def test_cells_of_one_run_have_names_and_prefixes_of_their_own(spec: dict[str, Any]) -> None:
    plain = {**spec, "secrets": [], "id": "X" * 63}
    found = [json.loads(targets.render("sagemaker", plain, PLACE, cell).text) for cell in ("seed-0", "seed-1")]
    assert len({one["TrainingJobName"] for one in found}) == 2
    assert len({one["CheckpointConfig"]["S3Uri"] for one in found}) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": ["python", "x" * 257]}, "257 characters"),
        ({"command": ["python", *["x"] * 100]}, "words"),
        ({"command": ["python", "a\nb"]}, "line end"),
        ({"env": {"LONG": "x" * 513}}, "513 characters"),
        ({"env": {f"V{number}": "x" for number in range(100)}}, "environment variables"),
        ({"deadline_s": 29 * 86400}, "28 days"),
    ],
)
def test_what_the_service_takes_no_more_of(one_cell: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(TenantFailure, match=said):
        request({**one_cell, **change})


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"checkpoints": "/data"}, "no S3 prefix"),
        ({"role": "me"}, "no role"),
        ({"instance_type": "g5.xlarge"}, "ml."),
        ({"image": ""}, "--image"),
        ({"gpu": "A100"}, "no use for --gpu"),
    ],
)
def test_a_place_that_cannot_be_is_refused(one_cell: dict[str, Any], place: dict[str, str], said: str) -> None:
    with pytest.raises(TenantFailure, match=said):
        request(one_cell, **place)


def test_our_limits_are_those_of_the_service(service: Any) -> None:
    shape = service.meta.service_model.operation_model("CreateTrainingJob").input_shape.members
    algorithm, environment = shape["AlgorithmSpecification"].members, shape["Environment"]
    words = algorithm["ContainerArguments"]
    assert words.metadata["max"] == sagemaker.MOST_WORDS
    assert (
        words.member.metadata["max"] == algorithm["ContainerEntrypoint"].member.metadata["max"] == sagemaker.MOST_WORD
    )
    assert environment.metadata["max"] == sagemaker.MOST_VARIABLES
    assert environment.value.metadata["max"] == environment.key.metadata["max"] == sagemaker.MOST_VALUE
    assert shape["TrainingJobName"].metadata["max"] == sagemaker.MOST_NAME
    assert algorithm["TrainingImage"].metadata["max"] == sagemaker.MOST_IMAGE
    assert shape["CheckpointConfig"].members["S3Uri"].metadata["max"] == sagemaker.MOST_URI
    assert shape["RetryStrategy"].members["MaximumRetryAttempts"].metadata["max"] == sagemaker.MOST_RETRIES
