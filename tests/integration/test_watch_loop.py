# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``watch`` over the boxes of accelerated_fleet.py: outages, the ladder, kills between two rounds, cron, alerts."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from accelerated_fleet import NAMES, Playbooks, World, at_work, make_world
from ansible_collections.tenant.gpu.plugins.module_utils import accrual
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.vast import volumes

from gpu_tenant import decide, exit_codes, watch
from gpu_tenant.hosts import BoxHost
from gpu_tenant.marketplace.testing import running_marketplace
from gpu_tenant.risk import Risk

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_marketplace("none", state_dir=tmp_path / "market") as market:
        yield make_world(tmp_path, market)


def test_outages_relaunch_nothing_and_one_outbid_box_recovers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = at_work(world)

    down = world.market.inject(kind="server_error", call="any", times=None)
    with monkeypatch.context() as impatient:
        # The outage outlasts any patience; what it lacks is only waited for in real time.
        impatient.setattr(world.boxes.client("box-0"), "retry_for_s", 0.2)
        rows = world.rounds(watching, 10)
    assert {row["verdict"] for row in rows} == {"unreachable"}
    world.market.clear_faults(down)
    world.boxes.ssh_up = False
    rows = world.rounds(watching, 10)
    assert {row["verdict"] for row in rows} == {"unreachable"}
    lying = world.market.inject(kind="empty_list", call="list", times=None)
    world.boxes.ssh_up = True
    rows = world.rounds(watching, 3)
    assert {row["verdict"] for row in rows} == {"running"}, "each box's own item says that the list is wrong"
    world.market.clear_faults(lying)
    assert world.playbooks.played == [], "an outage is waited out"
    assert world.rented() == len(NAMES)

    # The ten raced for the offers: of the one that came last, no higher bid is within the cap.
    cheapest = min(NAMES, key=lambda name: float((world.market.row(world.instance(name)) or {})["dph_total"]))
    world.market.preempt(world.instance(cheapest))
    rows = world.rounds(watching, 2)
    assert [(playbook, box) for playbook, box, _extra in world.playbooks.played] == [("train", cheapest)]
    assert {row["verdict"] for row in rows} == {"running"}
    assert world.rented() == len(NAMES), "its bid was raised; no other box was rented"


def test_a_bid_that_cannot_win_moves_the_run_to_another_machine(world: World) -> None:
    watching = world.watch(["box-0"])
    world.rounds(watching, 3)
    lost = world.instance("box-0")
    world.market.inject(kind="host_offline", call="list", instance=lost)
    world.rounds(watching, 12)
    record = world.store.read_box("fleet", "box-0", 2)
    assert record is not None, world.view.texts[-5:]
    assert record["machine_id"] != (world.store.read_box("fleet", "box-0", 1) or {})["machine_id"]
    assert str(lost) in [str(row["id"]) for row in world.market.state()["instances"]], "nothing is destroyed"


def test_a_box_that_is_gone_is_rented_again_beside_its_volume(world: World) -> None:
    """A volume outlives its box, and one machine has it."""
    (offer,) = world.market.request("POST", "/api/v0/bundles/", {"type": "bid", "limit": 1})["offers"]
    wish = volumes.Wish("fleet", "sets", size_gb=5, price_cap=1.0, machine_id=offer["machine_id"], verified=False)
    made = volumes.converge(world.playbooks.account, wish)["volume"]
    declared = [{"volume": "sets", "path": "/data"}]
    world.playbooks.volumes["box-0"] = declared
    world.hosts[0] = BoxHost("box-0", {**world.hosts[0].variables, "provision_volumes": declared})
    world.rounds(world.watch(["box-0"]), 3)
    lost = world.instance("box-0")
    world.market.request("DELETE", f"/api/v0/instances/{lost}/")
    world.market.wait_for(lost, lambda row: row is None)
    rows = world.rounds(world.watch(["box-0"]), 4)
    assert [row["verdict"] for row in rows] == ["running"], world.view.texts[-5:]
    rungs = [line["rung"] for line in Journal(world.store).lines() if line["verb"] == "recover"]
    assert rungs == [decide.RENT, decide.SAME_MACHINE]
    row = world.market.row(world.instance("box-0")) or {}
    assert (row["machine_id"], row["volume_info"]) == (
        offer["machine_id"],
        [{"id": made["id"], "mount_path": "/data"}],
    )
    assert world.instance("box-0") != lost


def test_a_killed_watch_goes_on_with_what_is_on_disk(world: World) -> None:
    world.rounds(world.watch(["box-0"]), 3)
    world.market.preempt(world.instance("box-0"))
    world.playbooks.refuse["box-0"] = "no_offer"
    for _life in range(3):
        world.clock.now += 3600
        world.rounds(world.watch(["box-0"]), 1)
    kinds = [line["rung"] for line in Journal(world.store).lines() if line["verb"] == "recover"]
    limits = decide.Limits()
    assert kinds[1:] == [decide.RAISE_BID] * limits.raise_bid + [decide.NEXT_OFFER], "the ladder is not begun anew"


def test_gone_needs_two_looks_even_when_each_is_a_process_of_its_own(world: World) -> None:
    world.rounds(world.watch(["box-0"]), 3)
    lost = world.instance("box-0")
    world.market.request("DELETE", f"/api/v0/instances/{lost}/")
    world.market.wait_for(lost, lambda row: row is None)
    world.playbooks.played.clear()
    world.rounds(world.watch(["box-0"]), 1)
    assert world.playbooks.played == [], "it was said once"
    world.rounds(world.watch(["box-0"]), 1)
    assert [playbook for playbook, _box, _extra in world.playbooks.played] == ["train"]
    gone = [line["provider_id"] for line in Journal(world.store).lines() if line["verb"] == accrual.SEEN_GONE]
    assert gone == [str(lost)], "what is gone bills no more"


def test_once_harvests_what_is_done_and_then_leaves_it_alone(world: World) -> None:
    world.rounds(world.watch(["box-0"]), 2)
    world.boxes.runs["box-0.g1"] = "done"
    world.playbooks.played.clear()
    assert world.watch(["box-0"], once=True).run() == 0
    assert world.watch(["box-0"], once=True).run() == 0
    assert [playbook for playbook, _box, _extra in world.playbooks.played] == ["harvest"]


def test_once_tells_a_failure_by_its_exit_code(world: World) -> None:
    world.playbooks.refuse["box-0"] = "no_offer"
    assert world.watch(["box-0"], once=True).run() == 11


def test_checkpoints_come_home_before_more_than_the_rpo_is_at_risk(world: World) -> None:
    host = next(host for host in world.hosts if host.name == "box-0")
    world.hosts = [BoxHost(host.name, {**host.variables, "tenant_rpo_s": "30"})]
    watching = world.watch(["box-0"])
    rows = world.rounds(watching, 2)
    pulls = [extra for playbook, _box, extra in world.playbooks.played if playbook == "harvest"]
    assert [pull["harvest_snapshot"] for pull in pulls] == [True]
    assert rows[0]["at_risk_usd"] == pytest.approx(rows[0]["at_risk_s"] / 3600 * rows[0]["price_per_hour"])
    assert Risk(420, 0.31).text() == "; 7 min since the last durable checkpoint, $0.31"
    told = "; 7 min since the last durable checkpoint (RPO 10 min), $0.31"
    assert Risk(420, 0.31, 600).text() == told


def test_a_stop_waits_for_the_playbooks_and_says_how_boxes_are(world: World) -> None:
    watching = world.watch(["box-0"])
    world.rounds(watching, 3)
    world.playbooks.interrupts.request()
    with pytest.raises(TenantFailure) as caught:
        watching.run()
    assert caught.value.exit_code == 30
    (told,) = watch.left_as(watching._watched)
    assert told[0] == "box-0"
    assert "last seen running at $" in told[1]


def test_an_alert_is_posted_once_and_cleared(world: World, tmp_path: Path) -> None:
    posted: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *unused: object) -> None:
            """Nothing to say."""

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            metrics = tmp_path / "gpu_tenant.prom"
            url = f"http://127.0.0.1:{server.server_port}/"
            watching = world.watch(["box-0"], webhook=url, metrics_file=str(metrics))
            world.rounds(watching, 3)
            world.boxes.ssh_up = False
            world.rounds(watching, 3)
            world.boxes.ssh_up = True
            world.rounds(watching, 1)
        finally:
            server.shutdown()
            thread.join()
    assert [(line["event"], line["box"], line["reason"]) for line in posted] == [
        ("alert", "box-0", "unreachable"),
        ("cleared", "box-0", "unreachable"),
    ]
    assert (
        'gpu_tenant_verdict{project="fleet",box="box-0",run="run-box-0",verdict="running"} 1\n' in metrics.read_text()
    )


def test_cron_hears_once_of_a_clock_and_its_exit_code_tells_as_long_as_it_runs(world: World, tmp_path: Path) -> None:
    clock = {"after": "2h", "effect": "the platform releases it", "starts_at": "always"}
    world.hosts[0] = BoxHost("box-0", {**world.hosts[0].variables, "platform_clocks": [clock]})
    world.rounds(world.watch(["box-0"]), 1)
    metrics = tmp_path / "gpu_tenant.prom"
    codes = [world.watch(["box-0"], once=True, metrics_file=str(metrics)).run() for _start in range(3)]
    assert codes == [exit_codes.of_kind("provider")] * 3
    assert sum("the platform releases it in 1 h" in text for _kind, _box, text in world.view.texts) == 1
    left = (
        'gpu_tenant_clock_left_seconds{project="fleet",box="box-0",run="run-box-0",clock="the platform releases it"} '
    )
    assert left in metrics.read_text()


def test_a_box_whose_harvest_was_cut_off_before_it_was_stopped_is_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No harvest ends within the second in which its box began; here only the clock can say so.
    begun, ticks = datetime.now(UTC), itertools.count()
    monkeypatch.setattr(records, "utc_now", lambda: records.utc_text(begun + timedelta(seconds=next(ticks))))
    world.rounds(world.watch(["box-0"]), 2)
    world.boxes.runs["box-0.g1"] = "done"
    with monkeypatch.context() as cut_off:
        cut_off.setattr(Playbooks, "_stop", lambda self, name: None)
        world.rounds(world.watch(["box-0"]), 1)
    row = world.market.row(world.instance("box-0"))
    assert row is not None
    assert row["actual_status"] == "running"
    world.playbooks.played.clear()
    world.rounds(world.watch(["box-0"]), 3)
    assert [playbook for playbook, _box, _extra in world.playbooks.played] == ["harvest"]
    # A person who starts it again to look at it is left alone.
    world.playbooks.train("box-0")
    world.rounds(world.watch(["box-0"]), 2)
    assert len(world.playbooks.played) == 1
