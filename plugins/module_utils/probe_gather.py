# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a box is, seen from inside it: read only, bounded in time, standard library only.

Host tools describe the host and not the container, so memory and CPUs come from the cgroup. A broken driver makes
nvidia-smi hang in the kernel, where not even SIGKILL ends it; so nothing here waits for a child without a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Mapping

from .box import gpu, records
from .box.bounded import run_bounded, search_path
from .box.mounts import mount_of, nearest
from .durable_probe import check_durable

TOOLS = ("rsync", "tmux", "git", "curl", "sftp-server")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only measured; data loaders need it large
_MAX_PROC_FILE = 256 * 1024
_MARK = "tenant-torch-report:"

# Without looking for garbage in what an import makes and keeps, torch is there in three quarters of the time.
TORCH_CHECK = r"""
import gc, json
gc.disable()
report = {"version": None, "cuda_built": None, "cuda_available": False, "device": None, "device_count": 0,
          "device_name": None, "capability": None, "error": None}
try:
    import torch
    report["version"] = str(torch.__version__)
    report["cuda_built"] = torch.version.cuda
    report["cuda_available"] = bool(torch.cuda.is_available())
    report["device"] = "cuda" if report["cuda_available"] else "cpu"
    if report["cuda_available"]:
        report["device_count"] = torch.cuda.device_count()
        report["device_name"] = torch.cuda.get_device_name(0)
        report["capability"] = list(torch.cuda.get_device_capability(0))
    ones = torch.ones(64, 64, device=report["device"])
    if (ones @ ones).sum().item() != 64.0 ** 3:
        report["error"] = "a matrix product came out wrong"
except ModuleNotFoundError as error:
    report["error"] = "torch is not installed" if error.name == "torch" else "torch lacks " + str(error.name)
except Exception as error:
    report["error"] = (type(error).__name__ + ": " + str(error)).splitlines()[0][:300]
print("MARK" + json.dumps(report))
""".replace("MARK", _MARK)


def look(arguments: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """:func:`gather`, which writes nothing in check mode."""
    return gather(write=not check_mode, **arguments)


def gather(
    python: str,
    data_dir: str,
    durable_kind: str,
    durable_path: str,
    hf_home: str,
    limits: dict[str, float],
    write: bool,
    durable_shared: bool = False,
    durable_cap_gb: float | None = None,
    durable_inode_cap: int | None = None,
) -> dict[str, Any]:
    """Everything about the box that one visit can tell.

    :param python: the Python that trains, absolute path.
    :param limits: seconds for ``nvidia`` and ``torch``; 0 for torch leaves it out.
    :param write: whether a file may be written to prove a durable mount (not in check mode).
    :param durable_shared: whether the profile says that several boxes see the durable mount.
    :param durable_cap_gb: its quota, where one is known.
    :param durable_inode_cap: the most files that it may hold, where that is known.
    """
    # Before torch is started, which holds memory of them itself.
    gpus, nvidia = read_gpus(limits["nvidia"])
    root = os.path.join(data_dir, "gpu-tenant") if data_dir else ""
    places = {"data": data_dir, "durable": durable_path, "hf": hf_home, "root": "/", "shm": SHARED_MEMORY}
    with ThreadPoolExecutor(max_workers=1) as beside:
        # To import torch takes longer than all the rest, which is looked at meanwhile.
        torch = beside.submit(read_torch, python, limits["torch"]) if limits["torch"] > 0 else None
        return {
            "python": {"path": sys.executable, "version": platform.python_version()},
            "training_python": read_python(python),
            "gpus": gpus,
            "nvidia_smi": nvidia,
            "cuda": {"driver_max": read_driver_cuda(limits["nvidia"]) if nvidia["ok"] else None},
            "mounts": read_mounts(places),
            "durable": check_durable(
                durable_kind,
                durable_path,
                data_dir,
                write,
                durable_shared,
                cap_bytes=int((durable_cap_gb or 0) * 1e9),
                inode_cap=durable_inode_cap or 0,
            ),
            "cgroup": read_cgroup(),
            "boot": read_boot(),
            "arch": platform.machine(),
            "tools": {name: shutil.which(name, path=search_path()) or "" for name in TOOLS},
            "supervisor": read_supervisor(root) if root else None,
            "torch": torch.result() if torch is not None else None,
            "box_now": time.time(),
        }


# --- GPU and torch ----------------------------------------------------------------------------------------------


def read_gpus(timeout_s: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The GPUs that nvidia-smi reports, and whether it works at all."""
    reading = gpu.read(timeout_s)
    gpus = [
        {
            "index": card.index,
            "name": card.name,
            "memory_mb": card.memory_mib,
            "memory_used_mb": card.used_mib,
            "driver": card.driver,
            "uuid": card.uuid,
        }
        for card in reading.gpus
    ]
    return gpus, {"ok": not reading.problem, "why": reading.problem}


def read_driver_cuda(timeout_s: float) -> str | None:
    """The highest CUDA that the driver runs, from nvidia-smi's header; None when it does not say."""
    tool = shutil.which("nvidia-smi", path=search_path())
    match = re.search(r"CUDA Version:\s*([0-9]+\.[0-9]+)", run_bounded([tool], timeout_s).out) if tool else None
    return match.group(1) if match else None


def read_python(path: str) -> dict[str, Any]:
    """Version of the Python that trains, or why there is none."""
    if not path:
        return {"path": "", "version": None, "why": "none is named"}
    if not os.access(path, os.X_OK):
        return {"path": path, "version": None, "why": "it does not exist or cannot be executed"}
    outcome = run_bounded([path, "-c", "import platform; print(platform.python_version())"], 20.0)
    version = first_line(outcome.out)
    if outcome.rc != 0 or not re.match(r"[0-9]+\.[0-9]+", version):
        return {"path": path, "version": None, "why": outcome.why or f"it fails: {version}"}
    return {"path": path, "version": version, "why": ""}


def read_torch(python: str, timeout_s: float) -> dict[str, Any]:
    """What torch says of itself after a small product on its device, run by the Python that trains."""
    nothing = {"version": None, "cuda_built": None, "cuda_available": False, "device": None}
    if not python:
        return dict(nothing, error="no training Python is named")
    started = time.monotonic()
    outcome = run_bounded([python, "-c", TORCH_CHECK], timeout_s)
    took = round(time.monotonic() - started, 1)
    if outcome.why:
        return dict(nothing, error=outcome.why, took_s=took)
    for line in reversed(outcome.out.splitlines()):
        if line.startswith(_MARK):
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                report = json.loads(line[len(_MARK) :])
                return dict(nothing, **report, took_s=took)
    return dict(nothing, error=f"it ended with {outcome.rc}: {last_line(outcome.out)}", took_s=took)


# --- disks ------------------------------------------------------------------------------------------------------


def read_mounts(paths: dict[str, str]) -> list[dict[str, Any]]:
    """Bytes and inodes of each place; a folder that is not there yet is measured at its nearest parent."""
    mounts: list[dict[str, Any]] = []
    for role, path in paths.items():
        if not path.startswith("/"):
            continue
        there = nearest(path)
        try:
            stat, device = os.statvfs(there), os.stat(there).st_dev
        except OSError as error:
            mounts.append({"role": role, "path": path, "why": error.strerror or "it cannot be read"})
            continue
        point, kind = mount_of(there)
        mounts.append(
            {
                "role": role,
                "path": path,
                "exists": there == os.path.realpath(path),
                "mount_point": point,
                "fstype": kind,
                "device": device,
                "total_bytes": stat.f_blocks * stat.f_frsize,
                "free_bytes": stat.f_bavail * stat.f_frsize,
                # Some file systems count no inodes and say 0: that is unknown, not none.
                "total_inodes": stat.f_files or None,
                "free_inodes": stat.f_favail if stat.f_files else None,
                "writable": os.access(there, os.W_OK),
            }
        )
    return mounts


# --- cgroup, boot, supervisor -----------------------------------------------------------------------------------


def read_cgroup(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> dict[str, Any]:
    """Memory limit and use (bytes), CPUs (a fraction is possible) and OOM kills; None where nobody limits or says."""
    folders = _cgroup_folders(root, own)
    memory = [_limit(folder, ("memory.max", "memory.limit_in_bytes")) for folder in folders]
    quotas = [_cpu_quota(folder) for folder in folders]
    try:
        allowed: float | None = float(len(os.sched_getaffinity(0)))
    except (AttributeError, OSError):
        allowed = os.cpu_count()
    cpus = [value for value in quotas + [allowed] if value is not None]
    kills = [_count(folder, name, "oom_kill") for folder in folders for name in ("memory.events", "memory.oom_control")]
    return {
        "memory_max": min([value for value in memory if value is not None], default=None),
        "memory_used": _first(folders, ("memory.current", "memory.usage_in_bytes")),
        "cpus": min(cpus, default=None),
        "oom_kill": next((value for value in kills if value is not None), None),
    }


def _cgroup_folders(root: str, own: str) -> list[str]:
    """This process's cgroup folders from the innermost outwards, for version 2 and for version 1."""
    relative = {"": "/", "memory": "/", "cpu": "/"}
    for line in read_text(own).splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                if controller in relative:
                    relative[controller] = parts[2]
    folders = []
    for controller, path in relative.items():
        base = os.path.join(root, controller) if controller else root
        here = os.path.normpath(base + "/" + path)
        while here.startswith(base):
            folders.append(here)
            if here == base:
                break
            here = os.path.dirname(here)
    return [folder for folder in folders if os.path.isdir(folder)]


def _limit(folder: str, names: tuple[str, ...]) -> int | None:
    value = _first([folder], names)
    # Version 1 writes "no limit" as the largest page-aligned number.
    return None if value is None or value >= 1 << 60 else value


def _first(folders: list[str], names: tuple[str, ...]) -> int | None:
    for folder in folders:
        for name in names:
            text = read_text(os.path.join(folder, name)).strip()
            if text.isdigit():
                return int(text)
    return None


def _cpu_quota(folder: str) -> float | None:
    parts = read_text(os.path.join(folder, "cpu.max")).split()
    if not parts:
        parts = [read_text(os.path.join(folder, name)).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]) > 0:
        return int(parts[0]) / int(parts[1])
    return None


def _count(folder: str, name: str, key: str) -> int | None:
    for line in read_text(os.path.join(folder, name)).splitlines():
        parts = line.split()
        if len(parts) == 2 and parts[0] == key and parts[1].isdigit():
            return int(parts[1])
    return None


def read_boot() -> dict[str, Any]:
    """Boot id and pid 1's start time: together they tell a restart of the container from one of the host."""
    stat = read_text("/proc/1/stat").rpartition(")")[2].split()
    return {
        "boot_id": read_text("/proc/sys/kernel/random/boot_id").strip(),
        "pid1_start": int(stat[19]) if len(stat) > 19 and stat[19].isdigit() else None,
    }


def read_supervisor(root: str) -> dict[str, Any] | None:
    """What a supervisor left under ``root`` and whether one lives; None where none ever was."""
    programs = sorted(_names(os.path.join(root, "bin"), "supervisor-"))
    index = _record(os.path.join(root, "index.json"), "index")
    if not programs and index is None:
        return None
    runs = index.get("runs", []) if index else []
    return {
        "root": root,
        "programs": programs,
        "runs": [run.get("run_id") for run in runs if isinstance(run, dict)],
        "sealed": _record(os.path.join(root, "seal.json"), "seal") is not None,
        "desired": (_record(os.path.join(root, "desired.json"), "desired") or {}).get("desired"),
        "pids": _processes(root),
    }


def _record(path: str, name: str) -> dict[str, Any] | None:
    try:
        return records.read_record_or_none(path, name)
    except records.RecordError:
        return None


def _processes(root: str) -> list[int]:
    """Processes whose command line runs a supervisor of this root."""
    found = []
    for name in _names("/proc", ""):
        if name.isdigit():
            words = read_text(f"/proc/{name}/cmdline").split("\0")
            program = any(os.path.basename(word).startswith("supervisor-") for word in words)
            if program and any(word.startswith(root) for word in words):
                found.append(int(name))
    return sorted(found)


# --- small readers ----------------------------------------------------------------------------------------------


def read_text(path: str) -> str:
    """The text of a small file of the kernel or the supervisor; empty when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(_MAX_PROC_FILE)
    except OSError:
        return ""


def _names(folder: str, prefix: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.startswith(prefix)]
    except OSError:
        return []


def first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
