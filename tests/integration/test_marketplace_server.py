# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The marketplace's own life: it ends cleanly, survives being killed, and says what it cannot do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from marketplace_tools import DEADLINE_S, Tenant, wait_until

from gpu_tenant.marketplace.testing import MarketplaceFailed, running_marketplace

pytestmark = pytest.mark.integration


def processes_naming(text: Path) -> list[str]:
    """Command lines of this machine that name a path."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(text) in command and entry.parent.name != str(os.getpid()):
            found.append(command)
    return found


def sleepers(mark: str) -> list[str]:
    return [command for command in processes_naming(Path(mark)) if command.startswith("sleep")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with running_marketplace("process", state_dir=tmp_path / "state") as market:
        tenant = Tenant(market, tmp_path)
        tenant.register_key()
        box = tenant.rent(tenant.offers()[0])
        mark = f"7{os.getpid()}{int(number)}"
        tenant.run(box, f"setsid sleep {mark} >/dev/null 2>&1 </dev/null &")
        wait_until(lambda: len(sleepers(mark)) == 1)
        market.process.send_signal(number)
        assert market.process.wait(DEADLINE_S) == 0
        assert sleepers(mark) == []
        assert processes_naming(tmp_path / "state") == []


def test_a_killed_market_leaves_no_process_and_finds_its_boxes_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_marketplace("process", state_dir=state) as market:
        tenant = Tenant(market, tmp_path)
        tenant.register_key()
        box = tenant.rent(tenant.offers()[0], label="mine")
        port = tenant.port(box)
        tenant.run(box, "echo kept >file")
        market.kill()
        wait_until(lambda: processes_naming(state) == [])
    with running_marketplace("process", state_dir=state) as again:
        row = again.row(box)
        assert row is not None
        assert (row["label"], row["actual_status"], row["cur_state"]) == ("mine", "exited", "stopped")
        back = Tenant(again, tmp_path)
        back.change(box, state="running")
        again.wait_until_running(box)
        assert back.run(box, "cat file") == "kept\n"
        assert back.port(box) == port


def test_a_port_in_use_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["serve", "--port", str(port), "--api-key", "k", "--engine", "none", "--state", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-m", "gpu_tenant.marketplace", *words],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
    assert done.returncode == 10
    assert f"port {port}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_markets_cannot_share_a_state(tmp_path: Path) -> None:
    with (
        running_marketplace("none", state_dir=tmp_path),
        pytest.raises(MarketplaceFailed, match="another marketplace is serving"),
        running_marketplace("none", state_dir=tmp_path),
    ):
        pass


def test_a_fast_market_bills_fast(tmp_path: Path) -> None:
    with running_marketplace("none", speed=3600.0, state_dir=tmp_path) as market:
        tenant = Tenant(market, tmp_path)
        offer = tenant.offers()[0]
        tenant.rent(offer)
        wait_until(lambda: market.bill()["total"] > offer["min_bid"])
