# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Locate, pin and probe a real machine behind a real sshd, with the real ansible-playbook of every core installed."""

from __future__ import annotations

import base64
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import NO_STARTUP_FILES, wait_for
from ports import free_port
from tenant_plays import CORES, ROOT, Plays, words

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not os.path.exists("/usr/sbin/sshd"), reason="needs /usr/sbin/sshd"),
]

GOOD_SMI = """#!/bin/sh
case "$*" in
*--query-gpu*) echo "0, GPU-1, NVIDIA GeForce RTX 4090, 24564, 3, 550.54" ;;
*) echo "| NVIDIA-SMI 550.54   Driver Version: 550.54   CUDA Version: 12.4 |" ;;
esac
"""


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


@dataclass
class Machine:
    """A box: this machine behind an sshd of its own, with its own PATH and home for tools."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    config: list[str] = field(default_factory=list)

    @property
    def tools(self) -> Path:
        return self.folder / "tools"

    def install(self, name: str, text: str) -> None:
        path = self.tools / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def new_host_key(self) -> str:
        """Make a host key, as a freshly made box has one; its fingerprint."""
        for old in self.folder.glob("host_key*"):
            old.unlink()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "host_key")
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(self.folder / "host_key.pub")], check=True, capture_output=True, text=True
        )
        return shown.stdout.split()[1]

    def start(self, *extra: str) -> None:
        lines = [
            f"HostKey {self.folder}/host_key",
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"AuthorizedKeysFile {self.folder}/login_key.pub",
            f"PidFile {self.folder}/sshd.pid",
            f"SetEnv PATH={self.tools}:/usr/bin:/bin SHLVL={NO_STARTUP_FILES['SHLVL']}",
            "StrictModes no",
            "UsePAM no",
            *extra,
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(command, stderr=(self.folder / "sshd.log").open("ab"))
        process = self.process
        wait_for(lambda: process.poll() is not None or self._answers(), what="sshd")
        assert process.poll() is None, (self.folder / "sshd.log").read_text()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=600)
            self.process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
                return connection.recv(4).startswith(b"SSH")
        except OSError:
            return False


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    os.makedirs("/run/sshd", exist_ok=True)
    folder = tmp_path / "machine"
    (folder / "tools").mkdir(parents=True)
    folder.chmod(0o755)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "login_key")
    box = Machine(folder, free_port())
    box.new_host_key()
    yield box
    box.stop()


@dataclass
class Controller(Plays):
    """A controller with one box in its inventory, of the platform ``ssh``."""

    machine: Machine

    @property
    def state(self) -> Path:
        return self.folder / "state dir"

    def inventory(self, **variables: Any) -> None:
        known = {
            "tenant_project": "demo",
            "tenant_state_dir": str(self.state),
            "ansible_host": "127.0.0.1",
            "ansible_port": self.machine.port,
            "platform_ssh_user": getpass.getuser(),
            "ansible_ssh_private_key_file": str(self.machine.folder / "login_key"),
            "platform_python": str(ROOT / ".venv" / "bin" / "python"),
            "platform_data_dir": str(self.folder / "data"),
            "platform_hf_home": "",
            **variables,
        }
        self.write_inventory({"ssh": {"hosts": {"box1": known}}})


@pytest.fixture
def controller(request: pytest.FixtureRequest, tmp_path: Path, machine: Machine) -> Controller:
    """On the core that runs these tests; ``every_core`` has a test run on the others as well."""
    folder = tmp_path / "controller"
    (folder / "data").mkdir(parents=True)
    core = getattr(request, "param", CORES[0])
    made = Controller(ROOT / core / "bin", folder, machine)
    made.inventory()
    return made


every_core = pytest.mark.parametrize("controller", CORES, indirect=True)


LOCATE = {"name": "locate", "tenant.gpu.box_locate": {}}


def pin(**options: Any) -> dict[str, Any]:
    return {
        "name": "pin",
        "tenant.gpu.box_host_key": {"state_dir": "{{ tenant_state_dir }}", "wait_s": 300, **options},
    }


def probe(**options: Any) -> dict[str, Any]:
    return {"name": "probe", "tenant.gpu.box_probe": {"torch_timeout_s": 600, "nvidia_timeout_s": 120, **options}}


@every_core
def test_locates_pins_and_probes(controller: Controller, machine: Machine) -> None:
    machine.install("nvidia-smi", GOOD_SMI)
    machine.start()
    answers, done = controller.play([LOCATE, pin(), probe(require={"gpu_name": "RTX_4090", "min_gpu_ram_gb": 24})])
    endpoint = answers["locate"]["ansible_facts"]["box_endpoint"]
    assert (endpoint["host"], endpoint["port"], endpoint["alias"]) == ("127.0.0.1", machine.port, "box1.g1")
    assert endpoint["provider_id"] == f"ssh:127.0.0.1:{machine.port}"
    assert answers["pin"]["changed"] is True
    assert answers["pin"]["trust"] == "first contact"
    assert (controller.state / "known_hosts" / "box1").read_text().startswith("box1.g1 ssh-ed25519 ")
    assert answers["probe"]["admitted"] is True, answers["probe"]["refusals"]
    found = answers["probe"]["probe"]
    assert found["statement"].startswith("torch 2.")
    assert found["statement"].endswith("runs on the CPU: CUDA is not available")
    assert found["gpus"][0]["memory_mb"] == 24564
    assert found["cuda"]["driver_max"] == "12.4"
    assert found["training_python"]["version"].startswith("3.")
    assert abs(found["clock_skew_s"]) <= found["clock_uncertainty_s"] + 0.5
    assert found["supervisor"] is None
    data = next(mount for mount in found["mounts"] if mount["role"] == "data")
    assert data["free_bytes"] > 0
    assert answers["probe"]["changed"] is False
    assert "DEPRECATION" not in done.stdout + done.stderr

    again, _done = controller.play([LOCATE, pin(), probe()], "--check")
    assert again["pin"]["changed"] is False
    assert again["pin"]["trust"] == "pinned"
    assert again["probe"]["probe"]["statement"] == found["statement"]


def test_a_lying_offer_is_refused_in_a_sentence(controller: Controller, machine: Machine) -> None:
    machine.install("nvidia-smi", GOOD_SMI.replace("24564", "16376"))
    machine.start()
    wishes = {"min_gpu_ram_gb": 24, "num_gpus": 2, "gpu_name": "RTX 5090", "cuda": True, "min_free_gb": 10**7}
    again = {**probe(require=wishes, fail_on_refusal=True, torch=False), "name": "again", "ignore_errors": True}
    answers, _done = controller.play([LOCATE, pin(), probe(require=wishes), again])
    assert answers["probe"]["admitted"] is False
    assert [sentence.split(" are needed")[0] for sentence in answers["probe"]["refusals"]] == [
        "offered 2 GPUs, nvidia-smi reports 1",
        "offered RTX 5090, nvidia-smi reports NVIDIA GeForce RTX 4090",
        "offered 24 GB, nvidia-smi reports 16 GB",
        answers["probe"]["probe"]["statement"],
        "1e+07 GB",
    ]
    assert answers["again"]["failed"] is True
    assert "offered 24 GB, nvidia-smi reports 16 GB" in answers["again"]["msg"]


STAND_INS = {
    "hanging": ("#!/bin/sh\nexec sleep 600\n", "no answer within 1 s", 1),
    "broken": (
        "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate'; exit 9\n",
        "could not communicate",
        120,
    ),
}


def test_a_gpu_that_is_not_there_is_said(controller: Controller, machine: Machine) -> None:
    machine.start()
    options = {"require": {"num_gpus": 1}, "torch": False}
    says = {name: said for name, (_stand_in, said, _within_s) in STAND_INS.items()}
    tasks = [LOCATE, pin()]
    if not shutil.which("nvidia-smi"):
        says["absent"] = "nvidia-smi is not installed"
        tasks.append({**probe(**options), "name": "absent"})
    for name, (stand_in, _said, within_s) in STAND_INS.items():
        program = {"content": stand_in, "dest": str(machine.tools / "nvidia-smi"), "mode": "0755"}
        tasks.append({"name": f"make it {name}", "ansible.builtin.copy": program})
        tasks.append({**probe(**options, nvidia_timeout_s=within_s), "name": name})
    answers, _done = controller.play(tasks)
    for name, said in says.items():
        assert answers[name]["probe"]["nvidia_smi"]["ok"] is False
        (refusal,) = answers[name]["refusals"]
        assert said in refusal


@every_core
def test_noise_of_the_login_does_not_confuse_the_preflight(controller: Controller, machine: Machine) -> None:
    machine.install(
        "noisy", '#!/bin/sh\necho "Welcome to the box! tmux is running"\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    machine.start(f"ForceCommand {machine.tools}/noisy")
    answers, _done = controller.play([LOCATE, pin(), probe(torch=False)])
    assert "Welcome to the box!" in answers["probe"]["probe"]["login"]["noise"]


def test_a_shell_that_runs_no_commands_is_refused(controller: Controller, machine: Machine) -> None:
    machine.install("menu", "#!/bin/sh\necho 'This endpoint is for people'\n")
    machine.start(f"ForceCommand {machine.tools}/menu")
    controller.inventory(platform_ssh_proxies=[{"host": "127.0.0.*", "instead": "expose TCP port 22 of the pod"}])
    _answers, done = controller.play([LOCATE, pin(), probe()], ok=False)
    assert "runs no commands" in words(done)
    assert "platform's ssh proxy, through which no large file goes: expose TCP port 22 of the pod" in words(done)
    assert "expose TCP port 22 of the pod; an auto-tmux" in words(done)
    assert "This endpoint is for people" in words(done)


def test_a_missing_training_python_is_named_and_another_one_is_used(controller: Controller, machine: Machine) -> None:
    machine.install("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    controller.inventory(platform_python="/root/nowhere/bin/python")
    machine.start()
    answers, _done = controller.play([LOCATE, pin(), probe(torch=False)])
    assert answers["probe"]["probe"]["python"]["version"]
    (refusal,) = answers["probe"]["refusals"]
    assert "/root/nowhere/bin/python is not usable" in refusal
    assert "set platform_python" in refusal


def test_a_durable_folder_that_is_no_mount_is_refused(controller: Controller, machine: Machine) -> None:
    durable = controller.folder / "durable"
    durable.mkdir()
    controller.inventory(platform_durable_kind="mount", platform_durable_path=str(durable))
    machine.start()
    answers, _done = controller.play([LOCATE, pin(), probe(torch=False)])
    (refusal,) = answers["probe"]["refusals"]
    assert "is no mount of its own" in refusal
    assert list(durable.iterdir()) == []


@every_core
def test_an_unreachable_box_is_unreachable(controller: Controller, machine: Machine) -> None:
    machine.start()
    controller.play([LOCATE, pin()])
    machine.stop()
    _answers, done = controller.play([LOCATE, probe()], ok=False)
    assert "UNREACHABLE!" in done.stdout
    assert "unreachable=1" in done.stdout


def test_a_changed_host_key_is_refused_until_it_is_expected(controller: Controller, machine: Machine) -> None:
    machine.start()
    first, _done = controller.play([LOCATE, pin()])
    machine.stop()
    fingerprint = machine.new_host_key()
    machine.start()
    pinned = controller.state / "known_hosts" / "box1"
    known = pinned.read_text()
    refused = {"name": "unexpected", "ignore_errors": True}
    wrong = {"name": "another", "ignore_errors": True}
    foretold = {"name": "foretold", "check_mode": True, "diff": True}
    answers, done = controller.play(
        [
            LOCATE,
            {**pin(), **refused},
            {**pin(expected_keys=["SHA256:" + "A" * 43]), **wrong},
            {**pin(expected_keys=[fingerprint]), **foretold},
            {"name": "so far", "ansible.builtin.slurp": {"src": str(pinned)}, "delegate_to": "localhost"},
            pin(expected_keys=[fingerprint]),
        ]
    )
    assert answers["unexpected"]["failed"] is True
    for key in (fingerprint, first["pin"]["fingerprints"][0]):
        assert key in answers["unexpected"]["msg"]
    assert answers["another"]["failed"] is True
    assert "is expected" in answers["another"]["msg"]
    assert answers["foretold"]["changed"] is True
    assert "+box1.g1 ssh-ed25519" in done.stdout
    assert base64.b64decode(answers["so far"]["content"]).decode() == known
    assert answers["pin"]["trust"] == "expected"
    assert answers["pin"]["fingerprints"] == [fingerprint]
    assert pinned.read_text() != known


def test_the_first_pin_must_be_what_the_instances_log_says(controller: Controller, machine: Machine) -> None:
    machine.new_host_key()
    other = (machine.folder / "host_key.pub").read_text()
    fingerprint = machine.new_host_key()
    shown = (machine.folder / "host_key.pub").read_text()
    machine.start()
    log = "gpu-tenant: host keys\n{}gpu-tenant: end of host keys\n"
    refused = {**pin(log=log.format(other)), "name": "another", "ignore_errors": True}
    pinned = {"path": str(controller.state / "known_hosts" / "box1")}
    so_far = {"name": "so far", "ansible.builtin.stat": pinned, "delegate_to": "localhost"}
    answers, _done = controller.play([LOCATE, refused, so_far, pin(log=log.format(shown))])
    assert answers["another"]["failed"] is True
    assert "instance log says" in answers["another"]["msg"]
    assert fingerprint in answers["another"]["msg"]
    assert answers["so far"]["stat"]["exists"] is False
    assert (answers["pin"]["trust"], answers["pin"]["how"]) == ("instance log", "instance_log")


def test_a_new_generation_replaces_the_key(controller: Controller, machine: Machine) -> None:
    machine.start()
    controller.play([LOCATE, pin()])
    machine.stop()
    fingerprint = machine.new_host_key()
    machine.start()
    controller.inventory(tenant_generation=2)
    answers, _done = controller.play([LOCATE, pin(), probe(torch=False)])
    assert answers["locate"]["ansible_facts"]["box_endpoint"]["alias"] == "box1.g2"
    assert answers["pin"]["fingerprints"] == [fingerprint]
    assert "box1.g1" not in (controller.state / "known_hosts" / "box1").read_text()


@pytest.fixture
def edited(controller: Controller) -> Callable[[str, dict[str, Any]], None]:
    """Adds a second host to the inventory."""

    def add(group: str, variables: dict[str, Any]) -> None:
        path = controller.folder / "hosts.yml"
        hosts = json.loads(path.read_text())
        hosts.setdefault(group, {}).setdefault("hosts", {})["box2"] = variables
        path.write_text(json.dumps(hosts))

    return add


def test_two_names_for_one_machine_are_an_error(
    controller: Controller, machine: Machine, edited: Callable[[str, dict[str, Any]], None]
) -> None:
    box1 = json.loads((controller.folder / "hosts.yml").read_text())["ssh"]["hosts"]["box1"]
    edited("ssh", box1)
    _answers, done = controller.play([LOCATE], ok=False)
    assert "box2 and box1 reach the same machine" in words(done)
    assert "failed=1" in done.stdout


def test_values_that_a_team_got_wrong_are_named(controller: Controller) -> None:
    controller.inventory(platform_durable_kind="mount", platform_endpoint_stable="maybe")
    _answers, done = controller.play([LOCATE], ok=False)
    assert "platform_endpoint_stable: boolean is wanted, found string 'maybe'" in words(done)


def test_a_host_that_is_an_option_never_reaches_ssh(controller: Controller, tmp_path: Path) -> None:
    controller.inventory(ansible_host=f"-oProxyCommand=touch {tmp_path}/ran")
    _answers, done = controller.play([LOCATE, pin(), probe()], ok=False)
    assert "which cannot be one" in words(done)
    assert not (tmp_path / "ran").exists()
