# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What an inventory said is taken again only while nothing changed that it came from; Ansible is asked otherwise."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import lease
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import hosts, inventory_memory, inventory_purity
from gpu_tenant.inventory_memory import Memory, TooMuch, digest

REQUEST = {"limit": "all", "sources": [], "extra_vars": []}


# --- hashes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "group_vars").mkdir(parents=True)
    (tmp_path / "tree" / "hosts.yml").write_text("all:\n")
    (tmp_path / "tree" / "group_vars" / "all.yml").write_text("a: 1\n")
    return tmp_path / "tree"


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a value": lambda tree: (tree / "group_vars" / "all.yml").write_text("a: 2\n"),
    "a new file": lambda tree: (tree / "group_vars" / "vast.yml").write_text("a: 2\n"),
    "an empty new file": lambda tree: (tree / "group_vars" / "vast.yml").touch(),
    "a new folder": lambda tree: (tree / "host_vars").mkdir(),
    "a file less": lambda tree: (tree / "hosts.yml").unlink(),
    "a new name": lambda tree: (tree / "hosts.yml").rename(tree / "boxes.yml"),
    "what may be run": lambda tree: (tree / "hosts.yml").chmod(0o755),
    "a link for a file": lambda tree: (tree / "more.yml").symlink_to("hosts.yml"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_changes_the_hash(tree: Path, change: str) -> None:
    before = digest([str(tree)])
    assert digest([str(tree), str(tree)]) == before
    CHANGES[change](tree)
    assert digest([str(tree)]) != before


def test_what_is_absent_is_seen_to_come(tree: Path) -> None:
    before = digest([str(tree / "none")])
    (tree / "none").mkdir()
    assert digest([str(tree / "none")]) != before


def test_what_python_keeps_beside_its_sources_is_no_change(tree: Path) -> None:
    before = inventory_memory.digest([str(tree)])
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__/profiles.cpython-311.pyc").write_bytes(b"bytecode")
    assert inventory_memory.digest([str(tree)]) == before


def test_a_linked_file_is_read_through(tree: Path) -> None:
    (tree / "more.yml").symlink_to(tree.parent / "far.yml")
    before = digest([str(tree)])
    (tree.parent / "far.yml").write_text("b: 1\n")
    there = digest([str(tree)])
    (tree.parent / "far.yml").write_text("b: 2\n")
    assert len({before, there, digest([str(tree)])}) == 3


def endless(tree: Path) -> None:
    (tree / "again").symlink_to(tree)


def many(tree: Path) -> None:
    for number in range(inventory_memory.MOST_FILES):
        (tree / str(number)).touch()


def large(tree: Path) -> None:
    with (tree / "large").open("wb") as stream:
        stream.truncate(inventory_memory.MOST_BYTES + 1)


@pytest.mark.parametrize("what", [endless, many, large, lambda tree: os.mkfifo(tree / "pipe")])
def test_what_cannot_be_hashed_is_not_kept(tree: Path, what: Callable[[Path], None]) -> None:
    what(tree)
    with pytest.raises(TooMuch):
        digest([str(tree)])


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment with a cache of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTEST"))}
    return {**environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def kept(environment: dict[str, str]) -> list[Path]:
    return list(Path(environment["XDG_CACHE_HOME"]).glob("gpu-tenant/inventories/*.json"))


def remember(environment: dict[str, str], reads: list[Path]) -> None:
    paths = [str(path) for path in reads]
    Memory(REQUEST, environment).keep({"boxes": [1]}, paths, digest(paths))


def test_what_was_kept_is_there(here: dict[str, str], tree: Path) -> None:
    assert Memory(REQUEST, here).answer() is None
    remember(here, [tree])
    assert Memory(REQUEST, here).answer() == {"boxes": [1]}
    [path] = kept(here)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_forgotten_when_a_file_changes(here: dict[str, str], tree: Path, change: str) -> None:
    remember(here, [tree])
    CHANGES[change](tree)
    assert Memory(REQUEST, here).answer() is None


@pytest.mark.parametrize(
    "request_", [{**REQUEST, "limit": "vast"}, {**REQUEST, "sources": ["x"]}, {**REQUEST, "extra_vars": ["a=1"]}]
)
def test_another_question_has_another_answer(here: dict[str, str], tree: Path, request_: dict[str, Any]) -> None:
    remember(here, [tree])
    assert Memory(request_, here).answer() is None


def test_environment_folder_day_and_configuration_count(
    here: dict[str, str], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(here, [tree])
    assert Memory(REQUEST, {**here, "VAST_URL": "http://other"}).answer() is None
    assert Memory(REQUEST, {**here, "TERM": "another", "SHLVL": "9"}).answer() is not None
    Path("ansible.cfg").write_text("[defaults]\n")
    assert Memory(REQUEST, here).answer() is None
    Path("ansible.cfg").unlink()
    assert Memory(REQUEST, here).answer() is not None
    monkeypatch.setattr(inventory_memory.time, "strftime", lambda *_words: "2026-01-01")
    assert Memory(REQUEST, here).answer() is None
    monkeypatch.undo()
    assert Path.cwd() != tree
    monkeypatch.chdir(tree)
    assert Memory(REQUEST, here).answer() is None


def test_a_file_of_variables_counts(here: dict[str, str], tree: Path) -> None:
    Path("more.yml").write_text("a: 1\n")
    asked = {**REQUEST, "extra_vars": ["@more.yml"]}
    Memory(asked, here).keep({"boxes": []}, [str(tree)], digest([str(tree)]))
    assert Memory(asked, here).answer() is not None
    Path("more.yml").write_text("a: 2\n")
    assert Memory(asked, here).answer() is None


def test_a_file_of_variables_is_found_at_home_as_ansible_finds_it(
    here: dict[str, str], tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "more.yml").write_text("a: 1\n")
    asked = {**REQUEST, "extra_vars": ["@~/more.yml"]}
    Memory(asked, here).keep({"boxes": []}, [str(tree)], digest([str(tree)]))
    assert Memory(asked, here).answer() is not None
    (tmp_path / "more.yml").write_text("a: 2\n")
    assert Memory(asked, here).answer() is None


def test_nothing_is_kept_of_variables_that_are_not_where_they_are_looked_for(here: dict[str, str], tree: Path) -> None:
    asked = {**REQUEST, "extra_vars": ["@nowhere.yml"]}
    Memory(asked, here).keep({"boxes": []}, [str(tree)], digest([str(tree)]))
    assert not kept(here)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"form": "another"}', '{"form": 7, "reads": 3}', "\0"])
def test_a_damaged_memory_is_none(here: dict[str, str], tree: Path, text: str) -> None:
    remember(here, [tree])
    kept(here)[0].write_text(text)
    assert Memory(REQUEST, here).answer() is None


def test_what_others_can_write_is_not_believed(here: dict[str, str], tree: Path) -> None:
    remember(here, [tree])
    kept(here)[0].chmod(0o622)
    assert Memory(REQUEST, here).answer() is None


def test_a_link_is_not_followed(here: dict[str, str], tree: Path) -> None:
    remember(here, [tree])
    [path] = kept(here)
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))
    assert Memory(REQUEST, here).answer() is None


def test_where_nothing_can_be_kept_nothing_is_lost(here: dict[str, str], tree: Path) -> None:
    Path(here["XDG_CACHE_HOME"]).write_text("a file")
    remember(here, [tree])
    assert Memory(REQUEST, here).answer() is None


def test_the_oldest_are_forgotten(here: dict[str, str], tree: Path) -> None:
    for number in range(inventory_memory.MOST_KEPT + 3):
        Memory({**REQUEST, "limit": str(number)}, here).keep({}, [str(tree)], digest([str(tree)]))
    assert len(kept(here)) == inventory_memory.MOST_KEPT


# --- what may be kept -------------------------------------------------------------------------------------------------

PURE = [
    "plain",
    "{{ a }}/b",
    "{{ a | default('x') | lower }}",
    "{{ ansible_facts['box']['host'] | default('none') }}",
    "{{ tenant_state_dir | ansible.builtin.expanduser }}/known_hosts",
    "{{ '/root' if user == 'root' else '/home/' ~ user }}",
    "{{ lookup('env', 'HOME') }}",
    "{{ lookup('ansible.builtin.env', 'VAST_URL') or 'http://127.0.0.1' }}",
    "{% if a is defined %}b{% endif %}",
    ["{{ a }}", {"b": "{{ c }}"}],
    {"after": "{{ hours | default(168) | int ~ 'h' }}"},
    7,
    None,
    True,
    1.5,
]
IMPURE = [
    "{{ lookup('pipe', 'date') }}",
    "{{ lookup('file', '/etc/hostname') }}",
    "{{ query('inventory_hostnames', 'all') }}",
    "{{ lookup('env', name) }}",
    "{{ lookup('env', 'TERM') }}",
    "{{ lookup('env') }}",
    "{{ lookup(kind, 'HOME') }}",
    "{{ lookup('env', 'HOME', default='x') }}",
    "{{ now() }}",
    "{{ now().year }}",
    "{{ a.b() }}",
    "{{ 5 | random }}",
    "{{ '/etc/passwd' | realpath }}",
    "{{ a | map('random') | list }}",
    "{{ '/x' is file }}",
    "{% for each in range(3) %}{{ each }}{% endfor %}",
    "{% include 'other' %}",
    "{{ broken",
    "#jinja2: variable_start_string: '[['\n{ [[ now() ]] }",
    ["{{ a }}", {"b": ["{{ now() }}"]}],
    {"{{ now() }}": 1},
    b"bytes",
]


@pytest.mark.parametrize("value", PURE, ids=str)
def test_what_depends_on_variables_and_environment_alone_may_be_kept(value: Any) -> None:
    assert inventory_purity.Purity().holds({"a": value})


@pytest.mark.parametrize("value", IMPURE, ids=lambda value: str(value)[:40])
def test_what_asks_anybody_else_is_asked_anew(value: Any) -> None:
    purity = inventory_purity.Purity()
    assert not purity.holds({"other": "plain", "a": value})
    # Of the next host of the group, too.
    assert not purity.holds({"other": "plain", "a": value})


@pytest.mark.parametrize(
    "name",
    ["vast_api_key", "ssh_password", "tenant_token", "WANDB_SECRET", "ansible_become_pass", "vast_pwd", "gh_pat"],
)
def test_a_secret_is_not_kept(name: str) -> None:
    assert inventory_purity.has_secret({name: "abc"})
    assert inventory_purity.has_secret({"deep": [{"er": {name: "abc"}}]})
    assert inventory_purity.has_secret({name: ["abc"]})
    assert not inventory_purity.has_secret({name: "", f"{name}_file": "~/.key"})


@pytest.mark.parametrize("value", ["http://user:hunter2@proxy:3128", "sshpass -p hunter2 ssh"])
def test_a_password_within_a_value_is_not_kept(value: str) -> None:
    assert inventory_purity.has_secret({"a": [value]})
    assert not inventory_purity.has_secret({"a": "ssh://user@box:22", "provision_host_keys": ["ssh-ed25519 AAAA"]})


# --- the whole way, with Ansible ------------------------------------------------------------------------------------


class Team:
    """A team's folder, asked for its boxes; ``asked`` counts the times that Ansible was."""

    def __init__(self, folder: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.environment, self.asked = folder, environment, 0
        (folder / "group_vars").mkdir()
        (folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
        self.hosts()
        really = hosts._ask

        def counted(request: str, environment: dict[str, str]) -> dict[str, Any]:
            self.asked += 1
            return really(request, environment)

        monkeypatch.setattr(hosts, "_ask", counted)

    def hosts(self, **variables: Any) -> None:
        known = {"tenant_project": "demo", "tenant_state_dir": "/state", **variables}
        self.text(json.dumps({"vast": {"hosts": {"b1": {}}, "vars": known}}))

    def text(self, text: str) -> None:
        (self.folder / "hosts.yml").write_text(text)

    def box(self) -> hosts.BoxHost:
        return self.inventory().boxes[0]

    def inventory(self) -> hosts.Inventory:
        sources = [str(self.folder / name) for name in ("profiles.yml", "hosts.yml")]
        return hosts.resolve("vast", sources, (), self.environment)


@pytest.fixture
def team(here: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Team:
    collections = Path(__file__).parents[3] / "collections"
    environment = {
        **here,
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_INVENTORY_ENABLED": "tenant.gpu.profiles,tenant.gpu.vast,script,ansible.builtin.yaml",
    }
    return Team(Path.cwd(), environment, monkeypatch)


def test_ansible_is_asked_once_and_the_answer_is_the_same(team: Team) -> None:
    first, second = team.box(), team.box()
    assert team.asked == 1
    assert first == second
    assert first.text("platform_name") == "vast"
    (team.folder / "group_vars" / "vast.yml").write_text("tenant_project: other\n")
    assert team.box().text("tenant_project") == "other"
    assert team.asked == 2


def test_the_names_of_the_whole_inventory_come_with_the_boxes_of_the_limit(team: Team) -> None:
    """Also the second time, from memory. A group without a box, and one of boxes that nobody declared, is no name."""
    told = {
        "vast": {"hosts": {"b1": {}}},
        "far": {"children": {"azure_spot": {"hosts": {"a1": {}}}}},
        "empty": {},
        "tenant_undeclared": {"hosts": {"stranger": {}}},
    }
    team.text(json.dumps(told))
    for _time in range(2):
        found = team.inventory()
        assert found.names == ("b1",)
        assert list(found.boxes[0].groups) == ["all", "vast"]
        assert set(found.declared) == {"all", "a1", "azure_spot", "b1", "far", "vast"}
    assert team.asked == 1


def test_whose_lease_is_to_be_taken_is_known_to_the_runner_too(team: Team) -> None:
    team.hosts()
    sources = [str(team.folder / name) for name in ("profiles.yml", "hosts.yml")]
    found = hosts.resolve("vast", sources, ["box_lease_from=45c86d0221a7"], team.environment)
    assert found.boxes[0].text(lease.TAKE_OVER) == "45c86d0221a7"


def test_the_environment_that_a_variable_is_made_of_counts(team: Team) -> None:
    team.hosts(tenant_results_dir="{{ lookup('env', 'RESULTS') }}")
    team.environment["RESULTS"] = "/one"
    assert [team.box().text("tenant_results_dir") for _time in range(2)] == ["/one", "/one"]
    team.environment["RESULTS"] = "/two"
    assert team.box().text("tenant_results_dir") == "/two"
    assert team.asked == 2


def script(team: Team) -> None:
    told = {"vast": {"hosts": ["b1"], "vars": {"tenant_project": "demo"}}}
    team.text(f"#!/bin/sh\necho '{json.dumps(told)}'\n")
    (team.folder / "hosts.yml").chmod(0o755)


def own_plugin(team: Team) -> None:
    (team.folder / "vars_plugins").mkdir()
    text = "from ansible.plugins.vars import BaseVarsPlugin\nclass VarsModule(BaseVarsPlugin):\n"
    text += (
        "    def get_vars(self, loader, path, entities, cache=True):\n        return {'tenant_results_dir': '/own'}\n"
    )
    (team.folder / "vars_plugins" / "own.py").write_text(text)
    team.environment["ANSIBLE_VARS_PLUGINS"] = str(team.folder / "vars_plugins")


VAULTED = "$ANSIBLE_VAULT;1.1;AES256\n3162\n"
NEVER: dict[str, Callable[[Team], Any]] = {
    "a command": lambda team: team.hosts(tenant_results_dir="{{ lookup('pipe', 'date +%N') }}"),
    "a secret": lambda team: team.hosts(vast_api_key="0123456789"),
    "a secret from the environment": lambda team: team.hosts(vast_api_key="{{ lookup('env', 'HOME') }}"),
    "a vault": lambda team: (team.folder / "group_vars" / "autodl.yml").write_text(VAULTED),
    "a script": script,
    "a cache of facts": lambda team: team.environment.update(
        ANSIBLE_CACHE_PLUGIN="jsonfile", ANSIBLE_CACHE_PLUGIN_CONNECTION=str(team.folder / "facts")
    ),
    "an own plugin of variables": own_plugin,
}


@pytest.mark.parametrize("case", NEVER)
def test_what_may_change_by_itself_or_must_not_lie_around_is_asked_each_time(team: Team, case: str) -> None:
    NEVER[case](team)
    for time in (1, 2):
        assert team.box().name == "b1"
        assert team.asked == time
    assert kept(team.environment) == []


def test_an_error_is_asked_again(team: Team) -> None:
    team.text("vast: [")
    for _time in range(2):
        with pytest.raises(TenantFailure, match="no box matches"):
            team.box()
    assert team.asked == 2


def test_a_source_that_names_another_plugin_is_asked_each_time(tmp_path: Path) -> None:
    source = tmp_path / "vast.yml"
    for text in (
        "plugin: tenant.gpu.vast\n",
        '{"plugin": "tenant.gpu.vast"}',
        "x: &p {plugin: y}\n<<: *p\n",
        "plugin:\n",
    ):
        source.write_text(text)
        assert inventory_purity.reads([str(source)], str(tmp_path)) is None, text
    source.write_text("plugin: tenant.gpu.profiles\npath: own\n")
    found = inventory_purity.reads([str(source)], str(tmp_path))
    assert found is not None
    assert {str(source), str(tmp_path / "own"), str(tmp_path / "group_vars")} <= set(found)
    assert any(path.endswith("inventories/profiles/group_vars") for path in found)
