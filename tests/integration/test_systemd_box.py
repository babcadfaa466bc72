# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A real systemd, first process of a container: what it was asked to run outlives who asked, and a start of the machine
goes on with the run. As root, and as a user who lingers."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.detach import unit_name
from supervised_box import SupervisedBox, built_program, wait_for

from gpu_tenant.marketplace.engines import podman, podman_image

pytestmark = [
    pytest.mark.integration,
    pytest.mark.podman,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("podman") is None, reason="podman as root is missing"),
]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dbus", "libpam-systemd", "systemd", "systemd-sysv")
USER, UID = "tenant", 1500
RESUME = "import json, sys; from ansible_collections.tenant.gpu.plugins.module_utils import reboot_hook as hook; "
RESUME += "print(json.dumps(hook.act({'tenant_root': sys.argv[1], 'hook': 'auto', 'state': sys.argv[2]}, False)))"


def is_up(said: str) -> bool:
    """Degraded is up too: some unit of Debian's may have no place in a container."""
    return said.strip() in ("running", "degraded")


class SystemdBox(SupervisedBox):
    """A box in a container. What is asked of it runs in there: its processes are nobody's business out here."""

    def __init__(self, folder: Path, image: str, environment: dict[str, str], user: str) -> None:
        super().__init__(folder, "/usr/bin/python3")
        self.image, self.environment, self.user = image, environment, user
        self.name = f"gt-systemd-{secrets.token_hex(4)}"
        for link in folder.glob("unpacked-*"):
            link.unlink()
            shutil.copytree(built_program().parent / link.name, link)

    def podman(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            ["podman", *words], env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def create(self) -> None:
        mounts = [f"--volume={self.folder}:{self.folder}", f"--volume={ROOT}:{ROOT}:ro"]
        self.podman(
            "create", f"--name={self.name}", "--systemd=always", "--network=none", "--pull=never", *mounts, self.image,
            "/sbin/init",
        )  # fmt: skip

    def boot(self) -> None:
        """Power on, and wait until whoever is to log in can."""
        self.podman("start", self.name)
        wait_for("the machine to be up", lambda: is_up(self.inside("systemctl", "is-system-running")))
        if self.user != "root":
            wait_for("the user's own systemd", lambda: is_up(self.scoped("is-system-running")))

    def make_user(self) -> None:
        self.inside("useradd", "--create-home", f"--uid={UID}", USER)
        self.inside("loginctl", "enable-linger", USER)
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, UID, UID)

    def inside(self, *words: str, user: str = "root") -> str:
        return self.podman("exec", f"--user={user}", self.name, *words, check=False)

    def enter(self) -> list[str]:
        login = [f"--env=XDG_RUNTIME_DIR=/run/user/{UID}"] if self.user != "root" else []
        return ["podman", "exec", "-i", f"--user={self.user}", *login, self.name]

    def scoped(self, *words: str) -> str:
        scope = ["--user"] if self.user != "root" else []
        return self.podman(*self.enter()[1:], "systemctl", *scope, *words, check=False)

    def supervising(self) -> list[str]:
        """Units that systemd-run made for this root, and that are at work."""
        name = unit_name(str(self.root))
        listed = self.scoped("list-units", "--plain", "--no-legend", "--state=active", f"{name}-*.service")
        return [line.split()[0] for line in listed.splitlines()]

    def argv(self, *words: str) -> list[str]:
        return [*self.enter(), *super().argv(*words)]

    def in_a_session(self, *words: str) -> str:
        """What the program says in a login of the user's, which is over when it has answered."""
        command = ["env", f"XDG_RUNTIME_DIR=/run/user/{UID}", *super().argv(*words)]
        return self.inside("su", "--login", self.user, "--command", shlex.join(command))

    def run(self, run_id: str = "digits") -> dict[str, Any]:
        return dict({run["run_id"]: run for run in self.verb("status")["runs"]}[run_id])

    def hook(self, state: str) -> dict[str, Any]:
        """The module's work, as it is done there."""
        words = ["env", f"PYTHONPATH={ROOT / 'collections'}", "PYTHONDONTWRITEBYTECODE=1", "python3", "-c", RESUME]
        return dict(json.loads(self.podman(*self.enter()[1:], *words, str(self.root), state)))

    def write_resume_all(self) -> None:
        """As deploy does."""
        program = self.root / "bin" / "resume-all"
        program.parent.mkdir(parents=True, exist_ok=True)
        words = [self.python, str(self.program), "--root", str(self.root), "resume-all"]
        program.write_text(f"#!/bin/sh\nexec {shlex.join(words)}\n")
        program.chmod(0o755)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    settings = tmp_path_factory.mktemp("podman") / "containers.conf"
    settings.write_text(podman.LIMITS + ('[engine]\nruntime = "runc"\n' if shutil.which("runc") else ""))
    environment = {"CONTAINERS_CONF": str(settings), **os.environ}
    return podman_image.build_image(environment, PACKAGES), environment


@pytest.fixture(params=["root", USER])
def box(request: pytest.FixtureRequest, tmp_path: Path, image: tuple[str, dict[str, str]]) -> Iterator[SystemdBox]:
    made = SystemdBox(tmp_path, *image, request.param)
    try:
        made.create()
        made.podman("start", made.name)
        wait_for("systemd to answer", lambda: is_up(made.inside("systemctl", "is-system-running")))
        made.write_resume_all()
        if request.param != "root":
            made.make_user()
        made.boot()
        yield made
    finally:
        with contextlib.suppress(AssertionError):
            made.podman("rm", "--force", "--time", "0", "--ignore", made.name)


def test_a_unit_runs_the_supervisor_and_a_start_of_the_machine_goes_on(box: SystemdBox) -> None:
    unit = f"{unit_name(str(box.root))}.service"
    box.register_held()
    box.verb("start", "--detach", "systemd")
    box.await_trainer()
    (supervising,) = box.supervising()
    # A worker of the trainer that the kernel kills for memory must not cost the unit.
    assert box.scoped("show", "--property=OOMPolicy", "--value", supervising) == "continue\n"
    # The end of the unit is that of the supervisor only: the next one takes the trainer over.
    box.scoped("kill", "--kill-whom=main", "--signal=KILL", supervising)
    wait_for("the unit to have ended", lambda: box.scoped("is-active", supervising) != "active\n")
    assert not box.verb("status")["daemon"]["alive"]
    assert (box.cell()["attempt"], box.cell()["liveness"]) == (1, "alive")
    # Deploy sets the hook before train starts anything.
    hooked = box.hook("present")
    assert (hooked["hook"], hooked["changed"], box.hook("present")["changed"]) == ("systemd", True, False)
    box.verb("start", "--detach", "systemd")
    assert len(box.supervising()) == 1
    assert (box.cell()["attempt"], box.cell()["liveness"]) == (1, "alive")
    # The machine ends without a word, and is started again: nobody logs in.
    box.podman("kill", box.name)
    box.boot()
    # Past the step at which it held, so it needs nobody any more.
    cell = box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["resumed_from_step"]) == (2, 2)
    ended = records.read_record(box.paths(1).exit, "exit")
    assert "the container was restarted" in ended["why"]
    assert (box.scoped("is-active", unit), box.supervising()) == ("active\n", [])
    assert box.hook("absent")["changed"]
    assert box.scoped("is-enabled", unit) != "enabled\n"


@pytest.mark.parametrize("box", [USER], indirect=True)
def test_where_a_logout_kills_what_a_login_left_only_a_unit_is_started(box: SystemdBox) -> None:
    """The user lingers, and yet what setsid starts in a session would end with it: logind kills the session's scope."""
    box.inside("sh", "-c", "echo KillUserProcesses=yes >>/etc/systemd/logind.conf && systemctl restart systemd-logind")
    box.register_held()
    told = json.loads(box.in_a_session("start", "--detach", "setsid"))
    assert (told["exit"], told["kind"]) == (19, "system"), told
    assert "kills what a login of tenant leaves behind" in told["error"]
    assert not box.verb("status")["daemon"]["alive"]
    # What it names as the way out is one: the session is over, and the supervisor lives.
    assert json.loads(box.in_a_session("start", "--detach", "systemd"))["changed"]
    box.await_trainer()
    sessions = ("loginctl", "show-user", "--property=NCurrentSessions", "--value")
    wait_for("logind to have ended the session", lambda: box.inside(*sessions) == "0\n")
    assert box.verb("status")["daemon"]["alive"]
    assert (box.cell()["attempt"], box.cell()["liveness"]) == (1, "alive")
