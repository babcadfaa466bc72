# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The health sampler: memory, kills, pressure, disk and GPUs in words, with files and tools that tests put there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    bounded,
    cgroup,
    gates,
    gpu,
    gpu_locks,
    gpu_report,
    health,
    process,
    records,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.errand import Errand
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from hypothesis import given
from hypothesis import strategies as st
from test_gpu import KERNEL_LOG, ONE_CARD, install

LIVE = health.Live("digits/c1/a1", "/r/runs/digits/c1/a1", 100.0)
NEXT = health.Live("digits/c1/a2", "/r/runs/digits/c1/a2", 200.0)
GIB = 1 << 30
WAITS = "some avg10={some} avg60=0.00 avg300=0.00 total=1\nfull avg10={full} avg60=0.00 avg300=0.00 total=1\n"


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The first true answer of ``condition``; fails naming ``what`` after ten minutes."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.01)
    raise AssertionError(f"waited ten minutes for {what}")


class Machine:
    """A cgroup, a disk and a clock that a test sets, and the sampler that looks at them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5000.0
        self.free = gates.Disk(100 * 10**9, 10**6)
        self.group = folder / "cgroup"
        self.group.mkdir()
        (folder / "membership").write_text("0::/\n")
        self.pressure = folder / "pressure"
        self.layout = Layout(str(folder / "root"))
        os.makedirs(self.layout.root)
        self._places = health.Places(str(self.group), str(folder / "membership"), str(self.pressure))
        monkeypatch.setattr(gates, "disk_of", lambda _path: self.free)
        self.sampler = self.new_sampler()

    def new_sampler(self) -> health.Sampler:
        return health.Sampler(self.layout, clock=lambda: self.now, places=self._places)

    def memory(self, **files: object) -> None:
        for name, text in {"current": 2 * GIB, "max": 10 * GIB, "peak": 3 * GIB, **files}.items():
            (self.group / f"memory.{name}").write_text(f"{text}\n")

    def kills(self, count: int) -> None:
        (self.group / "memory.events").write_text(f"low 0\nhigh 3\nmax 9\noom 2\noom_kill {count}\n")

    def sample(self, live: health.Live | None = None, wanted: bool = False, sampler: Any = None) -> dict[str, Any]:
        self.now += health.SAMPLE_S
        (sampler or self.sampler).tick(live, wanted)
        return records.read_record(self.layout.health, "health")

    def told(self, *arguments: Any, **options: Any) -> str:
        return "; ".join(self.sample(*arguments, **options)["warnings"])


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stand-ins for nvidia-smi and dmesg can be put; nothing else is found on the way."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setattr(gpu, "search_path", lambda: str(folder))
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: Path) -> Machine:
    return Machine(tmp_path, monkeypatch)


# --- memory -------------------------------------------------------------------------------------------------------


def test_memory_of_the_group_without_the_cache(machine: Machine) -> None:
    machine.memory(current=9.5 * GIB, stat=f"anon 1\ninactive_file {6 * GIB}\nactive_file 5")
    (machine.group / "memory.current").write_text(f"{9 * GIB}\n")
    machine.kills(0)
    found = machine.sample()
    assert found["memory"]["used_bytes"] == 3 * GIB
    assert (found["memory"]["limit_bytes"], found["memory"]["peak_bytes"]) == (10 * GIB, 3 * GIB)
    assert found["warnings"] == []
    (machine.group / "memory.stat").write_text(f"inactive_file {GIB // 2}\n")
    (machine.group / "memory.current").write_text(f"{10 * GIB}\n")
    assert "memory: 10.2 GB of 10.7 GB are in use (95%), without the page cache" in machine.told()


def test_kills_count_from_the_beginning_of_the_attempt(machine: Machine) -> None:
    machine.memory()
    machine.kills(4)
    assert machine.told(LIVE) == ""
    machine.kills(6)
    assert "the kernel killed 2 processes for memory since digits/c1/a1 began" in machine.told(LIVE)
    # The next supervisor goes on counting; the next attempt begins anew.
    assert "killed 2 processes" in machine.told(LIVE, sampler=machine.new_sampler())
    assert machine.told(NEXT) == ""
    # A counter that fell belongs to a new group.
    machine.kills(1)
    assert "killed 1 processes for memory since digits/c1/a2" in machine.told(NEXT)


def test_a_box_that_tells_nothing_is_no_alarm(machine: Machine) -> None:
    found = machine.sample(LIVE)
    assert (found["memory"], found["pressure"], found["gpu"], found["warnings"]) == (None, None, None, [])


def test_version_1_of_the_groups_is_read_too(tmp_path: Path) -> None:
    own = tmp_path / "memory" / "docker" / "abc"
    own.mkdir(parents=True)
    for name, text in (
        ("usage_in_bytes", "800"),
        ("limit_in_bytes", str((1 << 63) - 4096)),
        ("max_usage_in_bytes", "900"),
        ("stat", "cache 5\ntotal_inactive_file 300\n"),
        ("oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
    ):
        (own / f"memory.{name}").write_text(text)
    (tmp_path / "memory" / "docker" / "memory.limit_in_bytes").write_text("1000")
    membership = tmp_path / "membership"
    membership.write_text("5:cpu:/\n4:memory:/docker/abc\n0::/\n")
    assert cgroup.memory(str(tmp_path), str(membership)) == cgroup.Memory(500, 1000, 900, 300, 7)
    assert cgroup.oom_kills(str(tmp_path), str(membership)) == 7
    # In a container the mount may begin at the group itself, while the membership names the host's path.
    membership.write_text("4:memory:/kubepods/pod1/abc\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("5")
    assert cgroup.memory(str(tmp_path), str(membership)) == cgroup.Memory(5)


@given(st.text(max_size=200))
def test_no_text_of_a_kernel_breaks_the_reading(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("group")
    for name in ("memory.current", "memory.max", "memory.stat", "memory.events", "memory.pressure", "membership"):
        (folder / name).write_text(text, encoding="utf-8", newline="")
    cgroup.memory(str(folder), str(folder / "membership"))
    cgroup.pressure(str(folder), str(folder / "membership"), str(folder / "none"))


# --- pressure -----------------------------------------------------------------------------------------------------


def test_pressure_of_the_container_warns_and_that_of_the_host_does_not(machine: Machine) -> None:
    machine.pressure.mkdir()
    for what in ("memory", "io"):
        (machine.pressure / what).write_text(WAITS.format(some=90.0, full=80.5))
    found = machine.sample()
    assert found["pressure"] == {
        "scope": "host",
        "memory": {"some": 90.0, "full": 80.5},
        "io": {"some": 90.0, "full": 80.5},
    }
    assert found["warnings"] == []
    (machine.group / "memory.pressure").write_text(WAITS.format(some=30.0, full=23.4))
    (machine.group / "io.pressure").write_text(WAITS.format(some=30.0, full=5.0))
    assert machine.sample()["warnings"] == ["all processes waited for memory during 23 % of the last ten seconds"]


# --- disk ---------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_is_foretold_and_the_next_supervisor_knows_it_too(machine: Machine) -> None:
    for _sample in range(60):
        machine.free = gates.Disk(machine.free.free_bytes - 10**8, machine.free.free_inodes)
        machine.sample()
    # 0.2 GB a minute, 94 GB are left.
    machine.free = gates.Disk(38 * 10**9, 10**6)
    for _sample in range(120):
        machine.free = gates.Disk(machine.free.free_bytes - 10**8, machine.free.free_inodes)
        machine.sample()
    found = machine.sample(sampler=machine.new_sampler())
    assert found["disk"]["full_in_s"] == pytest.approx(26 * 300, rel=0.02)
    assert found["warnings"] == [
        f"the disk is full in 2 h {found['disk']['full_in_s'] % 3600 // 60} min if it goes on "
        "like this (26.0 GB are free)"
    ]
    assert len(found["history"]) == health.MOST_SAMPLES
    assert len(found["columns"]) == len(found["history"][0])


def test_inodes_run_out_too(machine: Machine) -> None:
    for _sample in range(40):
        machine.free = gates.Disk(10**12, (machine.free.free_inodes or 0) - 20000)
        found = machine.sample()
    assert found["disk"]["full_in_s"] is None
    assert found["disk"]["inodes_gone_in_s"] == pytest.approx(300, abs=2)
    assert "no file can be made in 5 min" in found["warnings"][0]


def test_the_last_of_a_disk_is_left_to_the_records_that_decide(machine: Machine) -> None:
    before = machine.sample()
    for full in (gates.Disk(1000, 10**6), gates.Disk(10**9, 3)):
        machine.free = full
        assert machine.sample() == before
    machine.free = gates.Disk(10**9, None)
    assert machine.sample()["disk"]["free_bytes"] == 10**9


def test_the_history_of_another_life_is_not_taken_up(machine: Machine) -> None:
    machine.sample()
    kept = records.read_record(machine.layout.health, "health")
    records.write_record(machine.layout.health, "health", dict(kept, boot={"boot_id": "x", "pid1_start": 1}))
    assert len(machine.sample(sampler=machine.new_sampler())["history"]) == 1
    for damage in ({"history": 7}, {"history": [["x"] * 6, [1], None]}, {"memory": [], "history": None}):
        records.write_record(machine.layout.health, "health", dict(kept, **damage))
        assert len(machine.sample(sampler=machine.new_sampler())["history"]) == 1


def test_it_is_calm(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    real = records.write_record
    monkeypatch.setattr(records, "write_record", lambda *each: writes.append(each) or real(*each))
    for _tick in range(240):
        machine.now += 0.5
        machine.sampler.tick(LIVE, False)
    assert 4 <= len(writes) <= 5


def test_what_status_shows(machine: Machine) -> None:
    assert health.read(machine.layout, alive=True) is None
    for _sample in range(40):
        machine.free = gates.Disk(machine.free.free_bytes - 10**9, None)
        machine.sample()
    shown = health.read(machine.layout, alive=True)
    assert shown is not None
    assert "history" not in shown
    assert "full in" in shown["warnings"][0]
    # A supervisor that is gone knows nothing of now.
    assert (health.read(machine.layout, alive=False) or {})["warnings"] == []
    Path(machine.layout.health).write_text("{")
    assert health.read(machine.layout, alive=True) is None


# --- GPUs ---------------------------------------------------------------------------------------------------------


def looked(machine: Machine, live: health.Live | None, wanted: bool = True) -> dict[str, Any]:
    """The record with the answer of a look in it."""
    machine.now += health.GPU_MOST_S
    machine.sampler.tick(live, wanted)

    def back() -> dict[str, Any] | None:
        machine.sampler.tick(live, wanted)
        found = records.read_record(machine.layout.health, "health")
        asked = machine.sampler._errand
        return found if found["gpu"] and asked is None else None

    found: dict[str, Any] = wait_for("the look at the GPUs", back)
    return found


def healthy(**answers: str) -> str:
    """A stand-in for nvidia-smi with one card."""
    known = {
        "remapped": "No, No",
        "ecc": "0",
        "slowdown": "Not Active, Not Active, Not Active",
        "compute-apps": "",
        **{name.replace("_", "-"): text for name, text in answers.items()},
    }
    cases = " ".join(f'*{name}*) printf "{text}\\n" ;;' for name, text in known.items())
    return f'case "$1" in {cases} *) {answers.get("core") or ONE_CARD} ;; esac'


def test_a_card_without_complaints(machine: Machine, tools: Path) -> None:
    install(tools / "nvidia-smi", healthy())
    found = looked(machine, LIVE)
    assert found["gpu"]["cards"] == [
        {"index": 0, "name": "NVIDIA GeForce RTX 4090", "memory_mib": 24564, "used_mib": 512}
    ]
    assert (found["warnings"], found["gpu"]["throttling"], found["gpu"]["xids"]) == ([], [], None)


def test_heat_counts_only_under_a_trainer(machine: Machine, tools: Path) -> None:
    install(tools / "nvidia-smi", healthy(slowdown="Active, Not Active, Not Active"))
    assert looked(machine, LIVE)["warnings"] == ["GPU 0 slows down for heat"]
    idle = looked(machine, None)
    assert (idle["gpu"]["throttling"], idle["warnings"]) == (None, [])


def test_full_utilisation_without_power_is_told_under_a_trainer(machine: Machine, tools: Path) -> None:
    install(tools / "nvidia-smi", healthy(power="100, 2, 2520, 3105, 95.61, 450.00"))
    found = looked(machine, LIVE)
    (load,) = found["gpu"]["load"]
    assert (load["busy"], load["clock_mhz"], load["power_w"]) == (100, 2520, 95)
    assert found["warnings"] == [
        "GPU 0 is 100 % busy by its utilisation, but draws 95 of 450 W and uses its memory 2 % of the time: it waits "
        "more than it computes"
    ]
    idle = looked(machine, None)
    assert (idle["gpu"]["load"], idle["warnings"]) == (None, [])


def test_faults_rows_and_xids_since_the_attempt_began(machine: Machine, tools: Path) -> None:
    install(tools / "nvidia-smi", healthy(ecc="2", remapped="Yes, No"))
    install(tools / "dmesg", f"cat <<'EOF'\n{KERNEL_LOG}EOF")
    assert looked(machine, LIVE)["warnings"] == [
        "GPU 0 has 2 uncorrectable memory errors since its driver was loaded",
        "GPU 0 replaces a row of its memory at its next reset; it works meanwhile",
        "the driver logged Xid 79 for PCI:0000:af:00 since digits/c1/a1 began: the card or its host is broken, "
        "go on with another box",
        "the driver logged Xid 13 for PCI:0000:AF:00 since digits/c1/a1 began",
    ]


def test_an_answer_about_an_earlier_attempt_is_thrown_away(machine: Machine, tools: Path) -> None:
    gate = tools / "gate"
    os.mkfifo(gate)
    install(tools / "nvidia-smi", f"read line <{gate}; {healthy(slowdown='Active, Active, Active')}")
    machine.sampler.tick(LIVE, True)
    errand = machine.sampler._errand
    with open(gate, "w", encoding="ascii") as stream:
        # Opened: the first one runs. Whatever is asked after it meets the second one.
        install(tools / "nvidia-smi", healthy())
        stream.write("go\n")
    wait_for("the look", lambda: errand is not None and errand.is_back)
    assert machine.sample(NEXT)["gpu"] is None
    assert looked(machine, NEXT)["gpu"]["attempt"] == NEXT.name


def test_a_tool_that_hangs_holds_nobody_up_and_is_asked_more_and_more_seldom(
    machine: Machine, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.read, "__defaults__", (0.2,))
    install(tools / "nvidia-smi", "sleep 600")
    found = looked(machine, LIVE)
    assert found["warnings"] == ["the GPUs cannot be looked at: nvidia-smi: no answer within 0.2 s"]
    assert machine.sampler._gpu_pause == 2 * health.GPU_S
    for _look in range(8):
        looked(machine, LIVE)
    assert machine.sampler._gpu_pause == health.GPU_MOST_S
    # Without a run that needs GPUs that is nobody's worry.
    assert looked(machine, LIVE, wanted=False)["warnings"] == []
    install(tools / "nvidia-smi", healthy())
    assert looked(machine, LIVE)["warnings"] == []
    assert machine.sampler._gpu_pause == health.GPU_S


def test_what_even_sigkill_does_not_end_is_not_started_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    killers = [monkeypatch.setattr(bounded.os, "killpg", lambda _group, _number: None)]
    monkeypatch.setattr(bounded, "_KILL_WAIT_S", 0.01)
    argv = ["sleep", "600"]
    assert bounded.run_bounded(argv, 0.05).why == "no answer within 0.05 s"
    stuck = bounded._LEFT_BEHIND["sleep"]
    try:
        assert f"an earlier one still hangs in the kernel (pid {stuck.pid})" in bounded.run_bounded(argv, 0.05).why
    finally:
        monkeypatch.undo()
        stuck.kill()
        stuck.wait()
    assert killers == [None]
    assert bounded.run_bounded(["sleep", "0"], 20).rc == 0
    assert "sleep" not in bounded._LEFT_BEHIND


def test_an_errand_brings_its_failure_home() -> None:
    def fails() -> int:
        raise OSError(28, "No space left on device")

    errand = Errand("failing", fails)
    wait_for("the errand", lambda: errand.is_back)
    assert (errand.answer, errand.problem) == (None, "OSError: [Errno 28] No space left on device")


def test_an_errand_holds_nobody_up() -> None:
    gate = threading.Event()
    errand = Errand("waiting", lambda: gate.wait(60))
    assert not errand.is_back
    gate.set()
    wait_for("the errand", lambda: errand.is_back)
    assert errand.answer is True


# --- who holds the memory of a GPU --------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /dev/nvidia0."""
    path = tmp_path / "nvidia0"
    path.touch()
    monkeypatch.setattr(gpu_report, "_DEVICE", gpu_report.re.compile(rf"{path}\Z"))
    return path


@pytest.fixture
def start(device: Path) -> Any:
    """Starts a process that has the device open, with a child that has it too, and waits until both are there."""
    started = []
    code = (
        "import os, sys; stream = open(sys.argv[1]); child = os.fork(); "
        "os.environ.clear() if child == 0 else print(child, flush=True); sys.stdin.read()"
    )

    def start(**environment: str) -> tuple[int, int]:
        made = subprocess.Popen(
            [sys.executable, "-c", code, str(device)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(made)
        assert made.stdout is not None
        return made.pid, int(made.stdout.readline())

    yield start
    for made in started:
        assert made.stdin is not None
        assert made.stdout is not None
        made.stdin.close()
        made.wait()
        made.stdout.close()


def pids(found: list[gpu_report.Holder]) -> list[int]:
    return sorted(each.pid for each in found)


def test_the_trainer_and_its_workers_hold_their_own_memory(start: Callable[..., tuple[int, int]]) -> None:
    both = start(TENANT_ATTEMPT=LIVE.folder)
    assert gpu_report.holders(LIVE.folder, least_age_s=0) == []
    # When the attempt is over, whoever carries its marker is a leftover, and so is its worker.
    leftovers = gpu_report.holders("", least_age_s=0)
    assert pids(leftovers) == sorted(both)
    assert {each.attempt for each in leftovers} == {LIVE.folder}
    assert "left by attempt digits/c1/a1, has a GPU open" in leftovers[0].in_words()
    assert pids(gpu_report.holders(NEXT.folder, least_age_s=0)) == sorted(both)


def test_the_trainer_of_another_root_is_no_leftover_until_it_is_over(
    start: Callable[..., tuple[int, int]], tmp_path: Path
) -> None:
    """Two projects on one machine: nobody is told to end what the other one trains."""
    paths = Layout(str(tmp_path / "other")).attempt("digits", "c1", 3)
    os.makedirs(paths.folder)
    trainer, worker = start(TENANT_ATTEMPT=paths.folder)
    identity = process.identify(trainer)
    assert identity is not None
    records.write_record(paths.status, "status", {"process": identity.as_dict()})
    assert gpu_report.holders(LIVE.folder, least_age_s=0) == []
    assert gpu_report.holders("", least_age_s=0) == []
    os.unlink(paths.status)
    assert pids(gpu_report.holders(LIVE.folder, least_age_s=0)) == sorted((trainer, worker))


def test_a_stranger_is_named_once_it_is_not_quite_new(start: Callable[..., tuple[int, int]]) -> None:
    both = start()
    assert gpu_report.holders(LIVE.folder) == []
    found = gpu_report.holders(LIVE.folder, least_age_s=0)
    assert pids(found) == sorted(both)
    assert "not started by us" in found[0].in_words()
    # Nothing was done to it.
    assert all(process.identify(pid) for pid in both)


def test_holders_are_told_with_the_memory_that_the_driver_names(
    machine: Machine, tools: Path, start: Callable[..., tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, worker = start()
    monkeypatch.setattr(gpu_report, "LEAST_AGE_S", 0.0)
    monkeypatch.setattr(gpu_report.holders, "__defaults__", (0.0,))
    install(tools / "nvidia-smi", healthy(compute_apps=f"{pid}, 9000 MiB"))
    told = looked(machine, LIVE)["gpu"]["holders"]
    assert sorted(told) == sorted(
        [
            f"process {pid} ({gpu_report._name(pid)}), not started by us, holds 9000 MiB of GPU memory; it was left "
            "alone: end it if you do not need it",
            f"process {worker} ({gpu_report._name(worker)}), not started by us, has a GPU open; it was left alone: end "
            "it if you do not need it",
        ]
    )


def test_memory_that_nobody_here_holds_is_told_only_while_nothing_of_ours_runs(
    machine: Machine, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a container: the driver names the host's processes, none of which is seen here.
    install(tools / "nvidia-smi", healthy(core=ONE_CARD.replace("512", "9000"), compute_apps="999999, 9000 MiB"))
    assert looked(machine, LIVE)["gpu"]["holders"] == []
    assert "has 9000 MiB in use, and none of it by us" in looked(machine, None)["gpu"]["holders"][0]
    # Another tenant root's trainer has locked the card: its memory is not a leftover's.
    monkeypatch.setattr(gpu_locks, "held", list)
    assert looked(machine, None)["gpu"]["holders"] == []


def test_the_record_is_plain_json(machine: Machine, tools: Path) -> None:
    install(tools / "nvidia-smi", healthy())
    json.dumps(looked(machine, LIVE), allow_nan=False)
