# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The manifests against the API's own schema, and what they say of failures, secrets and volumes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.job import read_manifests
from export_places import PLACES

from gpu_tenant.export import targets
from gpu_tenant.export.kubernetes import unexpanded
from gpu_tenant.export.place import Place

PLACE = PLACES["kubernetes"]


def manifests(spec: dict[str, Any], place: Place = PLACE, cell: str = "") -> dict[str, dict[str, Any]]:
    text = targets.render("kubernetes", spec, place, cell).text
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def validate() -> Callable[[dict[str, Any]], None]:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    version = kubernetes_validate.latest_version()
    return lambda document: kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("cell", ["", "seed-1"])
def test_the_schema_of_the_api_takes_them(
    spec: dict[str, Any], cell: str, validate: Callable[[dict[str, Any]], None]
) -> None:
    found = manifests(spec, Place(image="train:1", gpu="NVIDIA-A100", storage_class="fast"), cell)
    assert sorted(found) == ["Job", "PersistentVolumeClaim"]
    for document in found.values():
        validate(document)


@pytest.mark.parametrize("where", ["spec", "spec.template.spec", "spec.podFailurePolicy.rules.1.onExitCodes"])
def test_a_misspelt_key_would_be_seen(
    spec: dict[str, Any], where: str, validate: Callable[[dict[str, Any]], None]
) -> None:
    job = copy.deepcopy(manifests(spec)["Job"])
    place: Any = job
    for key in where.split("."):
        place = place[int(key) if key.isdigit() else key]
    place["mistake"] = 1
    with pytest.raises(Exception, match="mistake"):
        validate(job)


@pytest.mark.parametrize("place", [PLACE, Place(image="train:1")])
def test_the_module_that_applies_them_takes_them(spec: dict[str, Any], place: Place) -> None:
    text = targets.render("kubernetes", spec, place, "").text
    taken = read_manifests(list(yaml.safe_load_all(text)))
    assert taken.job == manifests(spec, place)["Job"]
    assert taken.claim == manifests(spec, place).get("PersistentVolumeClaim")


def test_several_cells_are_one_indexed_job_on_a_volume_for_many_nodes(spec: dict[str, Any]) -> None:
    found = manifests(spec)
    job = found["Job"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 2, 2)
    assert job["backoffLimitPerIndex"] == 3
    assert "backoffLimit" not in job
    claim = found["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "32Gi"


def test_one_cell_is_a_plain_job_with_its_numbers(spec: dict[str, Any]) -> None:
    found = manifests(spec, cell="seed-1")
    job = found["Job"]["spec"]
    assert job["backoffLimit"] == 3
    assert job["activeDeadlineSeconds"] == 7200
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] > 40
    container = pod["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert container["args"] == ["python", "train.py", "--epochs", "3", "--seed", "1"]
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_an_eviction_and_a_resumable_stop_use_up_no_try(spec: dict[str, Any]) -> None:
    rules = manifests(spec)["Job"]["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Ignore"]
    assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert rules[1]["onExitCodes"] == {"containerName": "trainer", "operator": "In", "values": [30]}


def test_checkpoints_lie_on_the_volume_and_cells_share_no_folder(spec: dict[str, Any]) -> None:
    job = manifests(spec)["Job"]["spec"]["template"]["spec"]
    mount = job["containers"][0]["volumeMounts"][0]
    assert mount["mountPath"] == "/checkpoints"
    assert (
        job["volumes"][0]["persistentVolumeClaim"]["claimName"]
        in manifests(spec)["PersistentVolumeClaim"]["metadata"]["name"]
    )
    script = job["containers"][0]["command"][2]
    folders = [line.partition("=")[2] for line in script.splitlines() if "export TENANT_CHECKPOINT_DIR=" in line]
    assert len(set(folders)) == 2
    assert all(folder.startswith("/checkpoints/grid.one/") for folder in folders)


def test_secrets_are_named_and_come_from_a_secret(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-value")
    rendered = targets.render("kubernetes", spec, PLACE)
    assert "planted-value" not in rendered.text
    env = manifests(spec)["Job"]["spec"]["template"]["spec"]["containers"][0]["env"]
    entry = next(entry for entry in env if entry["name"] == "HF_TOKEN")
    assert entry["valueFrom"]["secretKeyRef"]["key"] == "HF_TOKEN"
    assert entry["valueFrom"]["secretKeyRef"]["name"] in rendered.text.partition("---")[0]


def test_a_secret_wins_over_the_environment_of_the_run(spec: dict[str, Any]) -> None:
    env = manifests({**spec, "env": {"HF_TOKEN": "x"}})["Job"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [list(entry) for entry in env if entry["name"] == "HF_TOKEN"] == [["name", "valueFrom"]]


def test_a_claim_that_exists_is_used_and_not_made(spec: dict[str, Any]) -> None:
    found = manifests(spec, Place(image="train:1", checkpoints="ours"))
    assert sorted(found) == ["Job"]
    assert found["Job"]["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "ours"


def test_names_fit_and_differ_by_spec_and_by_cell(spec: dict[str, Any]) -> None:
    long = {**spec, "id": "X" * 63}
    names = [manifests(long, cell=cell)["Job"]["metadata"]["name"] for cell in ("", "seed-0", "seed-1")]
    names.append(manifests({**long, "spec_sha256": "f" * 64})["Job"]["metadata"]["name"])
    assert len(set(names)) == 4
    # A pod's host name has a hyphen and the index besides, in 63 characters.
    assert all(len(name) <= 52 and name == name.lower() for name in names)


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "--image"), ({"image": "a b"}, "no name"), ({"image": "a", "checkpoints": "A_b"}, "--checkpoints 'A_b'")],
)
def test_a_place_that_cannot_be_is_refused(spec: dict[str, Any], given: dict[str, str], said: str) -> None:
    with pytest.raises(TenantFailure, match=said):
        manifests(spec, Place(**given))


def test_every_dollar_is_doubled() -> None:
    assert unexpanded("a$(B)$") == "a$$(B)$$"
