# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The marketplace's faults over real sockets, and on boxes that really run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_manifest
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import AmbiguousAnswer
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_pyz import build
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient, VastError
from loopback_sshd import ALIAS, LoopbackBox
from marketplace_tools import DEADLINE_S, Tenant, wait_until

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration

SLOW_S = 300
ORDER = {"client_id": "me", "image": "debian:12", "disk": 10, "price": None, "label": "mine", "runtype": "ssh_direc"}


def write_script(folder: Path, *faults: dict[str, object]) -> tuple[str, ...]:
    path = folder / "faults.yml"
    path.write_text(json.dumps({"seed": 3, "faults": faults}))
    return ("--faults", str(path))


def client_of(market: Handle, **settings: float) -> VastClient:
    return VastClient(market.api_key, market.url, **settings)


def cheapest(client: VastClient) -> int:
    wanted = {"type": "on-demand", "rentable": {"eq": True}, "order": [["dph_total", "asc"]]}
    return int(client.search_offers(wanted)[0]["id"])


def test_a_script_strikes_over_real_sockets(tmp_path: Path) -> None:
    options = write_script(
        tmp_path,
        {"kind": "lost_answer", "call": "create"},
        {"kind": "garbled", "call": "create", "after": 1},
        {"kind": "server_error", "call": "list", "status": 502, "times": 2},
        {"kind": "partial_list", "call": "list", "times": 1, "after": 2},
    )
    with running_marketplace("none", state_dir=tmp_path / "state", options=options) as market:
        client = client_of(market)
        for lost in range(1, 3):
            with pytest.raises(AmbiguousAnswer):
                client.create_instance(cheapest(client), dict(ORDER))
            assert len(client.list_instances()) == lost
        assert [fault["struck"] for fault in market.faults()] == [1, 1, 2, 1]


def test_a_slow_answer_is_given_up_on_and_the_box_is_there(tmp_path: Path) -> None:
    with running_marketplace("none", state_dir=tmp_path) as market:
        market.inject(kind="slow", call="create", seconds=SLOW_S)
        # Only the call that is slow has little patience: a busy machine may take its time over the others.
        patient, hasty = client_of(market), client_of(market, timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(AmbiguousAnswer):
            hasty.create_instance(cheapest(patient), dict(ORDER))
        assert time.monotonic() - began < SLOW_S
        wait_until(lambda: [row["label"] for row in patient.list_instances()] == ["mine"])


def test_the_limiter_is_obeyed_and_a_lost_connection_is_tried_again(tmp_path: Path) -> None:
    with running_marketplace("none", state_dir=tmp_path) as market:
        client = client_of(market)
        number = client.create_instance(cheapest(client), dict(ORDER))
        market.inject(kind="rate_limited", call="destroy", retry_after_s=1)
        market.inject(kind="lost_answer", call="destroy", after=1)
        began = time.monotonic()
        assert client.destroy_instance(number) is False, "the answer to the destroy that did it was lost"
        assert time.monotonic() - began >= 1
        market.inject(kind="rate_limited", call="create", retry_after_s=1)
        with pytest.raises(VastError) as caught:
            client.create_instance(cheapest(client), dict(ORDER))
        assert (caught.value.status, caught.value.retry_after_s) == (429, 1.0)
        market.clear_faults()
        assert market.faults() == []


def test_a_bad_script_is_one_clear_error(tmp_path: Path) -> None:
    options = write_script(tmp_path, {"kind": "slow", "call": "list"})
    words = ["serve", "--port", "0", "--engine", "none", "--state", str(tmp_path / "state"), *options]
    done = subprocess.run(
        [sys.executable, "-m", "gpu_tenant.marketplace", *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 10
    assert "faults.yml" in done.stderr
    assert "faults[0].seconds: is missing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "state").exists()


def scanned(market: Handle, number: int) -> str:
    """The host key that the box shows now."""
    row = market.wait_until_running(number)
    command = ["ssh-keyscan", "-T", "120", "-t", "ed25519", "-p", str(row["ssh_port"]), "127.0.0.1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout.split()[-1]


def test_a_real_box_changes_its_host_key_and_its_port(tmp_path: Path) -> None:
    with running_marketplace("process", state_dir=tmp_path / "state") as market:
        tenant = Tenant(market, tmp_path)
        tenant.register_key()
        box = tenant.rent(tenant.offers()[0])
        key, port = scanned(market, box), tenant.port(box)
        tenant.run(box, "echo kept >file")

        market.inject(kind="host_key_change", call="show", instance=box)
        assert scanned(market, box) != key
        assert tenant.port(box) == port
        renewed = scanned(market, box)

        market.inject(kind="port_change", call="show", instance=box)
        assert scanned(market, box) == renewed
        assert tenant.port(box) != port
        assert tenant.run(box, "cat file") == "kept\n"


def test_the_connections_to_a_real_box_are_cut_and_it_runs_on(tmp_path: Path) -> None:
    with running_marketplace("process", state_dir=tmp_path / "state") as market:
        tenant = Tenant(market, tmp_path)
        tenant.register_key()
        box = tenant.rent(tenant.offers()[0])
        tenant.run(box, "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $! >pid")
        command = ["ssh", *tenant.ssh_options(box), tenant.address, "echo in; sleep 600"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as session:
            assert session.stdout is not None
            assert session.stdout.readline() == "in\n"
            market.inject(kind="ssh_cut", call="user")
            market.request("GET", "/api/v0/users/current")
            assert session.wait(DEADLINE_S) == 255
        assert tenant.run(box, "kill -0 $(cat pid) && echo alive") == "alive\n"


def test_a_real_box_is_gone_while_its_host_is_lost(tmp_path: Path) -> None:
    with running_marketplace("process", state_dir=tmp_path / "state") as market:
        tenant = Tenant(market, tmp_path)
        tenant.register_key()
        box = tenant.rent(tenant.offers()[0])
        tenant.run(box, "echo kept >file")
        market.inject(kind="host_offline", call="show", instance=box)
        row = market.row(box)
        assert row is not None
        assert row["actual_status"] == "offline"
        assert tenant.ssh(box, "true", "-o", "ConnectTimeout=5").returncode == 255
        market.clear_faults()
        market.wait_until_running(box)
        assert tenant.run(box, "cat file") == "kept\n"


@dataclass
class MarketBox(LoopbackBox):
    """A box of the market in place of a loopback one: the same client, the same settings."""

    tenant: Tenant | None = None

    @property
    def key(self) -> Path:
        assert self.tenant is not None
        return self.tenant.key

    def host_variables(self, **overrides: Any) -> dict[str, Any]:
        return super().host_variables(ansible_python_interpreter="/.box/bin/python3", **overrides)


def test_a_pull_over_a_slow_link_takes_its_time_and_still_verifies(tmp_path: Path) -> None:
    rate, size = 512 * 1024, 1_000_000
    with running_marketplace("process", state_dir=tmp_path / "state") as market:
        tenant = Tenant(market, tmp_path)
        tenant.register_key()
        fault = market.inject(kind="slow_link", call="create", kb_per_s=rate // 1024)
        number = tenant.rent(tenant.offers()[0])
        here = tmp_path / "here"
        here.mkdir()
        (here / "model.bin").write_bytes(os.urandom(size))
        # Random bytes, so that no compression makes the way shorter.
        sending = [
            "ssh",
            *tenant.ssh_options(number),
            tenant.address,
            "mkdir /workspace/run && cat >/workspace/run/model.bin",
        ]
        begun = time.monotonic()
        subprocess.run(sending, input=(here / "model.bin").read_bytes(), timeout=DEADLINE_S, check=True)
        assert time.monotonic() - begun >= size / rate

        box = MarketBox(tmp_path, tenant.port(number), market.process, tenant=tenant)
        key = scanned(market, number)
        box.known_hosts.write_text(f"{ALIAS} ssh-ed25519 {key}\n")
        wanted = {
            "direction": "pull", "src": "/workspace/run", "dest": str(tmp_path / "results" / "r"),
            "dest_root": str(tmp_path / "results"), "manifest": folder_manifest.of_folder(here), "reserve_bytes": 0,
        }  # fmt: skip
        begun = time.monotonic()
        pulled = box.ad_hoc("tenant.gpu.checked_sync", wanted)
        assert not pulled.get("failed"), pulled
        assert time.monotonic() - begun >= size / rate
        assert (tmp_path / "results" / "r" / "model.bin").read_bytes() == (here / "model.bin").read_bytes()

        market.clear_faults(fault)
        assert tenant.run(number, "wc -c </workspace/run/model.bin").strip() == str(size), "the same line goes on"


def test_a_cell_on_a_full_disk_is_refused_as_one(tmp_path: Path) -> None:
    with running_marketplace("process", state_dir=tmp_path / "state") as market:
        if not market.engine["isolated"]:
            pytest.skip(f"NOT RUN: {market.engine['isolation']}")
        tenant = Tenant(market, tmp_path)
        tenant.register_key()
        market.inject(kind="disk_full", call="create", free_mb=16)
        number = tenant.rent(tenant.offers()[0])
        full = tenant.ssh(number, "dd if=/dev/zero of=/workspace/file bs=1M count=20")
        assert full.returncode != 0
        assert "No space left on device" in full.stderr
        tenant.run(number, "rm /workspace/file")
        sending = ["ssh", *tenant.ssh_options(number), tenant.address, "cat >/workspace/supervisor.pyz"]
        subprocess.run(sending, input=build()[0], timeout=DEADLINE_S, check=True)
        record = {
            "project": "vision", "box": "b1", "generation": 1, "provider_id": str(number), "run_id": "digits",
            "spec_sha256": "a" * 64, "code_sha256": "b" * 64, "python": "/.box/bin/python3",
            "command": ["python", "-c", "pass"], "workdir": "/workspace", "env": {}, "env_file": "",
            "cells": [{"id": "c1", "args": [], "seed": 5}], "artifacts": [], "checkpoint": {},
            "retries": {"max": 1}, "durable": {"kind": "none", "path": ""}, "grace_s": 20, "limits": {},
        }  # fmt: skip
        supervisor = "/.box/bin/python3 -I /workspace/supervisor.pyz --root /workspace/gpu-tenant"
        tenant.run(number, f"{supervisor} register --run-file -", stdin=json.dumps(record))
        refused = tenant.ssh(number, f"{supervisor} start")
        assert refused.returncode == 13, refused.stdout + refused.stderr
        assert json.loads(refused.stdout)["kind"] == "disk"
