# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What one box shows before its group starts: what is deployed, what would run it, and its way to the others.

Seen from inside the box, read only. Whether the boxes fit together is decided on the controller.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from typing import Any, Mapping, Sequence

from .box import cgroup, gates, gpu_gate, judge, records, shim, survey
from .box.bounded import run_bounded
from .box.layout import Layout
from .box.names import UnsafeName, inside

ENVIRONMENT_WITHIN_S = 180.0
_SIOCGIFADDR = 0x8915
_MARK = "tenant-environment:"
_ENVIRONMENT = r"""
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version(), "torch": "", "cuda": "", "nccl": "", "problem": ""}
names = ((one.metadata["Name"], one.version) for one in importlib.metadata.distributions())
found["packages"] = {str(name).lower().replace("_", "-"): str(version) for name, version in names if name}
try:
    import torch
    found["torch"], found["cuda"] = str(torch.__version__), str(torch.version.cuda or "")
    if torch.version.cuda and torch.distributed.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
except Exception as error:
    found["problem"] = "torch cannot be used: %s: %s" % (type(error).__name__, str(error)[:200])
print("MARK" + json.dumps(found))
""".replace("MARK", _MARK)


def look(
    tenant_root: str, run_id: str, address: str, interface: str, code_files: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything about this box that decides whether it may train with the others.

    :param address: this box's own, as the others are to reach it. :param interface: the one that the run spec names.
    :param code_files: path and SHA-256 of what was deployed.
    """
    layout = Layout(tenant_root)
    seen = survey.survey(layout)
    run = seen.runs.get(run_id)
    carrying, problem = read_network(address, interface)
    found: dict[str, Any] = {
        "spec_sha256": run["spec_sha256"] if run else "",
        "state": seen.state_of(run_id) if run else "absent",
        "live": bool(seen.live(run_id)) if run else False,
        "launch": seen.launches.get(run_id),
        "refusals": refusals(layout, seen, run) if run else [],
        "code_problem": code_problem(layout, run, code_files) if run else "",
        "interface": carrying,
        "network_problem": problem,
        "environment": {},
        "environment_problem": "",
    }
    if run:
        found["environment"], found["environment_problem"] = read_environment(run)
    return found


def refusals(layout: Layout, seen: survey.Survey, run: dict[str, Any]) -> list[str]:
    """Why this box would not start a cell of the run."""
    found = []
    if seen.orders.sealed:
        found.append("it is sealed: its results were promised to be final")
    found += gates.refusals(layout.root, run)
    # What lives holds its GPUs rightly.
    found += [] if seen.live(run["run_id"]) else gpu_gate.unfit(run)
    others = sorted({cell.run_id for cell in seen.live()} - {run["run_id"]})
    if others:
        found.append(f"it is at work on {', '.join(others)}, and would join the others only after that")
    states = seen.verdicts(run["run_id"])
    failed = next((verdict for verdict in states.values() if verdict.state == judge.FAILED), None)
    last = next((cell.attempts[-1] for cell in seen.cells if cell.run_id == run["run_id"] and cell.attempts), None)
    if failed is not None and last is not None and not judge.heals_by_itself(last):
        found.append(f"its cell failed and is not tried again by itself (train_retry_failed): {failed.why}")
    return found


def code_problem(layout: Layout, run: dict[str, Any], code_files: Sequence[Mapping[str, Any]]) -> str:
    """What differs between the code on this disk and what was deployed, file by file; empty when nothing does."""
    folder = layout.path("code", run["code_sha256"])
    for file in code_files:
        try:
            path = inside(folder, str(file["path"]))
            if records.sha256_file(path) != file["sha256"]:
                return f"{file['path']} has other bytes"
        except (OSError, UnsafeName):
            return f"{file['path']} cannot be read"
    return ""


# --- the interpreter that trains ------------------------------------------------------------------------------------


def trainer_environment(run: dict[str, Any], more: Mapping[str, str]) -> dict[str, str]:
    """What the trainer's environment will be, without its secrets."""
    tenant = {"TENANT_RUN_ID": run["run_id"]}
    return dict(shim.trainer_environment(dict(os.environ), run, {}, tenant, cgroup.threads()), **more)


def read_environment(run: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Python, torch and packages as the trainer will see them, and what is wrong with them."""
    outcome = run_bounded([run["python"], "-c", _ENVIRONMENT], ENVIRONMENT_WITHIN_S, trainer_environment(run, {}))
    found = marked(outcome.out, _MARK)
    if found is None:
        last = (outcome.out.strip().splitlines() or ["nothing"])[-1][:200]
        return {}, outcome.why or f"{run['python']} cannot say what it has: {last}"
    return found, str(found.pop("problem"))


def marked(output: str, mark: str) -> dict[str, Any] | None:
    """The JSON object on the last line that begins with ``mark``; None when there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith(mark):
            try:
                value = json.loads(line[len(mark) :])
            except (ValueError, RecursionError):
                return None
            return value if isinstance(value, dict) else None
    return None


# --- the network ----------------------------------------------------------------------------------------------------


def read_network(address: str, wanted: str) -> tuple[str, str]:
    """The interface that carries ``address`` (empty when none is known to), and why the others cannot be met on it."""
    addresses = interface_addresses()
    own, problem = _own_address(address)
    if not problem and wanted and wanted not in addresses:
        problem = f"it has no network interface {wanted!r} with an address (it has {_shown(addresses)})"
    return wanted or next((name for name, at in addresses.items() if at == own), ""), problem


def _own_address(address: str) -> tuple[str, str]:
    """``address`` as a number, if a socket can be bound to it: what is behind a NAT has an address of somebody else."""
    try:
        family, _kind, _proto, _name, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(place)
    except OSError as error:
        return "", f"{address} is not an address of this box itself ({error.strerror or error}): is it behind a NAT?"
    return str(place[0]), ""


def interface_addresses() -> dict[str, str]:
    """Name and first IPv4 address of each network interface that has one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _index, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def _shown(addresses: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {address}" for name, address in sorted(addresses.items())) or "none"
