# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``make live``: rent the cheapest box of vast.ai that the budget allows, look at it over ssh, give it back.

It costs cents. ``LIVE_BUDGET_USD`` is the consent to spend that much in all, and ``VAST_API_KEY`` whose money it is;
without both nothing is asked of anybody. ``VAST_URL`` takes another market, ``LIVE_SSH_USER`` another login,
``LIVE_WAIT_S`` another patience and ``LIVE_STATE_DIR`` another place for what is known of the box. What was rented is
destroyed however the rest ends; what a killed run left is destroyed by the next one, before it rents.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "collections")]

from ansible_collections.tenant.gpu.plugins.module_utils import host_keys  # noqa: E402 - found by the line above
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import (  # noqa: E402
    ABSENT,
    STARTED,
    Desire,
    converge,
)
from ansible_collections.tenant.gpu.plugins.module_utils.vast.keys import ensure_ssh_key  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.logs import Wish, read_log  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import search  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import ON_DEMAND, Constraints  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Work  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order  # noqa: E402
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import charges_by_box  # noqa: E402

PROJECT, BOX, IMAGE, DISK_GB = "live", "live", "ubuntu:24.04", 10.0
# The most that the whole of it may take, and what an image and the market's ssh server download.
MOST_HOURS, DOWNLOAD_GB = 0.5, 1.0
WORK = Work(hours=MOST_HOURS, download_gb=DOWNLOAD_GB, upload_gb=0.0)
ONSTART = f"""#!/bin/sh
touch ~/.no_auto_tmux
echo '{host_keys.LOG_BEGINS}'
cat "${{SSH_HOST_KEYS-/etc/ssh}}"/ssh_host_*_key.pub 2>/dev/null
echo '{host_keys.LOG_ENDS}'
"""
LOOK = "nvidia-smi --query-gpu=name,memory.total --format=csv,noheader && df -h / | tail -n 1"


@dataclass(frozen=True)
class Settings:
    budget: float
    key: str
    url: str
    user: str
    wait_s: float
    state_dir: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """TenantFailure without a budget or a key."""
        try:
            budget = float(environment.get("LIVE_BUDGET_USD", ""))
            wait_s = float(environment.get("LIVE_WAIT_S", "600"))
        except ValueError:
            raise _refusal("LIVE_BUDGET_USD is not set to a number", "set it to the most that may be spent") from None
        if not 0 < budget < float("inf"):
            raise _refusal(f"LIVE_BUDGET_USD is {budget}", "set it to the most that may be spent, such as 0.20")
        key = environment.get("VAST_API_KEY", "")
        if not key:
            raise _refusal("VAST_API_KEY is not set", "set it to the key of the account that pays")
        url, user = environment.get("VAST_URL") or VastClient.URL, environment.get("LIVE_SSH_USER") or "root"
        return cls(budget, key, url, user, wait_s, environment.get("LIVE_STATE_DIR") or str(ROOT / ".cache" / "live"))


class Live:
    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._client = VastClient(settings.key, settings.url)
        self._store = StateStore(settings.state_dir)
        self._account = Account(self._client, self._store)
        wanted = Constraints(
            market=ON_DEMAND, min_disk_gb=DISK_GB, direct_ports=1, price_cap=settings.budget / MOST_HOURS
        )
        self._order = Order(PROJECT, BOX, IMAGE, DISK_GB, wanted, onstart=ONSTART, wait_s=settings.wait_s)

    def run(self) -> None:
        """TenantFailure or OSError for what went wrong; nothing that was rented is left either way."""
        self._give_back("left by a run before")
        began = self._client.provider_now() or time.time()
        public_key = self._make_key()
        rented: dict[str, Any] | None = None
        try:
            ensure_ssh_key(self._client, public_key, "present")
            rented = self._rent()
            self._look_at(rented)
        finally:
            self._give_back("rented for this run")
            ensure_ssh_key(self._client, public_key, "absent")
            if rented is not None:
                self._tell_bill(rented, began)

    def _make_key(self) -> str:
        command = [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "gpu-tenant live",
            "-f",
            str(self._folder / "id"),
        ]
        subprocess.run(command, check=True)
        return (self._folder / "id.pub").read_text(encoding="ascii").strip()

    def _rent(self) -> dict[str, Any]:
        found = search(self._client, self._order.wanted, WORK, limit=64)
        affordable = [offer for offer in found if _most(offer) <= self._settings.budget]
        if not affordable:
            raise _refusal(
                f"no offer costs less than ${self._settings.budget:g} for {MOST_HOURS:g} hours and {DOWNLOAD_GB:g} GB",
                f"raise LIVE_BUDGET_USD; the cheapest needs ${min(map(_most, found)):.2f}",
            )
        best = sorted(affordable, key=_most)[:3]
        first = best[0]
        say(
            f"{len(affordable)} offers fit; the cheapest: {first['gpu_name']} at ${first['price_per_hour']:.4f} an hour"
        )
        box: dict[str, Any] = converge(self._account, Desire(STARTED, self._order, best, work=WORK))["instance"]
        say(f"instance {box['provider_id']} runs: {box['gpu_name']}, ${box['price_per_hour']:.4f} an hour")
        return box

    def _look_at(self, box: Mapping[str, Any]) -> None:
        known_hosts = self._folder / "known_hosts"
        log = read_log(self._client, Wish(PROJECT, BOX, str(box["provider_id"])), self._store)["log"]
        keys = host_keys.parse_log(log)
        known_hosts.write_text(host_keys.as_known_hosts("live", keys), encoding="ascii")
        say(f"host keys: {'from the instance log' if keys else 'none in the log, so first contact is trusted'}")
        options = {
            "StrictHostKeyChecking": "yes" if keys else "accept-new", "UserKnownHostsFile": str(known_hosts),
            "HostKeyAlias": "live", "BatchMode": "yes", "IdentitiesOnly": "yes", "ConnectTimeout": "10",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        login = f"{self._settings.user}@{box['host']}"
        command = ["ssh", "-F", "none", "-i", str(self._folder / "id"), *words, "-p", str(box["port"]), login, LOOK]
        deadline = time.monotonic() + self._settings.wait_s
        while True:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode == 0:
                say(f"it says: {' / '.join(done.stdout.strip().splitlines())}")
                return
            if time.monotonic() > deadline:
                raise TenantFailure("unreachable", f"ssh {login}: {done.stderr.strip()[-300:]}", box=BOX)
            time.sleep(2)

    def _give_back(self, why: str) -> None:
        gone = converge(self._account, Desire(ABSENT, self._order))
        if gone["changed"]:
            say(f"destroyed what was {why}; the provider says that it is gone")

    def _tell_bill(self, box: Mapping[str, Any], began: float) -> None:
        until = self._client.provider_now() or time.time()
        billed = charges_by_box(self._client.charges(began, until)).get(str(box["provider_id"]))
        guess = float(box["price_per_hour"]) * (until - began) / 3600
        told = "nothing yet" if billed is None else f"${billed['total']:.6f}"
        say(f"bill: the provider says {told}; by the clock it is at most ${guess:.6f}, traffic aside")


def _most(offer: Mapping[str, Any]) -> float:
    """What the offer can cost, all in all."""
    return float(offer["price_per_hour"]) * MOST_HOURS + float(offer["inet_down_cost"] or 0.0) * DOWNLOAD_GB


def _refusal(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was rented", fix=fix)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    # Whoever ends it wants the box given back all the same.
    signal.signal(signal.SIGTERM, lambda *_ignored: sys.exit(30))
    try:
        settings = Settings.of(os.environ)
        with tempfile.TemporaryDirectory() as folder:
            Live(settings, Path(folder)).run()
    except TenantFailure as failure:
        print(f"not done: {failure}", file=sys.stderr)
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
