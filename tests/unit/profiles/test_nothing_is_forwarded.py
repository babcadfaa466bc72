# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8: a box gets neither the team's ssh agent nor its screen, whatever ``~/.ssh/config`` hands to every host."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import listed_boxes
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.transfer import Link, ssh_argv

from gpu_tenant.box_ssh import Endpoint, ssh_command
from gpu_tenant.hosts import BoxHost

ROOT = Path(__file__).resolve().parents[3]
PROFILES = sorted((ROOT / "inventories/profiles/group_vars").glob("*.yml"))
WITH_LOGIN = [path for path in PROFILES if path.stem != "kubernetes"]
ALL_HANDED_OVER = "Host *\n  ForwardAgent yes\n  ForwardX11 yes\n  ForwardX11Trusted yes\n"
ENDPOINT = Endpoint("192.0.2.7", 40022, "root", "box-1.g1")


def forwarded(argv: list[str], folder: Path) -> dict[str, str]:
    """What ssh itself says of the command line, below a configuration that hands everything to every host."""
    config = folder / "config"
    config.write_text(ALL_HANDED_OVER)
    done = subprocess.run([argv[0], "-F", str(config), "-G", *argv[1:]], capture_output=True, text=True, check=True)
    said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    return {name: said[name] for name in ("forwardagent", "forwardx11")}


NOTHING = {"forwardagent": "no", "forwardx11": "no"}


def common_args(path: Path) -> str:
    """Those of a profile, with a word for what its templates tell."""
    return re.sub(r"\{\{.*?\}\}", "word", yaml.safe_load(path.read_text())["ansible_ssh_common_args"])


def test_the_configuration_would_hand_it_over(tmp_path: Path) -> None:
    assert forwarded(["ssh", "192.0.2.7"], tmp_path) == {"forwardagent": "yes", "forwardx11": "yes"}


@pytest.mark.parametrize("path", WITH_LOGIN, ids=lambda path: path.stem)
def test_no_profile_forwards_anything(path: Path, tmp_path: Path) -> None:
    assert forwarded(["ssh", *shlex.split(common_args(path)), "192.0.2.7"], tmp_path) == NOTHING


@pytest.mark.parametrize(
    "variables", [{"platform_driver": "vast"}, {}, {"ansible_ssh_common_args": "-C"}], ids=["rented", "own", "bare"]
)
@pytest.mark.parametrize("control_dir", ["", "/tmp/gt-x"])
def test_neither_does_the_runner(variables: dict[str, Any], control_dir: str, tmp_path: Path) -> None:
    argv = ssh_command(BoxHost("box-1", variables), ENDPOINT, "/state/known_hosts/box-1", control_dir)
    assert forwarded(argv, tmp_path) == NOTHING


def test_a_team_may_say_otherwise_of_a_box_of_its_own(tmp_path: Path) -> None:
    box = BoxHost("box-1", {"ansible_ssh_common_args": "-o ForwardAgent=yes"})
    argv = ssh_command(box, ENDPOINT, "/state/known_hosts/box-1", "")
    assert forwarded(argv, tmp_path) == {"forwardagent": "yes", "forwardx11": "no"}


def test_neither_do_copies_and_boxes_that_nobody_declares(tmp_path: Path) -> None:
    for own_connection in (True, False):
        assert forwarded([*ssh_argv(Link("192.0.2.7"), own_connection), "--", "192.0.2.7"], tmp_path) == NOTHING
    row = {"host": "192.0.2.7", "port": 22, "user": "root", "state": "running", "name": "lost", "generation": 3}
    words = listed_boxes.connection_of(row, StateStore(str(tmp_path)))["ansible_ssh_common_args"]
    assert forwarded(["ssh", *shlex.split(words), "192.0.2.7"], tmp_path) == NOTHING
