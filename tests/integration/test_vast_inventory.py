# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The inventory of vast.ai boxes through the real ansible-inventory, on every core that is installed."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import last_contact, listed_boxes
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.last_contact import Reached
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.options import client_of
from ansible_collections.tenant.gpu.plugins.module_utils.vast.shown import SHOWN
from listing_provider import KEY, Provider, serving
from tenant_plays import CORES, ROOT

from gpu_tenant.marketplace import offers
from gpu_tenant.marketplace.instances import Instance, Phase
from gpu_tenant.marketplace.state import MarketState, StateDirectory
from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = pytest.mark.integration

Done = subprocess.CompletedProcess[str]
ATTACK = "{{ lookup('pipe', 'touch ran') }}"


@dataclass
class Team:
    """A team's inventory folder, and one ansible-core that reads it and nothing of the user's configuration."""

    bin: Path
    folder: Path
    url: str
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def write(self, **hosts: list[str]) -> None:
        """Boxes by platform group."""
        self.inventory.mkdir(exist_ok=True)
        (self.folder / "key").write_text(KEY + "\n", encoding="utf-8")
        groups = {group: {"hosts": {key: {} for key in names}} for group, names in hosts.items()}
        (self.inventory / "hosts.yml").write_text(json.dumps(groups), encoding="utf-8")
        (self.inventory / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n", encoding="utf-8")
        (self.inventory / "group_vars").mkdir(exist_ok=True)
        (self.inventory / "group_vars" / "all.yml").write_text(
            f"tenant_project: demo\ntenant_state_dir: {self.state}\n", encoding="utf-8"
        )
        self.write_source()

    def write_source(self, name: str = "vast.yml", **options: Any) -> None:
        self.source = {
            "plugin": "tenant.gpu.vast",
            "api_url": self.url,
            "api_key_file": str(self.folder / "key"),
            **options,
        }
        (self.inventory / name).write_text(json.dumps(self.source), encoding="utf-8")

    def ansible(self, tool: str, *arguments: str, ok: bool = True, **environment: str) -> Done:
        known = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_NOCOLOR": "1",
            **environment,
        }
        command = [str(self.bin / tool), "-i", str(self.inventory), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=known, capture_output=True, text=True, timeout=600, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr
        assert KEY not in done.stdout + done.stderr
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done

    def listed(self, *arguments: str, **environment: str) -> dict[str, Any]:
        done = self.ansible("ansible-inventory", "--list", *arguments, **environment)
        found: dict[str, Any] = json.loads(done.stdout, object_hook=plain)
        return found

    def refused(self, **environment: str) -> str:
        return words(self.ansible("ansible-inventory", "--list", ok=False, **environment))


def plain(value: dict[str, Any]) -> Any:
    """ansible-inventory marks text that is never templated."""
    return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else value


def words(done: Done) -> str:
    return " ".join((done.stdout + done.stderr).split())


def members(listed: dict[str, Any], group: str) -> list[str]:
    return sorted(listed.get(group, {}).get("hosts", []))


def variables(listed: dict[str, Any], host: str) -> dict[str, Any]:
    found: dict[str, Any] = listed["_meta"]["hostvars"][host]
    return found


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as server:
        yield server


@pytest.fixture
def team(request: pytest.FixtureRequest, tmp_path: Path, provider: Provider) -> Team:
    made = Team(ROOT / getattr(request, "param", CORES[0]) / "bin", tmp_path, provider.url)
    (tmp_path / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
    made.write(vast=["a1", "a2", "a3"], autodl=["b1"])
    return made


@pytest.mark.parametrize("team", CORES, indirect=True)
def test_a_declared_box_enriches_its_host_and_stays_in_its_group(team: Team, provider: Provider) -> None:
    provider.add("a1", generation=2)
    provider.add("a1", generation=1, actual_status="exited", cur_state="stopped", intended_status="stopped")
    provider.add("a2", ports={}, actual_status="exited", cur_state="stopped", intended_status="stopped")
    listed = team.listed("--limit", "all")
    assert members(listed, "vast") == ["a1", "a2", "a3"]
    assert members(listed, "tenant_platform_vast") == ["a1", "a2"]
    assert members(listed, "tenant_project_demo") == ["a1", "a2"]
    assert members(listed, "tenant_state_running") == ["a1"]
    assert members(listed, "tenant_state_stopped") == ["a2"]
    assert members(listed, "tenant_undeclared") == []
    box = variables(listed, "a1")["vast_box"]
    assert (box["host"], box["port"], box["user"], box["proxy"]) == ("192.0.2.10", 40000, "root", False)
    assert (box["generation"], box["machine_id"], box["price_per_hour"]) == (2, 77, 0.25)
    assert box["clocks"]["running_per_hour"] == 0.25
    assert box["superseded"] == [{"provider_id": "5001", "generation": 1, "state": "stopped"}]
    assert box["declared"] is True
    assert variables(listed, "a2")["vast_box"]["proxy"] is True
    assert "vast_box" not in variables(listed, "a3")
    assert "not-located.invalid" in variables(listed, "a1")["ansible_host"], "where a declared box is, box_locate says"
    assert "s3cret" not in json.dumps(listed)


@pytest.mark.parametrize("team", CORES, indirect=True)
def test_what_nobody_declares_is_apart_and_what_is_not_ours_is_not_there(team: Team, provider: Provider) -> None:
    provider.add("a1")
    provider.add("lost", generation=3)
    provider.add("a2", project="other")
    provider.add("b1")
    provider.add("x", label="somebody's own")
    listed = team.listed()
    found = members(listed, "tenant_undeclared")
    assert found == ["demo.b1.g1.5003", "demo.lost.g3.5001", "other.a2.g1.5002"]
    assert "vast_box" not in variables(listed, "a2")
    for name in found:
        assert name not in members(listed, "vast")
        assert variables(listed, name)["ansible_ssh_common_args"].startswith("-o StrictHostKeyChecking=yes ")
    lost = variables(listed, "demo.lost.g3.5001")
    assert (lost["ansible_host"], lost["ansible_port"], lost["ansible_user"]) == ("192.0.2.10", 40001, "root")
    assert "HostKeyAlias=lost.g3" in lost["ansible_ssh_common_args"]
    assert "somebody" not in json.dumps(listed)
    warned = words(team.ansible("ansible-inventory", "--list"))
    assert "b1: a box on vast.ai has this name, but the inventory has it on another platform" in warned


def test_instances_of_others_are_shown_only_when_asked_for_and_cannot_be_reached(
    team: Team, provider: Provider
) -> None:
    provider.add("x", label="somebody's own", status_msg="private")
    team.write_source(unstamped=True, compose={"ansible_host": "vast_box.host"}, groups={"all_seen": "true"})
    listed = team.listed()
    assert members(listed, "tenant_unstamped") == ["unstamped.5000"]
    seen = variables(listed, "unstamped.5000")
    assert seen["ansible_host"] == "not-located.invalid"
    assert (seen["vast_box"]["untouchable"], seen["vast_box"]["label"]) == (True, "somebody's own")
    assert "host" not in seen["vast_box"]
    assert members(listed, "all_seen") == ["unstamped.5000"]


def test_the_runs_of_a_box_are_groups(team: Team, provider: Provider) -> None:
    provider.add("a1")
    provider.add("a2")
    store = StateStore(str(team.state))
    last_contact.note(store, BoxIdentity("demo", "a1", 1, "5000"), {"digits": {"c0": Reached(3)}, "cifar.v2": {}})
    last_contact.note(store, BoxIdentity("demo", "a2", 1, "4711"), {"of-another-machine": {}})
    team.write_source(state_dir=str(team.state))
    listed = team.listed()
    assert variables(listed, "a1")["vast_box"]["runs"] == ["cifar.v2", "digits"]
    assert members(listed, "tenant_run_digits") == members(listed, "tenant_run_cifar_v2") == ["a1"]
    assert variables(listed, "a2")["vast_box"]["runs"] == []


def test_two_names_that_would_be_one_group_are_refused(team: Team, provider: Provider) -> None:
    provider.add("a1")
    store = StateStore(str(team.state))
    last_contact.note(store, BoxIdentity("demo", "a1", 1, "5000"), {"x.1": {}, "x_1": {}})
    team.write_source(state_dir=str(team.state))
    assert "would be one group, tenant_run_x_1" in team.refused()


@pytest.mark.parametrize("team", CORES, indirect=True)
@pytest.mark.parametrize("cached", [False, True])
def test_text_of_the_provider_is_never_a_template(team: Team, provider: Provider, cached: bool) -> None:
    provider.add("a1", status_msg=ATTACK, gpu_name=ATTACK)
    provider.add("lost", status_msg=ATTACK, gpu_name=ATTACK)
    provider.add("x", label=ATTACK)
    where = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(team.folder / "cache")}
    team.write_source(
        unstamped=True,
        keyed_groups=[{"key": "vast_box.gpu_name", "prefix": "gpu"}],
        compose={"said": "vast_box.status_msg"},
        **(where if cached else {}),
    )
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [{"ansible.builtin.debug": {"msg": "{{ vast_box | default('') }} {{ said | default('') }}"}}],
        }
    ]
    (team.folder / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    for _time in range(2):
        shown = words(team.ansible("ansible-playbook", "play.yml"))
        assert "touch ran" in shown, "the text is there, as text"
        assert not (team.folder / "ran").exists()
    assert provider.asked == (1 if cached else 2)


def test_a_hostile_host_is_no_variable(team: Team, provider: Provider) -> None:
    hosts = ["-oProxyCommand=touch${IFS}ran", "a b", "$(touch ran)", ATTACK]
    for number, host in enumerate(hosts):
        provider.add(f"lost{number}", public_ipaddr=host)
    listed = team.listed()
    for number, host in enumerate(hosts):
        found = variables(listed, f"demo.lost{number}.g1.{5000 + number}")
        assert found["ansible_host"] == "not-located.invalid", host
        assert found["vast_box"]["host"] == "", host
        assert "which cannot be one" in found["vast_box"]["endpoint_problem"], host


def answers(change: Callable[[dict[str, Any]], Any]) -> Callable[[Provider], None]:
    def prepare(provider: Provider) -> None:
        provider.add("a1")
        provider.rewrite = change

    return prepare


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda _provider: None, "lists no instance at all, in two answers"),
        (answers(lambda body: {**body, "total_instances": 7}), "is partial: 1 of 7 came"),
        (answers(lambda body: {**body, "instances": None}), "has no list of instances"),
        (answers(lambda body: {**body, "instances": [{"label": "no id"}]}), "has no list of instances"),
        (answers(lambda body: {"success": True}), "has no list of instances"),
        (answers(lambda body: {**body, "success": False, "msg": "try later"}), "try later"),
        (answers(lambda _body: "<html>busy</html>"), "not JSON"),
    ],
)
def test_an_answer_that_says_too_little_is_an_error(
    provider: Provider, tmp_path: Path, prepare: Callable[[Provider], None], said: str
) -> None:
    """What the plugin asks, asked without a process for each answer."""
    prepare(provider)
    (tmp_path / "key").write_text(KEY)
    options = {"api_url": provider.url, "api_key_file": str(tmp_path / "key"), "api_timeout_s": 60, "api_retry_s": 0}
    with pytest.raises(TenantFailure, match=re.escape(said)):
        listed_boxes.ask(client_of(options), SHOWN)


def test_an_answer_that_is_an_error_ends_the_inventory(team: Team, provider: Provider) -> None:
    answers(lambda body: {**body, "total_instances": 7})(provider)
    team.write_source(api_retry_s=0)
    said = team.refused()
    assert f"{team.inventory / 'vast.yml'}: " in said
    assert "is partial: 1 of 7 came" in said
    assert "run again in a minute" in said


def test_an_empty_account_is_believed_when_that_is_allowed(team: Team, provider: Provider) -> None:
    team.write_source(allow_empty=True)
    assert members(team.listed(), "tenant_undeclared") == []
    assert provider.asked == 2, "absence needs the provider's word twice"


def test_a_refused_key_and_no_key_are_sentences(team: Team, provider: Provider) -> None:
    provider.status = 401
    assert "the API refused the key" in team.refused()
    team.write_source(api_key_file=None)
    assert "there is no API key" in team.refused()
    provider.status = 200
    provider.add("a1")
    assert members(team.listed(VAST_API_KEY=KEY), "tenant_platform_vast") == ["a1"]


def test_groups_and_variables_are_made_of_what_a_box_is(team: Team, provider: Provider) -> None:
    provider.add("a1", gpu_name="RTX 4090", dph_total=0.25)
    provider.add("a2", gpu_name="H100 SXM", dph_total=2.5, actual_status="exited", intended_status="stopped",
                 cur_state="stopped")  # fmt: skip
    team.write_source(
        keyed_groups=[{"key": "vast_box.gpu_name", "prefix": "gpu"}, {"key": "vast_box.state", "prefix": "is"}],
        compose={"a_day_costs": "vast_box.price_per_hour * 24", "dear": "vast_box.price_per_hour > 1"},
        groups={"costly": "vast_box.price_per_hour > 1"},
    )
    listed = team.listed()
    found = {name: members(listed, name) for name in ("gpu_RTX_4090", "gpu_H100_SXM", "is_running", "is_stopped")}
    assert found == {"gpu_RTX_4090": ["a1"], "gpu_H100_SXM": ["a2"], "is_running": ["a1"], "is_stopped": ["a2"]}
    assert members(listed, "costly") == ["a2"]
    composed = [(variables(listed, name)["a_day_costs"], variables(listed, name)["dear"]) for name in ("a1", "a2")]
    assert composed == [(6.0, False), (60.0, True)]
    assert "a_day_costs" not in variables(listed, "a3"), "a3 has no box"


def test_a_platform_group_is_the_teams_own_word(team: Team, provider: Provider) -> None:
    provider.add("lost")
    for options in (
        {"groups": {"vast": "true"}},
        {"keyed_groups": [{"key": "vast_box.state", "prefix": "s", "parent_group": "vast"}]},
        {"groups": {"big": "true"}},
    ):
        hosts = {"vast": {"hosts": {"a1": {}}, "children": {"big": {}}}}
        (team.inventory / "hosts.yml").write_text(json.dumps(hosts), encoding="utf-8")
        team.write_source(**options)
        assert "would come into the platform group vast" in team.refused()
        lax = team.ansible("ansible-inventory", "--list", ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="false")
        assert "lost" not in json.dumps(json.loads(lax.stdout)["vast"])
        assert "lost" not in json.dumps(json.loads(lax.stdout).get("big", {}))


def test_a_host_that_says_no_project_is_asked_for_it(team: Team, provider: Provider) -> None:
    provider.add("a1")
    (team.inventory / "group_vars" / "all.yml").write_text("{}\n", encoding="utf-8")
    assert "a1 has the name of a box on vast.ai, but no tenant_project" in team.refused()
    team.write_source(project="demo")
    assert members(team.listed(), "tenant_platform_vast") == ["a1"]


def test_each_host_may_say_its_project_in_a_file_of_its_own(team: Team, provider: Provider) -> None:
    """All hosts are asked at once whether any has such a file; one that has must not be overheard."""
    for name in ("a1", "a2", "a3"):
        provider.add(name, project="papers" if name == "a2" else "demo")
    (team.inventory / "host_vars").mkdir()
    (team.inventory / "host_vars" / "a2.yml").write_text("tenant_project: papers\n", encoding="utf-8")
    (team.inventory / "host_vars" / "a3.yml").write_text('tenant_project: \'{{ "pap" ~ "ers" }}\'\n', encoding="utf-8")
    listed = team.listed()
    assert members(listed, "tenant_project_demo") == ["a1"]
    assert members(listed, "tenant_project_papers") == ["a2"]
    assert members(listed, "tenant_undeclared") == ["demo.a3.g1.5002"]


def test_a_source_that_is_read_too_early_says_so(team: Team, provider: Provider) -> None:
    provider.add("a1")
    (team.inventory / "vast.yml").unlink()
    team.write_source("00-vast.yml")
    done = team.ansible("ansible-inventory", "--list")
    assert "name this source after the one that declares the boxes" in words(done)
    listed = json.loads(done.stdout)
    assert members(listed, "tenant_undeclared") == ["demo.a1.g1.5000"]
    assert members(listed, "vast") == ["a1", "a2", "a3"]


def test_the_cache_is_of_one_account_and_holds_no_secret(team: Team, provider: Provider) -> None:
    provider.add("a1")
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(team.folder / "cache")}
    team.write_source(**cache)
    first = team.listed()
    provider.add("a2")
    again = team.listed()
    assert provider.asked == 1
    assert again == first
    text = "".join(path.read_text() for path in (team.folder / "cache").iterdir())
    assert "192.0.2.10" in text
    assert "s3cret" not in text
    assert KEY not in text
    assert members(team.listed("--flush-cache"), "tenant_platform_vast") == ["a1", "a2"]
    (team.folder / "key").write_text(KEY + "-other\n", encoding="utf-8")
    assert "the API refused the key" in team.refused(), "another account is never answered from this one's cache"


def test_other_yaml_is_left_to_other_plugins(team: Team, provider: Provider) -> None:
    (team.inventory / "vast.yml").write_text("all:\n  hosts:\n    plain: {x: 1}\n", encoding="utf-8")
    assert variables(team.listed(), "plain")["x"] == 1
    assert provider.asked == 0


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A marketplace with a thousand instances, and a team that declares most of them."""
    folder = tmp_path_factory.mktemp("crowd")
    machines = offers.generate(0)
    state = MarketState()
    for number in range(1000):
        machine = machines[number % len(machines)]
        instance = Instance(
            id=state.take_id(), offer_id=machine.offer_id, machine_id=machine.machine_id, created_at=1.0, price=0.2,
            base_price=0.2, storage_cost=0.1, disk_gb=20.0, image="debian:12", runtype="ssh_direc ssh_proxy",
            ports=(20000 + number,), label=f"gt1/demo/c{number}/g1/{number:016x}", ever_ran=True, phase=Phase.STOPPED,
        )  # fmt: skip
        state.instances[instance.id] = instance
    (folder / "market").mkdir()
    StateDirectory(folder / "market").save(state)
    with running_marketplace(engine="none", state_dir=folder / "market", api_key=KEY) as market:
        yield market.url, folder


def test_a_thousand_instances_cost_little_beside_the_api(crowd: tuple[str, Path], tmp_path: Path) -> None:
    url, _folder = crowd
    team = Team(ROOT / CORES[0] / "bin", tmp_path, url)
    (tmp_path / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
    team.write(vast=[f"c{number}" for number in range(900)])
    (team.inventory / "vast.yml").unlink()
    bare = processor_seconds(lambda: team.ansible("ansible-inventory", "--graph"))
    team.write_source()
    graphs: list[str] = []
    whole = processor_seconds(lambda: graphs.append(team.ansible("ansible-inventory", "--graph").stdout))
    assert graphs[0].count("--c") >= 900
    assert graphs[0].count("--demo.c") == 100
    print(f"\n1,000 instances: {whole:.2f} s of processor time, {bare:.2f} s of it without the source")
    # Measured against what Ansible takes for the same hosts, so that a slow machine is no failure. The list, its
    # check, and a thousand hosts with their groups are to cost less than that again; it is about half.
    assert whole - bare < bare, f"{whole - bare:.2f} s beside {bare:.2f} s without the source"


def processor_seconds(act: Callable[[], object]) -> float:
    """What the processes that ``act`` starts and awaits compute; waiting for the API and for others is not in it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    act()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
