# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a module says that it returns is what the code behind it returns."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.transformations import (
    to_file_system,
    to_vm,
    vm_result,
)
from ansible_collections.tenant.gpu.plugins.module_utils.leftovers import Leftover
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.transformations import machine_result, to_machine
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.transformations import pod_result, to_pod
from ansible_collections.tenant.gpu.plugins.module_utils.vast.price_rises import PriceRise, rise_result
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"


def block(path: Path, name: str) -> Any:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{path.name} has no {name}")


def documented(module: str, part: str) -> set[str]:
    return set(block(PLUGINS / f"modules/{module}.py", "RETURN")[part]["contains"])


def test_a_price_rise_is_returned_as_documented() -> None:
    told = rise_result(PriceRise(1, 0.2, 0.01, {}, None, None), to_box({"id": 1}), "told", 0.3)
    assert documented("vast_instance", "price_rises") == set(told)


def test_a_file_system_is_returned_as_documented() -> None:
    told = to_file_system({"id": "a", "name": "b"}).as_result()
    assert documented("lambda_instance", "file_systems") == set(told)
    listed = block(PLUGINS / "modules/lambda_instance_info.py", "RETURN")["file_systems"]["description"]
    assert all(f"C({name})" in listed for name in told)


def test_nothing_is_documented_of_a_machine_that_is_not_returned() -> None:
    assert documented("runpod_pod", "pod") <= set(pod_result(to_pod({"id": "a"})))
    assert {"container_disk_gb", "volume_gb", "volume_mount_path"} <= documented("runpod_pod", "pod")
    assert documented("lambda_instance", "instance") <= set(vm_result(to_vm({"id": "a"})))
    assert documented("paperspace_machine", "machine") <= set(machine_result(to_machine({"id": "a"})))


def test_a_leftover_is_returned_as_documented() -> None:
    told = Leftover("snapshot", "a", "b", "c", None).as_result()
    assert documented("paperspace_machine", "leftovers") == set(told)
    listed = block(PLUGINS / "modules/paperspace_machine_info.py", "RETURN")["leftovers"]["description"]
    assert all(f"C({name})" in listed for name in told)


def test_options_are_typed_alike_where_they_are_documented_and_where_they_are_checked() -> None:
    """Of what only an action takes: a path of the box must not be made one of the controller."""
    for name in ("copy_reading", "resume_drill"):
        options = block(PLUGINS / f"modules/{name}.py", "DOCUMENTATION")["options"]
        text = (PLUGINS / f"action/{name}.py").read_text(encoding="utf-8")
        for option, said in options.items():
            assert f'"{option}": {{"type": "{said["type"]}"' in text, (name, option)


def test_options_of_volumes_have_their_own_fragment() -> None:
    def options(fragment: str) -> set[str]:
        return set(block(PLUGINS / f"doc_fragments/{fragment}.py", "DOCUMENTATION")["options"])

    assert options("vast_volumes") == {"volumes"}
    assert "volumes" not in options("vast_ranking")
    for module in ("vast_instance", "vast_offer_info"):
        wanted = block(PLUGINS / f"modules/{module}.py", "DOCUMENTATION")["extends_documentation_fragment"]
        assert "tenant.gpu.vast_volumes" in wanted
