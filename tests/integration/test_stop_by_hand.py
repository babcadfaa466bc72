# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that only a person stops, by the real playbooks: prepared, not believed while it answers, then recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint, host_keys
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.host_key_scan import scan_once
from ports import free_port
from ssh_team import SshTeam, ssh_team
from supervised_box import wait_for

pytestmark = pytest.mark.integration
SPEC = {"id": "digits", "command": ["python", "train.py"], "artifacts": [{"glob": "m.pt", "role": "checkpoint"}]}
PARK = {
    "verb": "关机", "transport": "console", "stops_compute": True, "stops_storage": False, "keeps": ["disk"],
    "reversible": True,
}  # fmt: skip
# It keeps the disk, so that the gate asks for no evidence: what is tried here comes after the gate.
FULL = {**PARK, "verb": "释放", "stops_storage": True, "reversible": False}


@pytest.fixture
def team(tmp_path: Path) -> Iterator[SshTeam]:
    with ssh_team(tmp_path, SPEC) as found:
        found.rent("b1", platform_verbs={"compute_stop": [PARK], "park": [PARK], "full_stop": [FULL]})
        place = found._hosts["b1"]
        shown = wait_for("its key", lambda: scan_once(place["ansible_host"], int(place["ansible_port"])))
        pinned = host_keys.as_known_hosts(box_endpoint.alias("b1", 1), shown)
        records.write_bytes(StateStore(str(found.state_dir)).known_hosts_path("b1"), pinned.encode())
        yield found


def record(team: SshTeam) -> dict[str, object]:
    return StateStore(str(team.state_dir)).read_box("vision", "b1", 1) or {}


def test_a_stop_is_recorded_once_the_box_shows_its_key_no_more(team: SshTeam) -> None:
    words = ("-e", "tenant_state=parked", "-e", "provision_look_pause_s=0")
    said = team.play("provision", "b1", *words)
    assert "1. 关机 (in the console): ends compute charges, keeps disk" in said
    assert not record(team).get("parked_at")
    team._hosts["b1"]["ansible_port"] = free_port()
    team.play("provision", "b1", *words)
    assert record(team)["parked_at"]


def test_a_box_that_can_shut_itself_down_is_asked_to_and_watched_until_it_rests(team: SshTeam) -> None:
    """AutoDL's shutdown: what it ends here is the ssh server that plays the box."""
    itself = {**PARK, "transport": "box", "command": ["kill", str(team.sshd["b1"].process.pid)]}
    team._hosts["b1"]["platform_verbs"] = {"compute_stop": [PARK], "park": [itself], "full_stop": [FULL]}
    words = ("-e", "tenant_state=parked", "-e", "provision_look_pause_s=0")
    team.play("provision", "b1", *words, "--check")
    assert team.sshd["b1"].process.poll() is None, "check mode stops nothing"
    team.play("provision", "b1", *words)
    assert record(team)["parked_at"]
    assert "changed=0 " in team.play("provision", "b1", *words)


def test_a_release_is_not_believed_while_the_box_shows_its_key(team: SshTeam) -> None:
    words = ("-e", "teardown_released=true", "-e", "teardown_look_pause_s=0")
    said = team.play("teardown", "b1", *words, ok=False)
    assert "still shows its own host key" in said
    assert not record(team).get("destroyed_at")
    team._hosts["b1"]["ansible_port"] = free_port()
    assert "b1 is released" in team.play("teardown", "b1", *words)
    assert record(team)["destroyed_at"]
