# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes that a template completes: what is taken from it, what beats it, what it may not bring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from faulty_market import FaultyMarket

TEMPLATE = {
    "name": "digits", "image": "pytorch/pytorch", "tag": "2.9-runtime", "env": "-e A=theirs -e B=2 -p 8080:8080",
    "onstart": "echo of the template", "runtype": "jupyter", "recommended_disk_space": 500,
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FaultyMarket]:
    made = FaultyMarket(tmp_path, machines=40)
    yield made
    made.market.close()


def publish(world: FaultyMarket, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = world.request("POST", "/api/v0/template/", {**TEMPLATE, **changes}).body["template"]
    return made


def converge(world: FaultyMarket, template: str, state: str = "present", **changes: Any) -> dict[str, Any]:
    return world.converge(state, template=template, offers=40, **changes)


def row_of(world: FaultyMarket, made: dict[str, Any]) -> dict[str, Any]:
    return world.rows()[int(made["instance"]["provider_id"])]


def refused(world: FaultyMarket, template: str, **changes: Any) -> TenantFailure:
    with pytest.raises(TenantFailure) as caught:
        converge(world, template, **changes)
    assert not world.rows(), "something was rented"
    assert world.count("PUT", "/asks/") == 0
    return caught.value


@pytest.mark.parametrize("by", ["hash_id", "id"])
def test_a_template_completes_what_is_declared(world: FaultyMarket, by: str) -> None:
    template = publish(world)
    made = converge(world, str(template[by]), image="", onstart="", env={"A": "ours"})
    row = row_of(world, made)
    assert (row["image_uuid"], row["onstart"]) == ("pytorch/pytorch:2.9-runtime", "echo of the template")
    environment = dict(row["extra_env"])
    assert environment.pop("TENANT_STAMP") == made["stamp"]
    assert environment == {"A": "ours", "B": "2", "-p 8080:8080": "1"}
    assert row["template_hash_id"] == template["hash_id"]
    assert row["disk_space"] == 20, "the disk is always what is declared"
    assert row["image_runtype"] == "ssh ssh_direc ssh_proxy" or row["image_runtype"] == "ssh_direc ssh_proxy"


def test_what_is_declared_beats_the_template(world: FaultyMarket) -> None:
    made = converge(world, publish(world)["hash_id"], image="debian:12", onstart="echo ours", ports=("6006/tcp",))
    row = row_of(world, made)
    assert (row["image_uuid"], row["onstart"]) == ("debian:12", "echo ours")
    assert {"-p 8080:8080", "-p 6006:6006"} <= set(dict(row["extra_env"]))


def test_the_second_run_changes_nothing_and_compares_with_both(world: FaultyMarket) -> None:
    template = publish(world)["hash_id"]
    converge(world, template, image="", onstart="")
    again = converge(world, template, image="", onstart="")
    assert (again["changed"], again["differs"]) == (False, [])
    other = converge(world, publish(world, tag="3.0")["hash_id"], image="", onstart="")
    assert [one["name"] for one in other["differs"]] == ["image"]
    assert len(world.rows()) == 1


def test_a_template_that_went_does_not_stop_its_box(world: FaultyMarket) -> None:
    template = publish(world)
    converge(world, template["hash_id"], image="", onstart="")
    world.request("DELETE", "/api/v0/template/", {"hash_id": template["hash_id"]})
    again = converge(world, template["hash_id"], state="started", image="", onstart="")
    assert again["changed"] is False
    assert "was not compared" in again["warnings"][0]


def test_check_mode_shows_what_the_template_brings_and_rents_nothing(world: FaultyMarket) -> None:
    template = publish(world)
    would = converge(world, template["hash_id"], image="", onstart="", check=True)["would"]
    assert would["image"] == "pytorch/pytorch:2.9-runtime"
    shown = {"id", "hash_id", "name", "image", "env", "ports", "onstart_characters"}
    assert set(would["template"]) == shown
    assert (would["template"]["env"], would["template"]["ports"]) == (["A", "B"], ["8080/tcp"])
    assert "theirs" not in str(would), "values of an environment are shown nowhere"
    assert not world.rows()


def test_only_offers_that_open_the_templates_ports_are_rented(world: FaultyMarket) -> None:
    many = " ".join(f"-p {port}:{port}" for port in range(8000, 8040))
    made = converge(world, publish(world, env=many)["hash_id"], image="", onstart="")
    machine = world.market.books.machines_by_id[row_of(world, made)["machine_id"]]
    assert machine.direct_ports >= 41


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ("-v V.5:/data", "brings a volume"),
        ("--volume=/etc:/host", "brings a volume"),
        ("-n host", "brings a network"),
        ("-h other", "brings a host name"),
        ("-p 8000-8010:8000-8010", "not single ones"),
        ("-e TENANT_STAMP=x", "TENANT_STAMP"),
        ("-e 2A=x", "no variable's name"),
    ],
)
def test_what_no_template_may_bring(world: FaultyMarket, env: str, word: str) -> None:
    failure = refused(world, publish(world, env=env)["hash_id"], image="", onstart="")
    assert word in failure.what
    assert (failure.kind, failure.safe) == ("config", "nothing was rented")


@pytest.mark.parametrize(
    ("template", "word"),
    [("f" * 32, "sees no template"), ("77", "sees no template"), ("no such!", "neither a template's hash id")],
)
def test_templates_that_are_not_there(world: FaultyMarket, template: str, word: str) -> None:
    assert word in refused(world, template).what


def test_the_limits_hold_for_what_a_template_brings(world: FaultyMarket) -> None:
    long = publish(world, onstart="".join(f"echo {number * 7919 % 65521:x}\n" for number in range(1500)))["hash_id"]
    assert "onstart" in refused(world, long, image="", onstart="").what
    key = publish(world, env=f"-e LEAK={world.client().key}")["hash_id"]
    assert "API key" in refused(world, key, image="", onstart="").what
