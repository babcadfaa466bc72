# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The released ``vastai`` client, unmodified, against boxes of the process engine.

Its exit status says nothing (an API error exits 0), so every check is on ``--raw`` fields or the market's state.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from marketplace_tools import DEADLINE_S, Tenant, wait_until

from gpu_tenant.marketplace.testing import running_marketplace

VASTAI = Path(sys.executable).with_name("vastai")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not VASTAI.exists(), reason="the official client is not installed beside this Python"),
]


@dataclass(frozen=True)
class OfficialClient:
    tenant: Tenant

    @property
    def environment(self) -> dict[str, str]:
        """With places of its own for everything that the client keeps."""
        home = self.tenant.directory
        places = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "CACHE", "STATE", "DATA")}
        ours = {"HOME": str(home), "VASTAI_NO_UPDATE_CHECK": "1"}
        return {**os.environ, **places, **self.tenant.market.environment, **ours}

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [str(VASTAI), *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return done.stdout

    def raw(self, *words: str) -> Any:
        return json.loads(self(*words, "--raw"))


@pytest.fixture(scope="module")
def vastai(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfficialClient]:
    with running_marketplace("process", speed=60.0) as market:
        yield OfficialClient(Tenant(market, tmp_path_factory.mktemp("client")))


@pytest.fixture(scope="module")
def box(vastai: OfficialClient) -> int:
    """Searched for and rented by the client itself, with a key that the client registered."""
    vastai("create", "ssh-key", vastai.tenant.make_key(), "-y")
    offer = vastai.raw("search", "offers", "gpu_name=RTX_4090 num_gpus=1", "--type", "bid", "-o", "dph")[0]
    made = vastai.raw(
        "create", "instance", str(offer["id"]), "--image", "debian:12", "--disk", "12", "--ssh", "--direct",
        "--bid_price", str(offer["min_bid"]), "--label", "from the client", "--env", "-e GIVEN=yes",
        "--onstart-cmd", "echo said by onstart",
    )  # fmt: skip
    assert made["success"] is True
    number: int = made["new_contract"]
    vastai.tenant.market.wait_until_running(number)
    return number


def phase(vastai: OfficialClient, number: int) -> str | None:
    rows = {one["id"]: one["phase"] for one in vastai.tenant.market.state()["instances"]}
    return rows.get(number)


def test_search_understands_the_query_language(vastai: OfficialClient) -> None:
    found = vastai.raw(
        "search", "offers", "gpu_ram>=20 num_gpus=1 reliability>0.99 cuda_vers>=12.4 direct_port_count>1"
    )
    assert found
    assert all(row["gpu_ram"] >= 20000 and row["num_gpus"] == 1 and row["reliability"] > 0.99 for row in found)
    assert all(row["verification"] == "verified" and row["is_bid"] is False for row in found)
    drivers = vastai.raw("search", "offers", "driver_version>=560.0.0")
    assert drivers
    assert all(row["driver_vers"] >= 560000000 for row in drivers)


def test_search_prints_its_table(vastai: OfficialClient) -> None:
    assert "RTX_4090" in vastai("search", "offers", "gpu_name=RTX_4090")


def test_the_account_and_its_keys(vastai: OfficialClient, box: int) -> None:
    assert vastai.raw("show", "user")["credit"] > 0
    assert [key["public_key"] for key in vastai.raw("show", "ssh-keys")] == [
        vastai.tenant.key.with_suffix(".pub").read_text().strip()
    ]


def test_show_one_and_all(vastai: OfficialClient, box: int) -> None:
    one = vastai.raw("show", "instance", str(box))
    assert (one["id"], one["actual_status"], one["label"]) == (box, "running", "from the client")
    rows = vastai.raw("show", "instances")
    assert [row["id"] for row in rows] == [box]
    assert rows[0]["extra_env"] == {"GIVEN": "yes"}
    assert str(box) in vastai("show", "instances", "-q")
    assert "from" in vastai("show", "instances", "--full")


def test_ssh_url_leads_into_the_box(vastai: OfficialClient, box: int) -> None:
    said = vastai("ssh-url", str(box)).strip()
    assert re.fullmatch(r"ssh://root@127\.0\.0\.1:\d+", said)
    assert int(said.rpartition(":")[2]) == vastai.tenant.port(box)
    assert vastai.tenant.run(box, "echo $GIVEN") == "yes\n"


def test_logs(vastai: OfficialClient, box: int) -> None:
    # It goes on beside the box, which runs already.
    wait_until(lambda: "said by onstart" in vastai("logs", str(box)))
    assert "said by" not in vastai("logs", str(box), "--filter", "no such word")


def test_label(vastai: OfficialClient, box: int) -> None:
    vastai("label", "instance", str(box), "gt1/renamed")
    assert vastai.raw("show", "instance", str(box))["label"] == "gt1/renamed"


def test_stop_and_start(vastai: OfficialClient, box: int) -> None:
    vastai("stop", "instance", str(box))
    assert phase(vastai, box) == "stopped"
    assert vastai.raw("show", "instance", str(box))["intended_status"] == "stopped"
    vastai("start", "instance", str(box))
    vastai.tenant.market.wait_until_running(box)
    assert vastai.tenant.run(box, "echo back") == "back\n"


def test_an_outbid_box_comes_back_when_its_bid_is_raised(vastai: OfficialClient, box: int) -> None:
    price = vastai.tenant.market.preempt(box)["market_price"]
    assert phase(vastai, box) == "outbid"
    vastai("change", "bid", str(box), "--price", str(price + 0.01))
    row = vastai.tenant.market.wait_until_running(box)
    assert row["dph_base"] == pytest.approx(price + 0.01)


def test_reboot(vastai: OfficialClient, box: int) -> None:
    boots = vastai.tenant.market.state()["instances"][0]["boots"]
    vastai("reboot", "instance", str(box))
    vastai.tenant.market.wait_until_running(box)
    assert vastai.tenant.market.state()["instances"][0]["boots"] > boots


def test_charges_are_the_bill(vastai: OfficialClient, box: int) -> None:
    page = vastai.raw("show", "invoices-v1", "--charges")
    charge = next(row for row in page["results"] if row["source"] == f"instance-{box}")
    assert charge["amount"] == pytest.approx(sum(item["amount"] for item in charge["items"]))
    before = charge["amount"]
    billed = next(one for one in vastai.tenant.market.bill()["instances"] if one["id"] == box)
    assert billed["amount"] >= before > 0
    assert "Instance" in vastai("show", "invoices-v1", "--charges", "--no-color")


def test_a_missing_instance_is_null(vastai: OfficialClient) -> None:
    assert vastai.raw("show", "instance", "424242") in (None, {"instances": None})


def test_bulk_verbs_and_destroy(vastai: OfficialClient, box: int) -> None:
    offer = vastai.raw("search", "offers", "gpu_name=RTX_4090 num_gpus=1", "-o", "dph")[0]
    made = vastai.raw("create", "instance", str(offer["id"]), "--image", "debian:12", "--disk", "10", "--ssh")
    other = made["new_contract"]
    vastai.tenant.market.wait_until_running(other)
    vastai("stop", "instances", str(box), str(other))
    assert (phase(vastai, box), phase(vastai, other)) == ("stopped", "stopped")
    vastai("destroy", "instance", str(other), "-y")
    vastai.tenant.market.wait_for(other, lambda row: row is None)
    vastai("destroy", "instances", str(box), "-y")
    vastai.tenant.market.wait_for(box, lambda row: row is None)
    assert vastai.raw("show", "instances") == []
    assert vastai.tenant.market.state()["instances"] == []
