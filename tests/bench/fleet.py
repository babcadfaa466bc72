# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The runner over a fleet: ``status`` of 16 boxes that really run and of 500, ``watch`` over 500.

The commands are the installed ones, in processes of their own. The 500 are on a marketplace without an engine: no ssh
is made to them, so theirs is the time of the provider's list, of the inventory and of the table. The 16 have a real
sshd each, and a real supervisor whose trainer lives.
``FLEET`` and ``FLEET_BOXES`` take other numbers.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import unpack
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_pyz import build, sources
from harness import Figure, Row, compare
from marketplace import let

from gpu_tenant.marketplace.testing import Handle, running_marketplace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

TITLE = "The runner over a fleet"
FLEET = int(os.environ.get("FLEET", "500"))
BOXES = int(os.environ.get("FLEET_BOXES", "16"))
STATUS_S, WATCH_MIB, WATCH_ROUNDS = 5.0, 300.0, 3
SPEC = {"id": "fleet", "command": ["python", "train.py"], "artifacts": [{"glob": "*.pt", "role": "checkpoint"}]}
_PYTHON = "/.box/bin/python3"
_found: list[Figure] = []


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        _found.extend(_of_many(Path(folder) / "many"))
        return _of_real_boxes(Path(folder) / "real")


def figures() -> list[Figure]:
    return _found


def _inventory(folder: Path, market: Handle, names: list[str], **more: Any) -> list[str]:
    """A team's folder; the inventories as options."""
    (folder / "job").mkdir(parents=True)
    (folder / "job/train.py").write_text("print('training')\n")
    (folder / "job/run.yml").write_text(yaml.safe_dump(SPEC))
    (folder / "key").write_text(market.api_key)
    (folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
    variables = {
        "tenant_project": "fleet",
        "tenant_run": str(folder / "job/run.yml"),
        "tenant_state_dir": str(folder / "state"),
        "tenant_results_dir": str(folder / "results"),
        "vast_api_url": market.url,
        "vast_api_key_file": str(folder / "key"),
        **more,
    }
    hosts = {"vast": {"hosts": {name: {} for name in names}, "vars": variables}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return ["-i", str(folder / "profiles.yml"), "-i", str(folder / "hosts.yml")]


def _command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "gpu_tenant", *words, "--workspace", str(folder / "runner"), "--json"]


def _status(folder: Path, sources: list[str], wanted: int) -> None:
    done = subprocess.run(
        _command(folder, "status", "-l", "vast", *sources), capture_output=True, text=True, check=False
    )
    told = sum('"event": "status"' in line for line in done.stdout.splitlines())
    if told != wanted:
        raise RuntimeError(f"{told} of {wanted} boxes: {done.stdout[-500:]}{done.stderr[-500:]}")


# --- many -----------------------------------------------------------------------------------------------------------


def _of_many(folder: Path) -> list[Figure]:
    names = [f"box-{number}" for number in range(FLEET)]
    options = ("--machines", str(FLEET), "--boot-s", "0")
    with running_marketplace(
        "none",
        state_dir=let(folder / "market", [f"gt1/fleet/{name}/g1/{place:016x}" for place, name in enumerate(names)]),
        options=options,
    ) as market:
        # Parked: they are looked at, and nothing is begun.
        sources = _inventory(folder / "team", market, names, tenant_state="parked")
        seconds = []
        for _round in range(3):
            begun = time.perf_counter()
            _status(folder / "team", sources, FLEET)
            seconds.append(time.perf_counter() - begun)
        return [
            Figure(f"status of {FLEET} boxes, the API's paging included", statistics.median(seconds), "s", STATUS_S),
            Figure(
                f"watch over {FLEET} boxes: memory at its most", _memory(folder / "team", sources), "MiB", WATCH_MIB
            ),
        ]


def _memory(folder: Path, sources: list[str]) -> float:
    """MiB that a watch holds at its most while it makes a few rounds."""
    metrics = folder / "watch.prom"
    words = _command(folder, "watch", "-l", "vast", "--poll-s", "0.1", "--metrics-file", str(metrics), *sources)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            rounds, last = 0, 0.0
            while rounds < WATCH_ROUNDS:
                if process.poll() is not None:
                    raise RuntimeError(f"the watch ended with {process.returncode}")
                written = metrics.stat().st_mtime if metrics.exists() else 0.0
                rounds, last = rounds + (written > last), written
                time.sleep(0.05)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        finally:
            process.kill()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return float(peak.split()[1]) / 1024


# --- real boxes -----------------------------------------------------------------------------------------------------


def _of_real_boxes(folder: Path) -> list[Row]:
    from marketplace_tools import Tenant

    folder.mkdir()
    names = [f"box-{number}" for number in range(BOXES)]
    options = ("--machines", str(max(BOXES, 40)))
    with running_marketplace("process", state_dir=folder / "market", options=options) as market:
        tenant = Tenant(market, folder)
        tenant.register_key()
        offers = iter(tenant.offers())
        numbers = [
            tenant.rent(next(offers), label=f"gt1/fleet/{name}/g1/{index:016x}") for index, name in enumerate(names)
        ]
        key = {"ansible_ssh_private_key_file": str(tenant.key), "platform_python": _PYTHON}
        sources = _inventory(folder / "team", market, names, **key)
        for name, number in zip(names, numbers, strict=True):
            _make_known(folder / "team", market, tenant, name, number)
            _train(market, tenant, name, number)

        def raw() -> None:
            with ThreadPoolExecutor(BOXES) as pool:
                for done in pool.map(lambda number: tenant.ssh(number, "true"), numbers):
                    if done.returncode:
                        raise RuntimeError(done.stderr)

        changes = iter(range(1000))

        def change_the_inventory() -> None:
            (folder / "team/group_vars").mkdir(exist_ok=True)
            (folder / "team/group_vars/all.yml").write_text(f"comment: {next(changes)}\n")

        def look() -> None:
            _status(folder / "team", sources, BOXES)

        name = f"status of {BOXES} boxes whose runs are at work, to one parallel `ssh box true`"
        return [
            compare(name, look, raw, 1.5, rounds=3),
            compare(f"{name}, after a change of the inventory", look, raw, rounds=3, before=change_the_inventory),
        ]


def _make_known(team: Path, market: Handle, tenant: Any, name: str, number: int) -> None:
    """The host key pinned and a supervisor on the box, as provision and deploy leave them."""
    keyscan = ["ssh-keyscan", "-t", "ed25519", "-p", str(tenant.port(number)), "127.0.0.1"]
    shown = subprocess.run(keyscan, capture_output=True, text=True, check=True).stdout.split()
    known = team / "state/known_hosts" / name
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(f"{name}.g1 {' '.join(shown[-2:])}\n")
    bin_folder = market.state_dir / "boxes" / str(number) / "disk/workspace/gpu-tenant/bin"
    bin_folder.mkdir(parents=True)
    program = bin_folder / "supervisor-bench.pyz"
    program.write_bytes(build()[0])
    # As the first registered run leaves it: unpacked, so that the box can keep its bytecode.
    folder = re.search(r"unpacked-[0-9a-f]{16}", sources()["__main__.py"].decode())
    assert folder is not None
    unpack.unpack(str(program), str(bin_folder / folder[0]))


# A step every other second, as far as a look is concerned.
_TRAINER = 'i=0; while sleep 2; do i=$((i + 1)); echo "{\\"step\\": $i, \\"steps\\": 100000}" >>"$TENANT_METRICS"; done'


def _train(market: Handle, tenant: Any, name: str, number: int) -> None:
    """A run at work on the box, and its supervisor's answer there."""
    run = {
        "project": "fleet",
        "box": name,
        "generation": 1,
        "provider_id": str(number),
        "run_id": "fleet",
        "spec_sha256": "a" * 64,
        "code_sha256": "b" * 64,
        "python": _PYTHON,
        "command": ["sh", "-c", _TRAINER],
        "workdir": "/workspace",
        "env": {},
        "env_file": "",
        "cells": [{"id": "c1", "args": [], "seed": 5}],
        "artifacts": [],
        "checkpoint": {},
        "retries": {"max": 1},
        "durable": {"kind": "none", "path": ""},
        "limits": {"min_free_bytes": 0, "min_free_inodes": 0},
    }
    root = "/workspace/gpu-tenant"
    program = f"{_PYTHON} -I {root}/bin/supervisor-bench.pyz --root {root}"
    tenant.run(number, f"{program} register --run-file -", stdin=json.dumps(run))
    tenant.run(number, f"{program} start")
    from marketplace_tools import wait_until

    wait_until((market.state_dir / "boxes" / str(number) / "disk/workspace/gpu-tenant/answer").exists)
