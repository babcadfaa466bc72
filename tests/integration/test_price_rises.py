# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Raised prices as the official client, unmodified, lists and answers them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from marketplace_tools import DEADLINE_S, Tenant

from gpu_tenant.marketplace.testing import Handle, running_marketplace

VASTAI = Path(sys.executable).with_name("vastai")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not VASTAI.exists(), reason="the official client is not installed beside this Python"),
]


def vastai(market: Handle, home: Path, *words: str) -> str:
    places = {f"XDG_{kind}_HOME": str(home) for kind in ("CONFIG", "CACHE", "STATE", "DATA")}
    done = subprocess.run(
        [str(VASTAI), *words],
        env={**os.environ, **places, **market.environment, "HOME": str(home), "VASTAI_NO_UPDATE_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_official_client_lists_accepts_and_rejects(tmp_path: Path) -> None:
    with running_marketplace("none") as market:
        tenant = Tenant(market, tmp_path)
        boxes = [tenant.rent(offer, price=None) for offer in tenant.offers(type="on-demand")[:2]]
        paid = {}
        for number in boxes:
            row = market.row(number)
            assert row is not None
            paid[number] = row["dph_base"]
            raised = {"instance": number, "compute_per_hour": row["dph_base"] * 2, "ends_in_s": 86400}
            market.request("POST", "/control/price_rise", raised)

        listed = json.loads(vastai(market, tmp_path, "show", "pending-price-increases", "--raw"))
        rows = {row["contract_id"]: row for row in listed["pending_price_increases"]}
        assert set(rows) == set(boxes)
        for number, row in rows.items():
            assert row["new_gpu_costpersec"] == pytest.approx(2 * row["old_gpu_costpersec"])
            assert row["contract_end_date"] < row["ask_end_date"], number
        vastai(market, tmp_path, "accept", "price-increase", str(boxes[0]), "-y")
        vastai(market, tmp_path, "reject", "price-increase", str(boxes[1]), "-y")
        prices = [(market.row(number) or {})["dph_base"] for number in boxes]
        assert prices == [pytest.approx(paid[boxes[0]] * 2), pytest.approx(paid[boxes[1]])]
        assert market.request("GET", "/api/v0/instances/pending-price-increases/")["count"] == 0


def test_the_official_client_pays_ahead_and_sees_the_deposit(tmp_path: Path) -> None:
    with running_marketplace("none", options=("--credit", "1000")) as market:
        tenant = Tenant(market, tmp_path)
        box = tenant.rent(tenant.offers(type="on-demand")[0], price=None)
        hourly = (market.row(box) or {})["dph_base"]
        said = vastai(market, tmp_path, "prepay", "instance", str(box), f"{0.8 * 720 * hourly:.4f}")
        assert "prepaid for 1.0 months" in said
        assert "discount of 20.0%" in said
        deposit = json.loads(vastai(market, tmp_path, "show", "deposit", str(box)))
        assert deposit["discount_months"] == pytest.approx(1.0, rel=0.01)
        assert deposit["refundable_deposit"] == pytest.approx(0.8 * 720 * hourly, rel=0.01)
        words = ("show", "invoices-v1", "--invoices", "--invoice-type", "reserved", "--raw")
        listed = json.loads(vastai(market, tmp_path, *words))
        assert [row["source"] for row in listed["results"]] == ["instance_prepay"]
