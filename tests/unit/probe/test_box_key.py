# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The first contact by password: when it is used, and everything that keeps it at home. A real sshd with one is in
``tests/integration/test_first_contact.py``."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.action import box_key
from ansible_collections.tenant.gpu.plugins.module_utils import transfer
from ansible_collections.tenant.gpu.plugins.plugin_utils import first_key

BODY = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + bytes(36)).decode()
PASSWORD = "s3cret"
CONSOLE = "copy the login anew from the provider's console"


class Box:
    """Says in turn what becomes of a try by key; ``by_password`` is what becomes of an installation."""

    def __init__(self, tmp_path: Path, *by_key: str, by_password: tuple[str, bool] = (first_key.LET_IN, True)) -> None:
        self.by_key, self.by_password = list(by_key), by_password
        self.transport, self.become = "ssh", None
        self._shell = SimpleNamespace(tmpdir="/tmp/there")
        self.options: dict[str, Any] = {"host": "192.0.2.7", "port": 22, "remote_user": "root", "timeout": 10}
        self.options["ssh_executable"] = "ssh"
        self.told: list[str] = []
        self.said: Exception | None = None
        self.key = tmp_path / "id.pub"
        self.key.write_text(f"ssh-ed25519 {BODY} kim@home\n")

    def get_option(self, name: str) -> Any:
        return self.options.get(name)

    def answer(self, command: str, executable: str) -> dict[str, Any]:
        assert (command, executable) == ("true", "/bin/sh")
        if self.said is not None:
            raise self.said
        return {"rc": 0, "stdout": ""}

    def install(self, link: transfer.Link, password: str, nonce: str, public_key: str, body: str) -> tuple[str, bool]:
        assert (public_key, body) == (f"ssh-ed25519 {BODY} gpu-tenant", BODY)
        self.told.append(password)
        return self.by_password

    def contact(
        self, monkeypatch: pytest.MonkeyPatch, check_mode: bool = False, proxy: bool = False, **options: Any
    ) -> dict[str, Any]:
        monkeypatch.setattr(first_key, "try_key", lambda link: self.by_key.pop(0))
        monkeypatch.setattr(first_key, "install", self.install)
        args = {"public_key_file": str(self.key), **options}
        task = SimpleNamespace(args=args, check_mode=check_mode, async_val=0, action="tenant.gpu.box_key")
        action = box_key.ActionModule(task, self, SimpleNamespace(), None, None, None)
        monkeypatch.setattr(action, "_low_level_execute_command", self.answer)
        known = {"inventory_hostname": "gpu-a.1", "ansible_facts": {"box_endpoint": {"proxy": proxy}}}
        result: dict[str, Any] = action.run(task_vars=known)
        assert PASSWORD not in str(result)
        return result


def test_a_box_that_lets_the_key_in_is_never_told_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path, first_key.LET_IN)
    assert box.contact(monkeypatch, password=PASSWORD) == {"changed": False}
    assert box.told == []


@pytest.mark.parametrize("login", [first_key.OTHER_KEY, first_key.UNSEEN])
def test_who_is_not_proven_to_be_the_box_is_never_told_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    box = Box(tmp_path, login)
    assert box.contact(monkeypatch, password=PASSWORD) == {"changed": False}
    assert box.told == []


def test_a_box_without_the_key_gets_it_by_the_password_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANT_PASSWORD_GPU_A_1", PASSWORD)
    box = Box(tmp_path, first_key.DENIED, first_key.LET_IN)
    assert box.contact(monkeypatch) == {"changed": True}
    assert box.told == [PASSWORD]


def test_after_a_power_cycle_a_refused_password_says_where_the_new_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(tmp_path, first_key.DENIED, by_password=(first_key.DENIED, False))
    failure = box.contact(monkeypatch, password=PASSWORD)["failure"]
    assert failure["kind"] == "unreachable"
    assert "neither your key nor the password" in failure["what"]
    assert CONSOLE in failure["fix"]
    assert "TENANT_PASSWORD_GPU_A_1" in failure["fix"]


def test_without_a_password_a_refused_key_says_where_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path)
    assert box.contact(monkeypatch) == {"changed": False}
    box.said = AnsibleConnectionFailure("Failed to connect via ssh: root@x: Permission denied (publickey,password).")
    failure = box.contact(monkeypatch)["failure"]
    assert "no password of it is known here" in failure["what"]
    assert CONSOLE in failure["fix"]
    box.said = AnsibleConnectionFailure("Connection refused")
    assert box.contact(monkeypatch) == {"changed": False}, "a box that starts is waited for by the next task"


@pytest.mark.parametrize(
    ("option", "proxy"),
    [("", True), ("-o ProxyJump=gate", False), ("-oProxyCommand='x y'", False), ("-J gate", False), ("-Jgate", False)],
)
def test_a_jump_host_is_never_told_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, proxy: bool
) -> None:
    box = Box(tmp_path, first_key.DENIED)
    box.options["ssh_common_args"] = option
    failure = box.contact(monkeypatch, proxy=proxy, password=PASSWORD)["failure"]
    assert "jump host" in failure["what"]
    assert box.told == []


def test_a_key_that_was_put_there_is_proven_to_be_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path, first_key.DENIED, first_key.DENIED)
    assert "does not let you in by it" in box.contact(monkeypatch, password=PASSWORD)["failure"]["what"]
    box = Box(tmp_path, first_key.DENIED, by_password=(first_key.LET_IN, False))
    assert "could not be put on it" in box.contact(monkeypatch, password=PASSWORD)["failure"]["what"]


def test_a_password_that_can_be_none_and_a_private_key_are_sent_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(tmp_path, first_key.DENIED, first_key.DENIED)
    assert "line end" in box.contact(monkeypatch, password=f"{PASSWORD}\n")["failure"]["what"]
    box.key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert "private key" in box.contact(monkeypatch, password=PASSWORD)["failure"]["what"]
    assert box.told == []


def test_a_check_run_contacts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path)
    assert box.contact(monkeypatch, check_mode=True, password=PASSWORD)["changed"] is False
    assert box.told == []


def test_the_passwords_ssh_proves_the_host_and_rides_on_no_other_connection() -> None:
    options = ("-C", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", "StrictHostKeyChecking=no")
    argv = first_key.password_argv(transfer.Link("192.0.2.7", options=options, control_path="/cp/x"))
    said = [word for word in argv if word.startswith(("Strict", "Control", "BatchMode"))]
    assert said[0] == "StrictHostKeyChecking=yes", "what stands first wins in ssh"
    assert "ControlPath=none" in said
    assert "ControlMaster=auto" not in said


def installed(home: Path) -> str:
    script = first_key.install_script("n0nce", f"ssh-ed25519 {BODY} gpu-tenant", BODY)
    done = subprocess.run(
        ["/bin/sh", "-c", script], env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    assert done.stdout == "n0nce installed\n"
    return (home / ".ssh" / "authorized_keys").read_text()


@pytest.mark.parametrize(
    "before", ["", "ssh-rsa AAAA other", "ssh-rsa AAAA other\n", f"# ssh-ed25519 {BODY} out of use\n"]
)
def test_a_key_is_added_once_and_what_was_there_stays(tmp_path: Path, before: str) -> None:
    if before:
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "authorized_keys").write_text(before)
    wanted = [*before.splitlines(), f"ssh-ed25519 {BODY} gpu-tenant"]
    for _again in range(2):
        assert installed(tmp_path).splitlines() == wanted
    assert (tmp_path / ".ssh" / "authorized_keys").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".ssh").stat().st_mode & 0o777 == 0o700
