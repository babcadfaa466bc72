# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What each role does with a box is chosen once, by the name of the file that it includes: the very expressions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLES = Path(__file__).resolve().parents[3] / "roles"
FINISHED = {"box": "b", "generation": 1}
HERE = {"host": "198.51.100.7", "port": 25145}


def facts(
    finished: Any = None, state: str = "running", roots: tuple[str, ...] = ("/d/gpu-tenant",), **more: Any
) -> dict[str, Any]:
    endpoint = {**HERE, "state": state, "superseded": more.pop("superseded", [])}
    record = {"admitted_at": more.pop("admitted_at", "2026-11-21T00:00:00Z"), "tenant_roots": list(roots)}
    spec = {"finished": finished, "nodes": more.pop("nodes", {}), "parts": more.pop("parts", [])}
    spec["tracker"] = {"name": more.pop("tracker", "none")}
    more.setdefault("harvest_parts", spec["parts"])
    return {
        "ansible_facts": {"box_endpoint": endpoint, "box_record": record, "run_spec": spec, "box_mirrors": {}},
        "tenant_state": "running",
        "platform_driver": "vast",
        "platform_data_dir": "/d",
        "deploy_root": "/d/gpu-tenant",
        "train_drill": False,
        "harvest_offline": False,
        "harvest_snapshot": False,
        "harvest_object_store": "",
        "harvest_roles": [],
        "harvest_exclude": [],
        "ansible_play_role_names": ["tenant.gpu.deploy"],
        **more,
    }


def chosen(role: str, name: str, known: dict[str, Any]) -> Any:
    loader = DataLoader()
    variables = loader.load_from_file(str(ROLES / role / "vars/main.yml"), trusted_as_template=True)
    return Templar(loader=loader, variables={**variables, **known}).template(variables[name])


@pytest.mark.parametrize(
    ("role", "known", "step"),
    [
        ("provision", facts(), "vast/provision"),
        ("provision", facts(tenant_state="parked"), "vast/park"),
        ("provision", facts(platform_driver=""), "static/provision"),
        ("provision", facts(platform_driver="", tenant_state="parked"), "static/park"),
        ("deploy", facts(), "run"),
        ("deploy", facts(roots=()), "begin"),
        ("deploy", facts(roots=("/other",)), "begin"),
        ("deploy", facts(state="stopped"), "not_running"),
        ("deploy", facts(platform_data_dir=""), "not_running"),
        ("train", facts(), "run"),
        ("train", facts(nodes={"wait_s": 60}, parts=["a", "b"]), "nodes"),
        ("train", facts(nodes={"count": 2}), "job_nodes"),
        ("train", facts(train_drill=True), "drilled"),
        ("train", facts(state="outbid"), "not_running"),
        ("harvest", facts(), "run"),
        ("harvest", facts(FINISHED), "standing"),
        ("harvest", facts(FINISHED, harvest_snapshot=True), "run"),
        ("harvest", facts(FINISHED, harvest_object_store="s3://bucket"), "run"),
        ("harvest", facts(FINISHED, harvest_parts=["a", "b"]), "run"),
        ("harvest", facts(FINISHED, harvest_parts=["a", "b"], parts=["a", "b"]), "standing"),
        ("harvest", facts(FINISHED, harvest_roles=["checkpoint"]), "run"),
        ("harvest", facts(FINISHED, harvest_exclude=["cache/**"]), "run"),
        ("harvest", facts(FINISHED, tracker="wandb"), "run"),
        ("harvest", facts(state="offline"), "at_rest"),
        ("harvest", facts(state="offline", harvest_offline=True), "run"),
        ("harvest", facts(FINISHED, "absent"), "at_rest"),
        ("harvest", facts(FINISHED, platform_driver=""), "rests_static"),
    ],
)
def test_the_file_that_is_included(role: str, known: dict[str, Any], step: str) -> None:
    assert chosen(role, f"__{role}_step", known) == step
    assert (ROLES / role / "tasks" / f"{step}.yml").is_file()


@pytest.mark.parametrize(
    ("known", "settles", "of_snapshot"),
    [
        ({"harvest_roles": ["metrics"]}, True, "OMIT"),
        ({"harvest_exclude": ["cache/**"]}, True, "OMIT"),
        ({}, False, "OMIT"),
        ({"harvest_roles": ["metrics"], "harvest_snapshot": True}, False, ["metrics"]),
        ({"harvest_exclude": ["cache/**"], "harvest_snapshot": True}, False, []),
    ],
)
def test_only_a_harvest_settles_what_comes_home_and_a_snapshot_chooses_for_itself(
    known: dict[str, Any], settles: bool, of_snapshot: Any
) -> None:
    tasks = DataLoader().load_from_file(str(ROLES / "harvest/tasks/files.yml"), trusted_as_template=True)
    engine = Templar(loader=DataLoader(), variables={**facts(**known), "omit": "OMIT"})
    (choice,) = [task for task in tasks if "tenant.gpu.harvest_policy" in task]
    assert all(engine.evaluate_conditional(each) for each in choice["when"]) is settles
    (taken,) = [task["tenant.gpu.manifest"] for task in tasks if "tenant.gpu.manifest" in task]
    assert engine.template(taken["roles"]) == of_snapshot


@pytest.mark.parametrize(("because", "counts"), [("", True), ("all of the finished run is home there", False)])
def test_a_snapshot_beside_the_results_is_no_copy_and_gets_no_receipt(because: str, counts: bool) -> None:
    tasks = DataLoader().load_from_file(str(ROLES / "harvest/tasks/files.yml"), trusted_as_template=True)
    known = {"__harvest_sync": {"beside_because": because, "changed": True}, "ansible_check_mode": False}
    engine = Templar(loader=DataLoader(), variables={**facts(**known), "harvest_object_store": "s3://bucket"})
    syncs = [task for task in tasks if "tenant.gpu.checked_sync" in task]
    (store,) = [task for task in syncs if task["tenant.gpu.checked_sync"]["direction"] == "store"]
    (receipt,) = [task for task in tasks if "tenant.gpu.receipt" in task]
    for task in (store, receipt):
        assert all(engine.evaluate_conditional(each) for each in task["when"]) is counts
    # Without a receipt nothing is asked of one.
    (noted,) = [task["ansible.builtin.set_fact"] for task in tasks if "ansible.builtin.set_fact" in task]
    told = {**facts(**known), "__harvest_receipt": {"receipt": {"home": True}} if counts else {"skipped": True}}
    assert Templar(loader=DataLoader(), variables=told).template(noted["__harvest_home"]) is counts


def test_a_snapshot_that_takes_no_place_is_no_generation_of_its_box() -> None:
    known = facts(harvest_dest="/results", tenant_project="demo", inventory_hostname="b")
    known["ansible_facts"]["box_endpoint"]["generation"] = 3
    known["ansible_facts"]["run_spec"]["id"] = "r"
    assert chosen("harvest", "__harvest_folder", known) == "/results/demo/r/b/g3"
    assert chosen("harvest", "__harvest_beside", known) == "/results/demo/r/b/beside-g3"


def test_a_deploy_alone_asks_first_which_sources_the_box_uses() -> None:
    known = facts()
    del known["ansible_facts"]["box_mirrors"]
    assert chosen("deploy", "__deploy_step", known) == "alone"
    assert chosen("deploy", "__deploy_step", {**known, "__mirrors_done": {"skipped": True}}) == "run"
    # With a mirrors role before it: there was nothing to choose, or it was left out by --tags.
    known["ansible_play_role_names"].insert(0, "tenant.gpu.mirrors")
    assert chosen("deploy", "__deploy_step", {**known, "__mirrors_wanted": False}) == "run"
    assert chosen("deploy", "__deploy_step", {**known, "__mirrors_wanted": True}) == "alone"


@pytest.mark.parametrize("role", ["provision", "deploy", "train"])
def test_a_finished_run_ends_the_role_before_anything_else(role: str) -> None:
    first = DataLoader().load_from_file(str(ROLES / role / "tasks/main.yml"), trusted_as_template=True)[0]
    assert first["ansible.builtin.meta"] == "end_role"
    for finished, ends in ((None, False), (FINISHED, True)):
        engine = Templar(loader=DataLoader(), variables=facts(finished))
        assert engine.evaluate_conditional(first["when"]) is ends


@pytest.mark.parametrize(
    ("known", "looks"),
    [
        (facts(admitted_at=None, state="absent"), True),
        (facts(admitted_at=None), True),
        (facts(), False),
        (facts(admitted_at=None, state="absent", tenant_state="parked"), False),
        (facts(admitted_at=None, state="absent", tenant_results_dir=""), False),
    ],
)
def test_what_lies_at_home_is_looked_at_before_a_box_that_the_store_does_not_know_is_rented(
    known: dict[str, Any], looks: bool
) -> None:
    tasks = DataLoader().load_from_file(str(ROLES / "provision/tasks/main.yml"), trusted_as_template=True)
    (place,) = [number for number, task in enumerate(tasks) if "tenant.gpu.results_at_home" in task]
    engine = Templar(loader=DataLoader(), variables={"tenant_results_dir": "/results", **known})
    assert all(engine.evaluate_conditional(each) for each in tasks[place]["when"]) is looks
    after = tasks[place + 1]
    assert (after["ansible.builtin.meta"], after["when"]) == ("end_role", tasks[0]["when"])
    assert not [task for task in tasks[:place] if "ansible.builtin.include_tasks" in task]


@pytest.mark.parametrize(
    ("known", "seen", "settled"),
    [
        (facts(), {}, True),
        (facts(admitted_at=None), {}, False),
        (facts(state="loading"), {}, False),
        (facts(superseded=[{"provider_id": "7"}]), {}, False),
        (facts(), {"port": 31118}, False),
        (facts(), {"host": "198.51.100.8"}, False),
    ],
)
@pytest.mark.parametrize("kind", ["instance", "pod", "machine"])
def test_only_a_box_as_declared_is_merely_logged_in_to(
    known: dict[str, Any], seen: dict[str, Any], settled: bool, kind: str
) -> None:
    """What the rental module saw is newer than the list that the box was located in."""
    rental = {"changed": False, kind: {**HERE, **seen}}
    assert chosen("provision", "__provision_is_settled", {**known, "__provision_rental": rental}) is settled
    changed = {**rental, "changed": True}
    assert not chosen("provision", "__provision_is_settled", {**known, "__provision_rental": changed})
