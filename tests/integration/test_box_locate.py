# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where a box is, asked of a provider that speaks vast.ai's wire, by the real ansible-playbook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from listing_provider import KEY, Provider, serving
from tenant_plays import CORES, ROOT, Plays, words

pytestmark = pytest.mark.integration


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as server:
        yield server


@pytest.fixture
def controller(request: pytest.FixtureRequest, tmp_path: Path, provider: Provider) -> Plays:
    plays = Plays(ROOT / getattr(request, "param", CORES[0]) / "bin", tmp_path)
    (tmp_path / "key").write_text(KEY + "\n", encoding="utf-8")
    inventory(plays, provider, ["a1"])
    return plays


def inventory(plays: Plays, provider: Provider, names: list[str], **variables: Any) -> None:
    common = {
        "tenant_project": "demo",
        "tenant_state_dir": str(plays.folder / "state"),
        "vast_api_url": provider.url,
        "vast_api_key_file": str(plays.folder / "key"),
        **variables,
    }
    plays.write_inventory({"vast": {"hosts": {name: {} for name in names}}, "all": {"vars": common}})


def locate(**options: Any) -> dict[str, Any]:
    return {"name": "locate", "tenant.gpu.box_locate": options}


def endpoint(answers: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answers["locate"]["ansible_facts"]["box_endpoint"]
    return found


@pytest.mark.parametrize("controller", CORES, indirect=True)
def test_the_fact_becomes_the_connection(controller: Plays, provider: Provider) -> None:
    provider.add("a1", generation=2)
    provider.add("a1", generation=1, actual_status="exited", cur_state="stopped", intended_status="stopped")
    provider.add("a1", generation=9, project="other")
    show = {
        "name": "show",
        "ansible.builtin.debug": {
            "msg": "{{ ansible_host }} {{ ansible_port }} {{ ansible_user }} {{ ansible_ssh_common_args }}"
        },
    }
    answers, done = controller.play([locate(), show])
    found = endpoint(answers)
    assert (found["host"], found["port"], found["user"]) == ("192.0.2.10", 40000, "root")
    assert (found["generation"], found["alias"], found["provider_id"]) == (2, "a1.g2", "5000")
    assert found["state"] == "running"
    assert found["superseded"] == [{"provider_id": "5001", "generation": 1, "state": "stopped"}]
    assert "superseded machines of it are still rented and bill: 5001" in words(done)
    assert answers["show"]["msg"].startswith("192.0.2.10 40000 root -o HostKeyAlias=a1.g2 ")
    assert "DEPRECATION" not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    for path in (controller.folder / "state").rglob("*"):
        if path.is_file():
            assert KEY not in path.read_text()
            assert "s3cret" not in path.read_text()
            assert path.stat().st_mode & 0o077 == 0


def test_an_absent_box_fails_closed_and_is_no_failure(controller: Plays, provider: Provider) -> None:
    answers, done = controller.play([locate()], "--check")
    found = endpoint(answers)
    assert (found["state"], found["host"], found["generation"]) == ("absent", "not-located.invalid", 0)
    assert provider.asked == 1
    connect = {"name": "ping", "ansible.builtin.raw": "true"}
    _answers, done = controller.play([locate(), connect], ok=False)
    assert "unreachable=1" in done.stdout
    _answers, done = controller.play([locate(require=True)], ok=False)
    assert "the provider lists no box of this name and project" in words(done)


def test_many_boxes_ask_once(controller: Plays, provider: Provider) -> None:
    names = [f"b{number}" for number in range(12)]
    for name in names:
        provider.add(name)
    inventory(controller, provider, names)
    controller.play([locate(max_age_s=3600), dict(locate(max_age_s=3600), name="again")])
    assert provider.asked == 1
    controller.play([locate(refresh=True)], "-l", "b0")
    assert provider.asked == 2


def test_a_box_on_record_that_is_not_listed_is_asked_for_twice(controller: Plays, provider: Provider) -> None:
    store = StateStore(str(controller.folder / "state"))
    store.update_box("demo", "a1", 1, provider_id="5000", destroyed_at=None)
    answers, _done = controller.play([locate()])
    assert endpoint(answers)["state"] == "absent"
    assert provider.asked == 2
    provider.add("a1")
    answers, _done = controller.play([locate(max_age_s=3600)])
    assert endpoint(answers)["state"] == "running"


def test_a_destroyed_box_on_a_list_that_lags_behind_is_absent(controller: Plays, provider: Provider) -> None:
    ghost = provider.add("a1", generation=2)
    provider.only_listed = {ghost["id"]}
    store = StateStore(str(controller.folder / "state"))
    store.update_box("demo", "a1", 2, provider_id=str(ghost["id"]), destroyed_at="2026-11-21T04:00:00Z")
    answers, _done = controller.play([locate()])
    assert endpoint(answers)["state"] == "absent"
    provider.only_listed = set()
    answers, _done = controller.play([locate(refresh=True)])
    assert endpoint(answers)["state"] == "running", "whatever our record says, its own item shows it"


def test_a_host_name_that_is_an_option_is_never_a_connection(controller: Plays, provider: Provider) -> None:
    provider.add("a1", public_ipaddr="-oProxyCommand=touch${IFS}ran")
    answers, done = controller.play([locate()])
    assert endpoint(answers)["host"] == "not-located.invalid"
    assert "which cannot be one" in endpoint(answers)["problem"]
    _answers, done = controller.play([locate(require=True)], ok=False)
    assert "cannot be reached" in words(done)
    assert not (controller.folder / "ran").exists()


def test_text_of_the_provider_is_never_a_template(controller: Plays, provider: Provider) -> None:
    provider.add(
        "a1", public_ipaddr="{{ lookup('pipe', 'touch ran') }}", status_msg="{{ lookup('pipe', 'touch ran') }}"
    )
    controller.play([locate(), {"name": "show", "ansible.builtin.debug": {"var": "ansible_facts"}}])
    assert not (controller.folder / "ran").exists()


def test_a_refused_key_is_said_once_for_all_forks(controller: Plays, provider: Provider) -> None:
    inventory(controller, provider, ["b0", "b1", "b2", "b3"])
    provider.status = 401
    _answers, done = controller.play([locate(max_age_s=3600)], ok=False)
    assert provider.asked == 1
    assert done.stdout.count("failed=1") == 4
    assert KEY not in done.stdout + done.stderr


def test_no_key_is_a_sentence(controller: Plays, provider: Provider) -> None:
    inventory(controller, provider, ["a1"], vast_api_key_file="")
    _answers, done = controller.play([locate()], ok=False)
    assert "there is no API key" in words(done)
    assert provider.asked == 0


def test_a_box_in_two_platforms_is_refused(controller: Plays, provider: Provider) -> None:
    hosts = json.loads((controller.folder / "hosts.yml").read_text())
    hosts["autodl"] = {"hosts": {"a1": {}}}
    controller.write_inventory(hosts)
    _answers, done = controller.play([locate()], ok=False)
    assert "the box is in 2 platform groups: autodl, vast" in words(done)


def test_a_box_in_no_platform_is_refused(controller: Plays, provider: Provider) -> None:
    hosts = json.loads((controller.folder / "hosts.yml").read_text())
    hosts["elsewhere"] = {"hosts": {"e1": {"ansible_connection": "local"}}}
    controller.write_inventory(hosts)
    _answers, done = controller.play([locate()], "-l", "e1", ok=False)
    assert "the box is in no platform group" in words(done)


@pytest.mark.parametrize("controller", CORES, indirect=True)
def test_a_team_s_wrong_value_is_told_with_its_file_and_line(controller: Plays, provider: Provider) -> None:
    own = controller.folder / "host_vars" / "a1.yml"
    own.parent.mkdir()
    own.write_text("---\n# Of our own.\nplatform_data_dir: relative\n", encoding="utf-8")
    _answers, done = controller.play([locate()], "-l", "a1", ok=False)
    assert f"{own}:3: platform_data_dir: 'relative' does not look right" in words(done)
