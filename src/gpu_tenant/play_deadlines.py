# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How long a playbook may take before it is killed: as long as the roles in it may wait, and some time around them."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_tenant.hosts import BoxHost

# The waits of the roles, by their variables and defaults, in seconds.
WAITS = {"harvest": ("harvest_deadline_s", 21600.0), "provision": ("provision_wait_s", 900.0)}
AROUND_S = 600.0
# Bringing a box up fetches inputs as well, which have no wait of their own.
OTHER_S = 7200.0
# What renting waits for beside that where a market often has nothing to rent, by the driver.
CAPACITY_WAITS = {"lambda": ("provision_capacity_wait_s", 1800.0), "aws_spot": ("provision_spot_wait_s", 120.0)}
RENTING = ("provision", "train", "site")


def allowance_s(playbook: str, host: BoxHost) -> float:
    """Seconds for a playbook on one box; ``OTHER_S`` for one without a wait of its own."""
    if playbook not in WAITS:
        return step_s(playbook, host)
    return _told_s(host, *WAITS[playbook]) + AROUND_S + _capacity_s(playbook, host)


def step_s(playbook: str, host: BoxHost) -> float:
    """Seconds for a playbook as a step of a run."""
    return OTHER_S + _capacity_s(playbook, host)


def _capacity_s(playbook: str, host: BoxHost) -> float:
    wait = CAPACITY_WAITS.get(host.text("platform_driver"))
    return _told_s(host, *wait) if wait is not None and playbook in RENTING else 0.0


def _told_s(host: BoxHost, variable: str, default: float) -> float:
    try:
        return float(host.text(variable, str(default)))
    except ValueError:
        # The role refuses it, and says so.
        return default


def for_all_s(playbook: str, hosts: Sequence[BoxHost]) -> float:
    """Seconds for a playbook on several boxes, which with one fork take their turns."""
    return sum(allowance_s(playbook, host) for host in hosts)
