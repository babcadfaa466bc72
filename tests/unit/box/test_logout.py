# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a login starts must outlive it, and one process that the kernel kills must not cost the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import detach, fetch_order, logout
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused

SESSION = "0::/user.slice/user-1000.slice/session-3.scope\n"


def tools(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Programs that are the only ones on PATH."""
    for name, text in scripts.items():
        tool = folder / name.replace("_", "-")
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_user_whose_processes_end_with_the_login_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(tmp_path, monkeypatch, loginctl='echo "$*" >&2; echo no', systemd_run="echo started >started; exit 0")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match="lingering is off") as refused:
        detach.start_daemon(["s.pyz"], "/data", "/data/log", "systemd", lambda: True)
    assert refused.value.code == 19
    assert "loginctl enable-linger" in refused.value.fix
    assert not (tmp_path / "started").exists(), "nothing was started"
    # Root's units are those of the machine.
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert detach.start_daemon(["s.pyz"], "/data", "/data/log", "systemd", lambda: True) == detach.RUNNING


@pytest.mark.parametrize("answer", ["echo yes", "echo", "echo 'not logged in' >&2; exit 1", None])
def test_one_that_lingers_and_one_that_cannot_be_asked_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    tools(tmp_path, monkeypatch, systemd_run="exit 0", **({"loginctl": answer} if answer else {}))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert detach.start_daemon(["s.pyz"], "/data", "/data/log", "systemd", lambda: True) == detach.RUNNING


# --- logind that kills what a session leaves --------------------------------------------------------------------------


class Login:
    """This process in the scope of a session of uid 1000, on a box whose logind has these settings."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch, self.started = folder, monkeypatch, 0
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(logout, "_name_of", lambda uid: {0: "root", 1000: "kim"}[uid])
        monkeypatch.setattr(detach, "start_by_fork", self._start)
        self.is_in(SESSION)
        self.has(kills="yes")

    def _start(self, *_words: object) -> None:
        self.started += 1

    def is_in(self, groups: str) -> None:
        path = self.folder / "cgroup"
        path.write_text(groups)
        self.monkeypatch.setattr(logout, "_MEMBERSHIP", str(path))

    def has(self, kills: str, excluded: str = "", only: str = "") -> None:
        lines = f"KillOnlyUsers={only}\nKillExcludeUsers={excluded}\nKillUserProcesses={kills}"
        # As logind says it: lingering changes nothing about the scope of a session.
        tools(self.folder, self.monkeypatch, loginctl=f'case "$*" in *Linger*) echo yes;; *) echo "{lines}";; esac')

    def start(self, method: str = "setsid") -> bool:
        before = self.started
        assert detach.start_daemon(["s.pyz"], "/data", "/data/log", method, lambda: True) == detach.RUNNING
        return self.started > before

    def is_refused(self, method: str = "setsid") -> bool:
        before = self.started
        try:
            self.start(method)
        except Refused:
            return self.started == before
        return False


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    return Login(tmp_path, monkeypatch)


@pytest.mark.parametrize("method", ["setsid", "onstart", "tmux"])
def test_what_logind_would_kill_is_not_started(login: Login, method: str) -> None:
    with pytest.raises(Refused, match=f"kills what a login of kim leaves behind.* {method} would") as refused:
        login.start(method)
    assert (refused.value.code, login.started) == (19, 0)
    assert "set platform_detach to systemd and run 'loginctl enable-linger'" in refused.value.fix


def test_whoever_became_root_is_still_in_the_session_of_the_login(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Refused, match="a login of kim") as refused:
        login.start()
    assert "linger" not in refused.value.fix, "root's units are those of the machine"


@pytest.mark.parametrize(
    "groups",
    [
        "9:name=systemd:/machine/user.slice/user-1000.slice/session-c1.scope\n0::/\n",
        "0::/user.slice/user-1000.slice/session-3.scope/inner\n",
    ],
)
def test_the_session_is_found_in_either_kind_of_cgroup(login: Login, groups: str) -> None:
    login.is_in(groups)
    assert login.is_refused()


@pytest.mark.parametrize(
    "groups",
    [
        "0::/\n",
        "0::/system.slice/ssh.service\n",
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/gpu.service\n",
        "0::/user.slice/user-1000.slice/session-3.scope.d\n",
    ],
)
def test_what_is_in_no_session_ends_with_none(login: Login, groups: str) -> None:
    login.is_in(groups)
    assert login.start()


def test_logind_says_whom_it_kills(login: Login) -> None:
    """In the order of logind.conf(5): the excluded, of whom root is one unless others are named, then the named."""
    for settings, kim, root in (
        ({"kills": "no"}, False, False),
        ({"kills": "yes"}, True, False),
        ({"kills": "yes", "excluded": "kim ada"}, False, True),
        ({"kills": "no", "only": "kim"}, True, False),
        ({"kills": "yes", "only": "ada"}, False, False),
        ({"kills": "yes", "only": "kim", "excluded": "kim"}, False, False),
    ):
        login.has(**settings)
        login.is_in(SESSION)
        assert login.is_refused() is kim, settings
        login.is_in(SESSION.replace("user-1000", "user-0"))
        assert login.is_refused() is root, settings


@pytest.mark.parametrize("answer", ["exit 1", "echo", "echo 'Unknown command verb show-user.' >&2; exit 1", None])
def test_where_logind_cannot_be_asked_the_start_shows_what_it_can(login: Login, answer: str | None) -> None:
    (login.folder / "loginctl").unlink()
    tools(login.folder, login.monkeypatch, **({"loginctl": answer} if answer else {}))
    assert login.start()


def test_a_fetch_is_never_refused_for_it(login: Login, tmp_path: Path) -> None:
    """The play that waits for it keeps the session, and the next deploy goes on with what came."""
    fetch_order.start(Layout(str(tmp_path)), "a" * 64, ("s.pyz",))
    assert login.started == 1


# --- one process that the kernel kills --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("echo 'systemd 252 (252.38-1~deb12u1)'; echo '+PAM +AUDIT'", True),
        ("echo 'systemd 256~rc3'", True),
        ("echo 'systemd 243'", True),
        # Those do not know the word and would refuse the whole unit; nor do they stop one for it.
        ("echo 'systemd 239 (239-82.el8)'", False),
        ("echo", False),
    ],
)
def test_a_worker_killed_for_memory_does_not_end_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, said: bool
) -> None:
    asked = tmp_path / "asked"
    tools(
        tmp_path, monkeypatch, systemd_run=f'case "$*" in --version) {version};; *) echo "$*" >>{asked};; esac'
    )  # fmt: skip
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    options = ("-p", "OOMPolicy=kill")
    detach.start_daemon(["s.pyz"], "/data", "/data/log", "systemd", lambda: True, options)
    before, the_teams, _after = asked.read_text().partition("-p OOMPolicy=kill -- s.pyz")
    assert the_teams, "what the team says comes last, so that it wins"
    assert ("-p OOMPolicy=continue" in before) is said
