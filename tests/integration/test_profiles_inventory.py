# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The profiles inventory through the real ansible-inventory and ansible-playbook, on every core that is installed."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
CORES = [name for name in (".venv", ".venv-2.21") if (ROOT / name / "bin" / "ansible-inventory").exists()]
SHIPPED = {path.stem for path in (ROOT / "inventories/profiles/group_vars").glob("*.yml")}


@dataclass
class Ansible:
    """One ansible-core, run in an empty folder with nothing of the user's configuration."""

    bin: Path
    cwd: Path
    plugins: str = "tenant.gpu.profiles,ansible.builtin.yaml,ansible.builtin.ini"

    def __call__(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.cwd),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            **({"ANSIBLE_INVENTORY_ENABLED": self.plugins} if self.plugins else {}),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [str(self.bin / tool), *arguments]
        return subprocess.run(
            command, cwd=self.cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    def hosts(self, *sources: Path) -> dict[str, dict[str, Any]]:
        """The variables of every host, after every inventory source has spoken."""
        arguments = [part for source in sources for part in ("-i", str(source))]
        done = self("ansible-inventory", *arguments, "--list")
        assert done.returncode == 0, done.stderr
        assert "deprecat" not in done.stderr.lower(), done.stderr
        found: dict[str, dict[str, Any]] = json.loads(done.stdout)["_meta"]["hostvars"]
        return found


def plain_ansible(core: str, folder: Path) -> Ansible:
    (folder / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
    return Ansible(ROOT / core / "bin", folder)


@pytest.fixture(params=CORES)
def ansible(request: pytest.FixtureRequest, tmp_path: Path) -> Ansible:
    return plain_ansible(request.param, tmp_path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    return write(tmp_path / "source" / "profiles.yml", "---\nplugin: tenant.gpu.profiles\n")


TEAM = (
    "vast:\n  hosts:\n    a1:\n    a2:\nssh:\n  hosts:\n    s1: {ansible_host: 192.0.2.7}\n"
    "all:\n  vars:\n    tenant_project: demo\n    tenant_state_dir: /tmp/demo state\n"
)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    return write(tmp_path / "team" / "hosts.yml", TEAM)


def test_declares_a_group_for_every_platform(ansible: Ansible, profiles: Path, team: Path) -> None:
    done = ansible("ansible-inventory", "-i", str(profiles), "-i", str(team), "--list")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    listed = json.loads(done.stdout)
    assert SHIPPED - {"autodl"} <= set(listed["all"]["children"])
    variables = listed["_meta"]["hostvars"]["a1"]
    assert variables["platform_name"] == "vast"
    assert set(variables["tenant_platform_groups"]) == SHIPPED


# Each place where a team writes sets another variable, so that one process answers for all of them.
PLACES = {
    "group_vars/vast.yml": "platform_data_dir",
    "group_vars/all.yml": "platform_hf_home",
    "host_vars/a1.yml": "platform_python",
    "inline": "platform_tensorboard_logdir",
}


@pytest.fixture(scope="module", params=CORES)
def in_every_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, dict[str, dict[str, Any]]]:
    """What the hosts get of a team that writes in every place, with the profiles read first and last."""
    folder = tmp_path_factory.mktemp("places")
    profiles = write(folder / "source" / "profiles.yml", "---\nplugin: tenant.gpu.profiles\n")
    inline = f"  vars: {{{PLACES['inline']}: /mine}}\n"
    team = write(folder / "team" / "hosts.yml", TEAM.replace("vast:\n", f"vast:\n{inline}"))
    for place, variable in PLACES.items():
        if place != "inline":
            write(team.parent / place, f"{variable}: /mine\n")
    ansible = plain_ansible(request.param, folder)
    return {True: ansible.hosts(profiles, team), False: ansible.hosts(team, profiles)}


@pytest.mark.parametrize("profiles_first", [True, False])
@pytest.mark.parametrize("where", PLACES)
def test_the_team_wins_in_either_order(
    in_every_place: dict[bool, dict[str, dict[str, Any]]], where: str, profiles_first: bool
) -> None:
    hosts, variable = in_every_place[profiles_first], PLACES[where]
    assert hosts["a1"][variable] == "/mine"
    assert (hosts["a2"][variable] == "/mine") is (where != "host_vars/a1.yml")
    assert (hosts["s1"][variable] == "/mine") is (where == "group_vars/all.yml")


def test_the_checkouts_own_source_lets_group_vars_all_win(ansible: Ansible, team: Path) -> None:
    write(team.parent / "group_vars" / "all.yml", "platform_data_dir: /mine\n")
    source = ROOT / "inventories" / "example" / "profiles.yml"
    for sources in ((source, team), (team, source)):
        assert ansible.hosts(*sources)["a1"]["platform_data_dir"] == "/mine"


def test_strings_stay_templates(ansible: Ansible, profiles: Path, team: Path) -> None:
    playbook = write(
        team.parent / "show.yml",
        "- hosts: a1,s1\n  gather_facts: false\n  connection: local\n  tasks:\n"
        "    - name: Before the box is located\n      ansible.builtin.assert:\n        that:\n"
        "          - hostvars['a1'].ansible_host == 'not-located.invalid'\n"
        "          - hostvars['a1'].ansible_port == 22\n"
        "          - hostvars['a1'].ansible_user == 'root'\n"
        "          - hostvars['a1'].ansible_python_interpreter == '/usr/bin/python3'\n"
        "          - \"'HostKeyAlias=a1 ' in hostvars['a1'].ansible_ssh_common_args\"\n"
        "          - hostvars['s1'].platform_data_dir == '/root'\n"
        "    - name: Say where it is\n      ansible.builtin.set_fact:\n        cacheable: true\n"
        "        box_endpoint: {host: 192.0.2.9, port: 40022, user: kim, alias: a1.g3}\n"
        "    - name: After\n      ansible.builtin.assert:\n        that:\n"
        "          - hostvars['a1'].ansible_host == '192.0.2.9'\n"
        "          - hostvars['a1'].ansible_port == 40022\n"
        "          - hostvars['a1'].ansible_user == 'kim'\n"
        "          - \"'HostKeyAlias=a1.g3 ' in hostvars['a1'].ansible_ssh_common_args\"\n"
        "          - \"'\\\"/tmp/demo state/known_hosts/a1\\\"' in hostvars['a1'].ansible_ssh_common_args\"\n",
    )
    done = ansible("ansible-playbook", "-i", str(profiles), "-i", str(team), str(playbook))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DEPRECATION" not in done.stdout + done.stderr


def test_the_auto_plugin_of_a_plain_ansible_finds_it(ansible: Ansible, profiles: Path, team: Path) -> None:
    ansible.plugins = ""
    assert ansible.hosts(profiles, team)["a1"]["platform_name"] == "vast"


def test_the_example_inventory_is_whole(ansible: Ansible) -> None:
    source = ROOT / "inventories" / "example"
    expected = {"resnet-a": "vast", "bert-cn": "autodl", "basement": "ssh"}
    hosts = ansible.hosts(source)
    for host, platform in expected.items():
        assert hosts[host]["platform_name"] == platform
        assert hosts[host]["tenant_project"] == "papers"
    assert hosts["basement"]["platform_ssh_user"] == "kim"


def test_a_team_adds_and_replaces_platforms(ansible: Ansible, tmp_path: Path, team: Path) -> None:
    shipped = (ROOT / "inventories/profiles/group_vars/ssh.yml").read_text(encoding="utf-8")
    write(
        tmp_path / "own" / "platforms" / "basement.yml",
        shipped.replace("platform_name: ssh", "platform_name: basement"),
    )
    write(
        tmp_path / "own" / "platforms" / "ssh.yml", shipped.replace("platform_detach: setsid", "platform_detach: tmux")
    )
    source = write(tmp_path / "own" / "profiles.yaml", "plugin: tenant.gpu.profiles\npath: platforms\n")
    team.write_text(team.read_text() + "basement:\n  hosts: {b1: }\n", encoding="utf-8")
    hosts = ansible.hosts(source, team)
    assert hosts["b1"]["platform_name"] == "basement"
    assert hosts["s1"]["platform_detach"] == "tmux"
    assert set(hosts["a1"]["tenant_platform_groups"]) == SHIPPED | {"basement"}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("platform_name: ssh", "platform_name: sssh"), ["platform_name", "write broken"]),
        (("platform_detach: setsid", "platform_detach: nohup"), ["platform_detach", "'nohup' is not one of"]),
        (("platform_python:", "platform_pyton:"), ["platform_pyton", "did you mean platform_python?"]),
        (
            ("platform_endpoint_stable: true", "platform_endpoint_stable: 'yes'"),
            ["platform_endpoint_stable", "boolean"],
        ),
    ],
)
def test_a_broken_profile_names_file_line_key_and_fix(
    ansible: Ansible, tmp_path: Path, edit: tuple[str, str], said: list[str]
) -> None:
    shipped = (ROOT / "inventories/profiles/group_vars/ssh.yml").read_text(encoding="utf-8")
    text = shipped.replace("platform_name: ssh", "platform_name: broken") if "name" not in edit[0] else shipped
    text = text.replace(*edit, 1)
    broken = write(tmp_path / "own" / "p" / "broken.yml", text)
    line = 1 + text[: text.index(edit[1])].count("\n")
    source = write(tmp_path / "own" / "profiles.yml", "plugin: tenant.gpu.profiles\npath: p\n")
    done = ansible("ansible-inventory", "-i", str(source), "--list")
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert "Traceback" not in message
    for part in [f"{broken}:{line}: ", "Fix:", *said]:
        assert part in message, message


def test_facts_that_nobody_checked_for_a_year_are_told_where_a_box_depends_on_them(
    ansible: Ansible, tmp_path: Path, team: Path
) -> None:
    shipped = (ROOT / "inventories/profiles/group_vars/ssh.yml").read_text(encoding="utf-8")
    old = re.sub(r"(platform_verified:) .*", '\\1 "2024-02"', shipped)
    profile = write(tmp_path / "own" / "p" / "ssh.yml", old)
    source = write(tmp_path / "own" / "profiles.yml", "plugin: tenant.gpu.profiles\npath: p\n")
    look = write(
        tmp_path / "look.yml",
        "- hosts: s1\n  gather_facts: false\n  tasks:\n"
        "    - tenant.gpu.box_locate: {project: demo, state_dir: state}\n",
    )
    line = 1 + old[: old.index("platform_verified:")].count("\n")
    told = f"{profile}:{line}: platform_verified: these facts were last checked"

    def said() -> str:
        done = ansible("ansible-playbook", "-i", str(source), "-i", str(team), str(look))
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    assert told in said()
    write(team.parent / "group_vars" / "ssh.yml", f'platform_verified: "{datetime.date.today():%Y-%m}"\n')
    assert "last checked" not in said()


def test_a_host_in_two_platforms_is_refused(ansible: Ansible, profiles: Path, team: Path) -> None:
    team.write_text(team.read_text() + "autodl:\n  hosts: {a1: }\n", encoding="utf-8")
    done = ansible("ansible-inventory", "-i", str(team), "-i", str(profiles), "--list")
    assert done.returncode != 0
    assert "a1" in done.stderr
    assert "2 platform groups: autodl, vast" in " ".join(done.stderr.split())


def test_other_yaml_is_left_to_other_plugins(ansible: Ansible, tmp_path: Path) -> None:
    source = write(tmp_path / "own" / "profiles.yml", "all:\n  hosts:\n    plain: {x: 1}\n")
    assert ansible.hosts(source)["plain"]["x"] == 1


def test_an_installed_collection_finds_its_profiles(
    ansible: Ansible, tmp_path: Path, team: Path, profiles: Path
) -> None:
    home = tmp_path / "installed" / "ansible_collections" / "tenant" / "gpu"
    for part in ("plugins", "inventories", "meta", "galaxy.yml"):
        home.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            # Without what other processes compile meanwhile: such a file has another name when it is to be copied.
            shutil.copytree(ROOT / part, home / part, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        else:
            shutil.copy(ROOT / part, home / part)
    environment_root = tmp_path / "installed"
    done = subprocess.run(
        [str(ansible.bin / "ansible-inventory"), "-i", str(profiles), "-i", str(team), "--host", "a1"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(environment_root),
            "ANSIBLE_INVENTORY_ENABLED": "tenant.gpu.profiles,ansible.builtin.yaml",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["platform_name"] == "vast"
