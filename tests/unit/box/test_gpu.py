# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""GPUs through the eyes of nvidia-smi and the kernel's log: whole, absent, broken, hanging, old."""

from __future__ import annotations

import builtins
import io
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import bounded, gpu, gpu_gate, gpu_locks, gpu_report

KERNEL_LOG = """\
[    5.100000] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.86
[   10.250000] NVRM: Xid (PCI:0000:3b:00): 48, pid='<unknown>', name=<unknown>, An uncorrectable double bit error
[ 9000.000001] NVRM: Xid (PCI:0000:af:00): 79, GPU has fallen off the bus.
[ 9001.000000] NVRM: Xid (PCI:0000:AF:00): 13, Graphics Exception
[ 9002.000000] usb 1-1: new device Xid (none): 99
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for nvidia-smi can be put; nothing else is found on the way."""
    monkeypatch.setattr(gpu, "search_path", lambda: f"{tmp_path}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "nvidia-smi"


def install(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


ONE_CARD = "echo '0, GPU-1, NVIDIA GeForce RTX 4090, 24564, 512, 570.86'"


def test_a_card_is_read(smi: Path) -> None:
    install(smi, ONE_CARD)
    assert gpu.read() == gpu.Reading((gpu.Gpu(0, "GPU-1", "NVIDIA GeForce RTX 4090", 24564, 512, "570.86"),))


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("", ""),
        ("echo 'No devices were found'", ""),
        ('echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18', "failed with 18: Failed"),
        ("echo nonsense", "an answer that is none"),
        ("echo 'x, GPU-1, RTX, 1, 2, 3'", "an answer that is none"),
    ],
)
def test_no_card_is_no_reading(smi: Path, script: str, problem: str) -> None:
    install(smi, script)
    found = gpu.read(timeout_s=120)
    assert found.gpus == ()
    assert problem in found.problem
    assert bool(found.problem) is bool(problem)


def test_a_driver_that_hangs_is_no_reading(smi: Path) -> None:
    install(smi, "sleep 600 & sleep 600")
    found = gpu.read(timeout_s=0.3)
    assert (found.gpus, found.problem) == ((), "nvidia-smi: no answer within 0.3 s")


def test_a_missing_tool_is_told(smi: Path) -> None:
    assert gpu.read().problem == "nvidia-smi is not installed"


def test_only_a_run_that_needs_gpus_is_refused(smi: Path) -> None:
    nothing = gpu.read()
    assert gpu.refusals({"required": False}, nothing) == []
    assert gpu.refusals({"required": True, "count": 1}, nothing) == ["the run needs a GPU: nvidia-smi is not installed"]
    install(smi, ONE_CARD)
    assert gpu.refusals({"required": True, "count": 1}, gpu.read()) == []
    assert gpu.refusals({"required": True, "count": 2}, gpu.read()) == ["the run needs 2 GPUs, nvidia-smi reports 1"]


def test_memory_that_somebody_left_behind_is_named(smi: Path) -> None:
    install(smi, ONE_CARD.replace("512", "9000"))
    found = gpu.refusals({"required": True, "count": 1}, gpu.read())
    assert found == [
        "GPU 0 (NVIDIA GeForce RTX 4090) has 9000 MiB in use, and none of it by us: a leftover process holds it"
    ]


def test_an_unknown_amount_in_use_is_no_accusation(smi: Path) -> None:
    install(smi, ONE_CARD.replace("512", "[N/A]"))
    assert gpu.refusals({"required": True, "count": 1}, gpu.read()) == []


def test_faults_are_asked_apart_because_old_drivers_refuse_unknown_fields(smi: Path) -> None:
    refuse = "echo 'Field is not a valid field to query.'; exit 2"
    install(smi, f'case "$1" in *remapped*) echo "No, Yes" ;; *) {refuse} ;; esac')
    assert gpu.faults() == ["GPU 0 could not replace a broken row of its memory"]
    install(smi, 'case "$1" in *ecc*) echo 3; echo 0 ;; *) echo "No, No"; echo "Yes, No" ;; esac')
    assert gpu.faults() == [
        "GPU 0 has 3 uncorrectable memory errors since its driver was loaded",
    ]
    install(smi, "echo '[N/A], [N/A]'")
    assert gpu.faults() == []


def test_a_row_that_waits_for_a_reset_is_told_and_keeps_no_run_from_starting(smi: Path) -> None:
    rows = 'echo "No, No"; echo "Yes, No"'
    card = ONE_CARD + "; " + ONE_CARD.replace("0, GPU-1", "1, GPU-2")
    install(smi, f'case "$1" in *remapped*) {rows} ;; *ecc*) echo 0; echo 0 ;; *) {card} ;; esac')
    assert gpu.waiting_for_reset() == ["GPU 1 replaces a row of its memory at its next reset; it works meanwhile"]
    assert gpu_gate.unfit({"gpu": {"required": True, "count": 2}, "env": {}}) == []
    install(smi, "exit 2")
    assert gpu.waiting_for_reset() == []


def test_law_1_a_broken_card_starts_no_cell_of_a_run_that_needs_it(smi: Path) -> None:
    broken = f'case "$1" in *ecc*) echo 3 ;; *remapped*) exit 2 ;; *) {ONE_CARD} ;; esac'
    install(smi, broken)
    assert gpu_gate.unfit({"gpu": {"required": False, "count": 1}, "env": {}}) == []
    assert gpu_gate.unfit({"gpu": {"required": True, "count": 1}, "env": {}}) == [
        "GPU 0 has 3 uncorrectable memory errors since its driver was loaded"
    ]
    install(smi, ONE_CARD)
    assert gpu_gate.unfit({"gpu": {"required": True, "count": 2}, "env": {}}) == [
        "the run needs 2 GPUs, nvidia-smi reports 1"
    ]


def test_cards_that_a_run_does_not_use_say_nothing_about_it(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour works on the first of two cards, and it is broken too."""
    used, idle = ONE_CARD.replace("512", "20000"), ONE_CARD.replace("0, GPU-1", "1, GPU-2")
    rows = 'echo "No, Yes"; echo "No, No"'
    install(smi, f'case "$1" in *ecc*) echo 3; echo 0 ;; *remapped*) {rows} ;; *) {used}; {idle} ;; esac')
    monkeypatch.setattr(gpu_locks, "held", lambda _names: [])
    run = {"gpu": {"required": True, "count": 1}, "env": {"CUDA_VISIBLE_DEVICES": "1"}}
    assert gpu_gate.unfit(run) == []
    run["env"] = {"CUDA_VISIBLE_DEVICES": "0"}
    assert "GPU 0 (NVIDIA GeForce RTX 4090) has 20000 MiB in use" in gpu_gate.unfit(run)[0]
    install(smi, f'case "$1" in *ecc*) echo 3; echo 0 ;; *remapped*) {rows} ;; *) {ONE_CARD}; {idle} ;; esac')
    assert len(gpu_gate.unfit(run)) == 2
    monkeypatch.setattr(gpu_locks, "held", list)
    assert gpu_gate.unfit(run) == ["another run on this machine uses GPU GPU-1"]


@pytest.mark.parametrize("answer", ["[GPU is lost]", "[Unknown Error]", "[GPU requires reset]"])
@pytest.mark.parametrize("field", ["24564", "512"])
def test_law_1_a_card_whose_memory_cannot_be_read_is_not_fit(smi: Path, answer: str, field: str) -> None:
    card = ONE_CARD.replace(field, answer)
    install(smi, f'case "$1" in *ecc*|*remapped*) exit 2 ;; *) {card} ;; esac')
    said = f"GPU 0 (NVIDIA GeForce RTX 4090) does not work: the driver answers '{answer}'"
    assert gpu_gate.unfit({"gpu": {"required": True, "count": 1}, "env": {}}) == [said]
    whole = ONE_CARD.replace("0, GPU-1", "1, GPU-2")
    install(smi, f'case "$1" in *ecc*|*remapped*) exit 2 ;; *) {card}; {whole} ;; esac')
    run = {"gpu": {"required": True, "count": 1}, "env": {"CUDA_VISIBLE_DEVICES": "1"}}
    assert gpu_gate.unfit(run) == [], "a card that the run does not use"


@pytest.mark.parametrize(
    ("asked", "answer", "said"),
    [
        ("ecc", "echo '[GPU is lost]'", "GPU 0 does not work: the driver answers '[GPU is lost]'"),
        ("remapped", "echo '[GPU requires reset], [GPU requires reset]'", "GPU 0 does not work: the driver answers "),
        (
            "ecc",
            "echo 'GPU is lost'; exit 15",
            "the GPUs cannot be asked for faults: nvidia-smi failed with 15: GPU is",
        ),
        ("remapped", "exit 255", "the GPUs cannot be asked for faults: nvidia-smi failed with 255: "),
    ],
)
def test_law_1_a_card_that_fails_when_it_is_asked_for_faults_is_not_called_whole(
    smi: Path, asked: str, answer: str, said: str
) -> None:
    install(smi, f'case "$1" in *{asked}*) {answer} ;; *ecc*|*remapped*) exit 2 ;; *) {ONE_CARD} ;; esac')
    (found,) = gpu_gate.unfit({"gpu": {"required": True, "count": 1}, "env": {}})
    assert found.startswith(said)
    assert gpu_report.look("", None)["faults"] == [found]


@pytest.mark.parametrize("code", [2, 3, 4, 13])
def test_faults_that_a_card_or_driver_does_not_know_are_none(smi: Path, code: int) -> None:
    install(smi, f'case "$1" in *ecc*|*remapped*) exit {code} ;; *) {ONE_CARD} ;; esac')
    assert gpu_gate.unfit({"gpu": {"required": True, "count": 1}, "env": {}}) == []


def test_law_6_a_driver_that_hangs_when_it_is_asked_for_faults_is_asked_once(
    smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def hangs(argv: list[str], _timeout_s: float) -> bounded.Outcome:
        asked.append(argv)
        return bounded.Outcome(None, "", "no answer within 20 s")

    install(smi, ONE_CARD)
    monkeypatch.setattr(gpu, "run_bounded", hangs)
    with pytest.raises(gpu.Unanswered, match="nvidia-smi: no answer within 20 s") as unanswered:
        gpu.faults()
    assert (unanswered.value.silent, len(asked)) == (True, 1)


def test_a_fault_that_was_found_counts_though_the_rest_was_not_told(smi: Path) -> None:
    install(smi, 'case "$1" in *ecc*) echo 3 ;; *) exit 255 ;; esac')
    assert gpu.faults() == ["GPU 0 has 3 uncorrectable memory errors since its driver was loaded"]


@pytest.mark.parametrize(
    ("visible", "count", "why"),
    [
        ("7", 1, "of the 2 GPUs that nvidia-smi reports none is 7"),
        ("0,7", 1, "of the 2 GPUs that nvidia-smi reports none is 7"),
        ("GPU-9", 1, "of the 2 GPUs that nvidia-smi reports none is GPU-9"),
        ("GPU-", 1, "of the 2 GPUs that nvidia-smi reports none is GPU-"),
        ("NoDevFiles", 1, "of the 2 GPUs that nvidia-smi reports none is NoDevFiles"),
        ("-1", 1, "it shows 0 GPUs, the run needs 1"),
        ("", 1, "it shows 0 GPUs, the run needs 1"),
        ("0", 2, "it shows 1 GPUs, the run needs 2"),
        ("0,-1,1", 2, "it shows 1 GPUs, the run needs 2"),
        ("1,GPU-2", 2, "it shows 1 GPUs, the run needs 2"),
        ("MIG-a", 2, "it shows 1 GPUs, the run needs 2"),
        ("0", 1, ""),
        ("1,0", 2, ""),
        ("0,1", 1, ""),
        ("0,-1", 1, ""),
        ("GPU-2", 1, ""),
        ("GPU-1, GPU-2", 2, ""),
        ("MIG-a", 1, ""),
        ("MIG-GPU-1/1/0", 1, ""),
        (None, 2, ""),
    ],
)
@pytest.mark.parametrize("inherited", [True, False])
def test_law_1_the_cards_that_a_run_names_are_there_and_as_many_as_it_needs(
    smi: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, why: str, inherited: bool
) -> None:
    two = f"{ONE_CARD}; {ONE_CARD.replace('0, GPU-1', '1, GPU-2')}"
    install(smi, f'case "$1" in *ecc*|*remapped*) exit 2 ;; *) {two} ;; esac')
    monkeypatch.setattr(gpu_locks, "held", lambda _names: [])
    named = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    for name, value in named.items() if inherited else ():
        monkeypatch.setenv(name, value)
    run = {"gpu": {"required": True, "count": count}, "env": {} if inherited else named}
    said = f"CUDA_VISIBLE_DEVICES is {visible!r}: {why}; name others in the run's env, or leave it out"
    assert gpu_gate.unfit(run) == ([said] if why else [])


def test_throttling_is_found_under_the_old_names_too(smi: Path) -> None:
    install(smi, 'case "$1" in *throttle*) echo "Active, Active, Not Active" ;; *) exit 2 ;; esac')
    assert gpu.throttling() == ["GPU 0 slows down for heat"]
    install(smi, 'echo "Not Active, Not Active, Active"')
    assert gpu.throttling() == ["GPU 0 slows down for its power supply, which asks for it"]
    install(smi, 'echo "Not Active, Not Active, Not Active"')
    assert gpu.throttling() == []


def test_xids_have_hexadecimal_buses_and_a_time() -> None:
    assert [(xid.code, xid.card) for xid in gpu.parse_xids(KERNEL_LOG)] == [
        (48, "PCI:0000:3b:00"),
        (79, "PCI:0000:af:00"),
        (13, "PCI:0000:AF:00"),
    ]
    # The first may be a previous tenant's: the ring buffer outlives rentals.
    assert [xid.code for xid in gpu.parse_xids(KERNEL_LOG, since_s=60.0)] == [79, 13]


def test_the_clock_of_the_kernel_log_is_not_that_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """As lxcfs shows it: a container that is five seconds old on a host that is up for days."""
    real = builtins.open

    def of_the_container(path: Any, *words: Any, **more: Any) -> Any:
        return io.StringIO("5.00 4.00\n") if path == "/proc/uptime" else real(path, *words, **more)

    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(builtins, "open", of_the_container)
    assert before <= gpu.uptime_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_kernel_log_that_is_not_for_us_says_nothing(smi: Path) -> None:
    assert gpu.xids() is None
    tool = smi.with_name("dmesg")
    install(tool, "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    assert gpu.xids() is None
    install(tool, f"cat <<'EOF'\n{KERNEL_LOG}EOF")
    assert [xid.code for xid in gpu.xids(60.0) or []] == [79, 13]


def test_a_fault_at_the_end_of_a_long_kernel_log_is_seen(smi: Path) -> None:
    noise = "[   10.000000] a line that a busy host writes again and again, hundreds of thousands of times"
    install(smi.with_name("dmesg"), f"yes '{noise}' | head -n 20000; cat <<'EOF'\n{KERNEL_LOG}EOF")
    assert [xid.code for xid in gpu.xids(60.0) or []] == [79, 13]


def test_load_is_clock_power_and_memory_too(smi: Path) -> None:
    two = "100, 2, 2520, 3105, 95.61, 450.00\\n7, 0, 210, 3105, [N/A], 450.00\\n"
    install(smi, f'case "$1" in *power.draw*) printf "{two}" ;; esac')
    assert gpu.load() == [gpu.Load(0, 100, 2, 2520, 3105, 95, 450), gpu.Load(1, 7, 0, 210, 3105, None, 450)]
    install(smi, "exit 2")
    assert gpu.load() == []


@pytest.mark.parametrize(
    ("busy", "memory", "power", "most", "hollow"),
    [
        (100, 2, 95, 450, True),
        (100, 2, 300, 450, False),  # it draws what work costs
        (100, 40, 95, 450, False),  # it moves memory
        (30, 2, 95, 450, False),  # utilisation itself says that it rests
        (100, 2, None, 450, False),
        (100, None, 95, 450, False),
        (None, 2, 95, 450, False),
        (100, 2, 95, None, False),
        (100, 2, 95, 0, False),
    ],
)
def test_utilisation_without_work_is_hollow_and_what_is_unknown_is_not(
    busy: int | None, memory: int | None, power: int | None, most: int | None, hollow: bool
) -> None:
    assert gpu.Load(0, busy, memory, 2520, 3105, power, most).is_hollow is hollow
