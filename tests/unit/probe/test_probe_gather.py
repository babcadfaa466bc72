# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import probe_gather
from ansible_collections.tenant.gpu.plugins.module_utils.box import bounded, records

COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"


def _pythons() -> dict[str, str]:
    """One Python of each minor version that this machine has, from 3.8 on: on PATH or kept by pyenv."""
    found = {}
    for minor in range(8, 15):
        kept = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        path = str(kept[0]) if kept else shutil.which(f"python3.{minor}")
        if path:
            found[f"3.{minor}"] = path
    return found


PYTHONS = _pythons()


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(bounded, "_EXTRA_PATH", str(tmp_path))
    return tmp_path


def test_a_command_that_never_ends_is_left_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    # The grandchild keeps the output open; waiting for it would take ten minutes.
    outcome = bounded.run_bounded(["/bin/sh", "-c", "sleep 600 & echo begun; sleep 600"], 3)
    assert time.monotonic() - started < 300
    assert outcome.rc is None
    assert outcome.why == "no answer within 3 s"
    assert "begun" in outcome.out


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    outcome = bounded.run_bounded([str(tmp_path / "none")], 1)
    assert outcome.rc is None
    assert "does not start" in outcome.why


def test_gpus_are_read(tools: Path) -> None:
    program(tools, "nvidia-smi", "#!/bin/sh\necho '0, GPU-1, NVIDIA A100-SXM4-80GB, 81920, [N/A], 535.1'\n")
    gpus, health = probe_gather.read_gpus(20)
    assert health == {"ok": True, "why": ""}
    assert gpus[0]["name"] == "NVIDIA A100-SXM4-80GB"
    assert gpus[0]["memory_mb"] == 81920
    assert gpus[0]["memory_used_mb"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "#!/bin/sh\necho 'couldn'\\''t communicate with the NVIDIA driver'; exit 9\n",
            "failed with 9: couldn't communicate",
        ),
        ("#!/bin/sh\necho 'GPU 0000:01:00.0 is lost'\n", "an answer that is none"),
        ("#!/bin/sh\nsleep 600\n", "no answer within 0.5 s"),
    ],
)
def test_a_sick_nvidia_smi_is_said(tools: Path, text: str, said: str) -> None:
    program(tools, "nvidia-smi", text)
    gpus, health = probe_gather.read_gpus(0.5 if "sleep" in text else 20)
    assert gpus == []
    assert health["ok"] is False
    assert said in health["why"]


def test_no_devices_is_an_answer(tools: Path) -> None:
    program(tools, "nvidia-smi", "#!/bin/sh\necho 'No devices were found'\n")
    assert probe_gather.read_gpus(20) == ([], {"ok": True, "why": ""})


def test_torch_is_asked_in_the_training_python(tmp_path: Path) -> None:
    lying = program(tmp_path, "python", '#!/bin/sh\necho \'tenant-torch-report:{"version": "9.9", "device": "cpu"}\'\n')
    assert probe_gather.read_torch(str(lying), 20)["version"] == "9.9"
    silent = program(tmp_path, "silent", "#!/bin/sh\necho Segmentation fault; exit 139\n")
    assert probe_gather.read_torch(str(silent), 20)["error"] == "it ended with 139: Segmentation fault"
    for number, report in enumerate(("[1]", '"x"', "[" * 200_000, '{"took_s": 1}', "{")):
        (tmp_path / "report").write_text(f"tenant-torch-report:{report}\n")
        odd = program(tmp_path, f"odd{number}", f"#!/bin/sh\ncat {tmp_path}/report; exit 3\n")
        assert "it ended with 3" in probe_gather.read_torch(str(odd), 20)["error"]
    slow = program(tmp_path, "slow", "#!/bin/sh\nsleep 600\n")
    assert probe_gather.read_torch(str(slow), 0.5)["error"] == "no answer within 0.5 s"
    assert probe_gather.read_torch("", 1)["error"] == "no training Python is named"


def test_torch_without_torch(tmp_path: Path) -> None:
    bare = program(tmp_path, "bare", f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    assert probe_gather.read_torch(str(bare), 60)["error"] == "torch is not installed"


def test_a_folder_to_be_is_measured_at_its_parent(tmp_path: Path) -> None:
    (mount,) = probe_gather.read_mounts({"data": str(tmp_path / "not" / "yet"), "hf": ""})
    assert mount["exists"] is False
    assert mount["free_bytes"] > 0
    assert mount["mount_point"].startswith("/")


def cgroup(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_cgroup_2_takes_the_tightest_limit_on_the_way_up(tmp_path: Path) -> None:
    cgroup(
        tmp_path,
        {
            "a/b/memory.max": "max\n",
            "a/b/memory.current": "1000\n",
            "a/b/memory.events": "low 0\noom 3\noom_kill 2\n",
            "a/b/cpu.max": "max 100000\n",
            "a/memory.max": "8589934592\n",
            "a/cpu.max": "50000 100000\n",
            "own": "0::/a/b\n",
        },
    )
    found = probe_gather.read_cgroup(str(tmp_path), str(tmp_path / "own"))
    assert found == {"memory_max": 8589934592, "memory_used": 1000, "cpus": 0.5, "oom_kill": 2}


def test_cgroup_1(tmp_path: Path) -> None:
    cgroup(
        tmp_path,
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/box/memory.limit_in_bytes": "4294967296\n",
            "memory/box/memory.usage_in_bytes": "77\n",
            "memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            "cpu/box/cpu.cfs_quota_us": "25000\n",
            "cpu/box/cpu.cfs_period_us": "100000\n",
            "own": "5:cpu,cpuacct:/box\n4:memory:/box\n",
        },
    )
    found = probe_gather.read_cgroup(str(tmp_path), str(tmp_path / "own"))
    assert found == {"memory_max": 4294967296, "memory_used": 77, "cpus": 0.25, "oom_kill": 1}


def test_cgroup_without_limits(tmp_path: Path) -> None:
    found = probe_gather.read_cgroup(str(tmp_path), str(tmp_path / "none"))
    assert found["memory_max"] is None
    assert found["oom_kill"] is None
    assert found["cpus"] >= 1


def test_a_supervisor_is_seen(tmp_path: Path) -> None:
    assert probe_gather.read_supervisor(str(tmp_path)) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "supervisor-0123456789ab.pyz").touch()
    records.write_record(str(tmp_path / "index.json"), "index", {"runs": [{"run_id": "r1"}]})
    (tmp_path / "seal.json").write_text("half-writ", encoding="utf-8")
    found = probe_gather.read_supervisor(str(tmp_path))
    assert found is not None
    assert found["runs"] == ["r1"]
    assert found["sealed"] is False
    assert found["pids"] == []


def test_the_rest_is_looked_at_while_torch_starts_but_not_the_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that torch holds is not somebody else's; and a quota that takes long to count does not come after it."""
    order: list[str] = []
    counted = threading.Event()

    def cards(timeout_s: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        order.append("cards")
        return [], {"ok": False, "why": ""}

    def torch(python: str, timeout_s: float) -> dict[str, Any]:
        order.append("torch")
        assert counted.wait(60), "the disk waits for torch"
        return {"version": "2.13.0"}

    def durable(*_words: Any, **_more: Any) -> dict[str, Any]:
        counted.set()
        return {"kind": "pull"}

    monkeypatch.setattr(probe_gather, "read_gpus", cards)
    monkeypatch.setattr(probe_gather, "read_torch", torch)
    monkeypatch.setattr(probe_gather, "check_durable", durable)
    found = probe_gather.gather(sys.executable, str(tmp_path), "pull", "", "", {"nvidia": 5, "torch": 60}, True)
    assert order == ["cards", "torch"]
    assert found["torch"] == {"version": "2.13.0"}


@pytest.mark.parametrize("version", PYTHONS)
def test_it_runs_on_every_python_of_a_box(version: str, tmp_path: Path) -> None:
    code = (
        f"import sys, json; sys.path.insert(0, {str(COLLECTIONS)!r})\n"
        "from ansible_collections.tenant.gpu.plugins.module_utils import probe_gather, preflight_script, "
        "profile_rules, danger_clocks, young_daly, host_keys, provider_list, box_endpoint, probe_report\n"
        "from ansible_collections.tenant.gpu.plugins.module_utils.box import cell_split\n"
        f"found = probe_gather.gather(sys.executable, {str(tmp_path)!r}, 'pull', '', '', "
        "{'nvidia': 5, 'torch': 60}, True)\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([PYTHONS[version], "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert '"arch"' in done.stdout
