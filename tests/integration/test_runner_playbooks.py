# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The runner drives real ansible-playbook processes on tiny playbooks, and tells honestly how they ended."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from vanishing import files_below, read

from gpu_tenant import hosts, playbook_process
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.playbooks import Outcome, PlaybookRunner, TaskResult
from gpu_tenant.transfers import Transfer
from gpu_tenant.workspace import Workspace

pytestmark = pytest.mark.integration

KEY = "planted-account-key-4f1c"
WAIT_S = 600.0
INVENTORY = """
all:
  vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}", tenant_project: p}
  hosts:
    b1:
    b2:
    away: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANSIBLE_CONFIG", raising=False)
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Callable[..., Outcome]:
    def play(tasks: str, boxes: tuple[str, ...] = ("b1",), hosts_line: str = "all", **options: object) -> Outcome:
        playbook = folder / "tiny.yml"
        playbook.write_text(f"- hosts: {hosts_line}\n  gather_facts: false\n  tasks:\n{tasks}\n")
        extra = options.pop("extra_vars", None)
        return runner(folder, **options).run(str(playbook), boxes, extra)  # type: ignore[arg-type]  # test plumbing

    return play


def runner(folder: Path, **options: object) -> PlaybookRunner:
    inventory = hosts.resolve("b1,b2,away", [str(folder / "hosts.yml")])
    place = Workspace(folder / "ws")
    return PlaybookRunner(place, inventory, "p", [str(folder / "hosts.yml")], **options)  # type: ignore[arg-type]  # test plumbing


def debug(text: str) -> str:
    return f"    - ansible.builtin.debug: {{msg: '{text}'}}"


def fail(result: str) -> str:
    return f"    - ansible.builtin.command: /bin/sh -c 'echo no; exit 3'\n      {result}"


def test_success(run: Callable[..., Outcome]) -> None:
    seen: list[object] = []
    outcome = run(debug("hello"), ("b1", "b2"), watch=seen.append)
    assert outcome.ok
    assert outcome.exit_code == 0
    assert outcome.processed == {"b1", "b2"}
    assert [result.result["msg"] for result in outcome.results] == ["hello", "hello"]
    assert any(isinstance(event, TaskResult) for event in seen)


def test_a_box_that_no_play_touches_is_a_failure(run: Callable[..., Outcome]) -> None:
    outcome = run(debug("hello"), ("b1", "b2"), hosts_line="b1")
    assert not outcome.ok
    assert [(failure.box, failure.kind) for failure in outcome.failures] == [("b2", "config")]


def test_a_limit_that_matches_nothing_is_a_failure(run: Callable[..., Outcome]) -> None:
    outcome = run(debug("hello"), ("nobody",))
    assert not outcome.ok
    assert outcome.exit_code == 10


def test_a_syntax_error_is_told_in_one_line(run: Callable[..., Outcome]) -> None:
    outcome = run("    - no.such.module: {}")
    assert outcome.exit_code == 10
    assert "no.such.module" in outcome.failures[0].what
    assert "\n" not in outcome.failures[0].what


def test_unreachable_has_its_own_code_and_the_others_go_on(run: Callable[..., Outcome]) -> None:
    outcome = run("    - ansible.builtin.ping:", ("b1", "away"))
    assert [(failure.box, failure.kind) for failure in outcome.failures] == [("away", "unreachable")]
    assert outcome.exit_code == 13
    assert "b1" in outcome.processed


def test_the_module_says_what_kind_of_failure_it_is(run: Callable[..., Outcome], folder: Path) -> None:
    plugins = folder / "action_plugins"
    plugins.mkdir()
    (plugins / "refuse.py").write_text(
        "from ansible.plugins.action import ActionBase\n"
        "class ActionModule(ActionBase):\n"
        "    def run(self, tmp=None, task_vars=None):\n"
        "        failure = dict(kind='gate_refused', what='no receipt', box='b1', safe='s', fix='harvest')\n"
        "        return dict(failed=True, msg='no receipt', failure=failure)\n"
    )
    (folder / "library").mkdir()
    (folder / "library" / "refuse.py").write_text("")
    outcome = run("    - refuse:")
    failure = outcome.failure("b1")
    assert failure is not None
    assert (failure.kind, failure.what, failure.fix) == ("gate_refused", "no receipt", "harvest")
    assert outcome.exit_code == 22
    with pytest.raises(TenantFailure) as caught:
        outcome.raise_for_failure()
    assert caught.value.exit_code == 22


def test_an_ignored_failure_is_none(run: Callable[..., Outcome]) -> None:
    outcome = run(fail("ignore_errors: true") + "\n" + debug("on"))
    assert outcome.ok


def test_a_rescued_failure_is_none(run: Callable[..., Outcome]) -> None:
    outcome = run(
        "    - block: [{ansible.builtin.fail: {msg: x}}]\n      rescue: [{ansible.builtin.debug: {msg: saved}}]"
    )
    assert outcome.ok


def test_an_assertion_is_a_matter_of_configuration(run: Callable[..., Outcome]) -> None:
    outcome = run("    - ansible.builtin.assert: {that: [false], fail_msg: no price cap is set}")
    assert outcome.exit_code == 10
    assert "no price cap is set" in outcome.failures[0].what


def test_each_round_of_a_loop_is_a_result(run: Callable[..., Outcome]) -> None:
    outcome = run("    - ansible.builtin.debug: {msg: '{{ item }}'}\n      loop: [1, 2]")
    assert [result.result["msg"] for result in outcome.results] == [1, 2]


def test_the_deadline_ends_it(run: Callable[..., Outcome], folder: Path) -> None:
    playbook = folder / "tiny.yml"
    playbook.write_text("- hosts: b1\n  gather_facts: false\n  tasks: [{ansible.builtin.pause: {seconds: 600}}]\n")
    started = time.monotonic()
    outcome = runner(folder).run(str(playbook), ["b1"], deadline_s=3)
    assert time.monotonic() - started < WAIT_S
    assert outcome.exit_code == 12
    assert "did not end in time" in outcome.failures[0].what
    left = [read(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in left if str(folder).encode() in line and b"ansible-playbook" in line]


def test_reports_of_a_transfer_come_while_it_goes_on(run: Callable[..., Outcome], folder: Path) -> None:
    seen: list[Transfer] = []

    def watch(event: object) -> None:
        if isinstance(event, Transfer):
            seen.append(event)
            (folder / "seen").touch()

    (folder / "reports").write_text(
        '{"box": "b1", "files_done": 1, "files": 9, "bytes_done": 5, "bytes": 50, "rate_bps": 2.5, "eta_s": 18}\n'
        '{"box": "b1", "files_done": 2, "files": 9, "bytes_done": 9, "bytes": 50}\n'
    )
    tell = f"    - ansible.builtin.shell: %s -n 1 {folder}/reports >> $TENANT_PROGRESS_FILE\n"
    # The playbook goes on only when its first report was passed on.
    wait = f"    - ansible.builtin.wait_for: {{path: '{folder}/seen', timeout: 180}}\n"
    outcome = run(tell % "head" + wait + tell % "tail", watch=watch)
    assert outcome.ok, outcome.failures
    assert [report.files_done for report in seen] == [1, 2]
    assert (seen[0].box, seen[0].rate_bps, seen[0].eta_s) == ("b1", 2.5, 18.0)
    assert "TENANT_PROGRESS_FILE" not in os.environ


def files_with(folder: Path, text: str) -> list[str]:
    # ansible-playbook renames its events meanwhile.
    return [str(path) for path in files_below(folder) if text.encode() in read(path)]


def test_the_account_key_is_only_in_a_private_file_while_it_runs(
    run: Callable[..., Outcome], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAST_API_KEY", KEY)
    monkeypatch.setenv("WANDB_API_KEY", "planted-tracker-key")
    during: list[list[str]] = []
    mode: list[int] = []

    def watch(event: object) -> None:
        during.append(files_with(folder / "ws", KEY) + files_with(folder / "ws", "planted-tracker-key"))
        mode.extend(stat.S_IMODE(os.stat(path).st_mode) for path in during[-1])

    tasks = (
        "    - ansible.builtin.debug:\n"
        "        msg: \"{{ lookup('env', 'VAST_API_KEY') | length }} "
        "{{ lookup('file', vast_api_key_file) | length }} {{ lookup('env', 'WANDB_API_KEY') | length }}\""
    )
    outcome = run(tasks, watch=watch)
    assert outcome.ok
    # Not in the environment of ansible-playbook, readable through the file; the trainer's secrets still get there.
    assert outcome.results[0].result["msg"] == f"0 {len(KEY)} {len('planted-tracker-key')}"
    assert during
    assert {Path(path).name for found in during for path in found} == {"vast-api-key"}
    assert set(mode) == {0o600}
    assert files_with(folder / "ws", KEY) == []
    assert files_with(folder / "ws", "planted-tracker-key") == []
    assert os.environ["VAST_API_KEY"] == KEY


def test_a_key_file_of_the_inventory_is_left_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAST_API_KEY", KEY)
    (folder / "hosts.yml").write_text("all: {hosts: {b1: {tenant_project: p, vast_api_key_file: /their/own}}}")
    inventory = hosts.resolve("b1", [str(folder / "hosts.yml")])
    driver = PlaybookRunner(Workspace(folder / "ws"), inventory, "p")
    assert driver._extra_vars(folder, {"a": 1}) == {"a": 1}


def test_host_keys_are_checked_and_callers_environment_is_kept(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", "False")
    outcome = run("    - ansible.builtin.debug: {msg: \"{{ lookup('config', 'HOST_KEY_CHECKING') }}\"}")
    assert outcome.results[0].result["msg"] is True
    assert os.environ["ANSIBLE_HOST_KEY_CHECKING"] == "False"


def test_signal_handlers_are_left_as_they_were(run: Callable[..., Outcome]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run(debug("x")).ok
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_extra_variables_of_two_runs_do_not_mix(run: Callable[..., Outcome]) -> None:
    show = "    - ansible.builtin.debug: {msg: \"{{ first | default('-') }} {{ second | default('-') }}\"}"
    assert run(show, extra_vars={"first": "1"}).results[0].result["msg"] == "1 -"
    assert run(show, extra_vars={"second": "2"}).results[0].result["msg"] == "- 2"
    assert run(show).results[0].result["msg"] == "- -"


def test_one_request_to_stop_lets_the_step_end_and_a_second_kills_it(folder: Path) -> None:
    playbook = folder / "tiny.yml"
    playbook.write_text("- hosts: b1\n  gather_facts: false\n  tasks: [{ansible.builtin.pause: {seconds: 600}}]\n")
    interrupts = Interrupts()
    driver = runner(folder, interrupts=interrupts)

    def ask_twice() -> None:
        deadline = time.monotonic() + WAIT_S
        while not list((folder / "ws").glob("plays/*/playbook.lock")) and time.monotonic() < deadline:
            time.sleep(0.05)
        interrupts.request()
        interrupts.request()

    asker = threading.Thread(target=ask_twice)
    asker.start()
    with pytest.raises(TenantFailure) as caught:
        driver.run(str(playbook), ["b1"])
    asker.join()
    assert caught.value.exit_code == 30


def test_the_playbook_of_a_killed_runner_is_found_and_awaited(folder: Path) -> None:
    playbook = folder / "tiny.yml"
    playbook.write_text(
        "- hosts: b1\n  gather_facts: false\n  tasks:\n"
        f"    - ansible.builtin.wait_for: {{path: '{folder}/go-on', timeout: 600, sleep: 1}}\n"
    )
    program = (
        "from gpu_tenant import hosts, playbooks, workspace\n"
        f"inventory = hosts.resolve('b1', [{str(folder / 'hosts.yml')!r}])\n"
        f"driver = playbooks.PlaybookRunner(workspace.Workspace({str(folder / 'ws')!r}), inventory, 'p',"
        f" [{str(folder / 'hosts.yml')!r}])\n"
        f"driver.run({str(playbook)!r}, ['b1'])\n"
    )
    environment = {**os.environ, "VAST_API_KEY": KEY, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    deadline = time.monotonic() + WAIT_S
    while not (locks := [path for path in (folder / "ws").glob("plays/*/playbook.lock") if path.stat().st_size]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert playbook_process.holder(str(locks[0])), "ansible-playbook outlives its runner; if not, this test is moot"
    said: list[str] = []

    def wait(seconds: float) -> None:
        (folder / "go-on").touch()
        time.sleep(seconds)

    Workspace(folder / "ws").end_orphans("p", ["b1"], said.append, wait)
    assert len(said) == 1
    assert playbook_process.holder(str(locks[0])) is None
    assert files_with(folder / "ws", KEY) == []
