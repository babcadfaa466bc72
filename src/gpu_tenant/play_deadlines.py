# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How long a playbook may take before it is killed: as long as the roles in it may wait, and some time around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_tenant import role_defaults
from gpu_tenant.hosts import BoxHost

# The waits of the roles, by their variables.
WAITS = {"harvest": "harvest_deadline_s", "provision": "provision_wait_s"}
AROUND_S = 600.0
OTHER_S = 7200.0
# What renting waits for beside that where a market often has nothing to rent, by the driver.
CAPACITY_WAITS = {"lambda": "provision_capacity_wait_s", "aws_spot": "provision_spot_wait_s"}
RENTING = ("provision", "train", "site")
# What a deploy waits for beside that where the run has inputs.
INPUTS_WAIT = "deploy_inputs_deadline_s"
DEPLOYING = ("deploy", "train", "site")


def allowance_s(playbook: str, host: BoxHost, spec: Mapping[str, Any] | None = None) -> float:
    """Seconds for a playbook on one box; ``OTHER_S`` for one without a wait of its own.

    :param spec: of the run that it is for.
    """
    if playbook not in WAITS:
        return step_s(playbook, host, spec)
    return _told_s(host, WAITS[playbook]) + AROUND_S + _capacity_s(playbook, host)


def step_s(playbook: str, host: BoxHost, spec: Mapping[str, Any] | None = None) -> float:
    """Seconds for a playbook as a step of a run."""
    inputs_s = _told_s(host, INPUTS_WAIT) if playbook in DEPLOYING and spec and spec.get("inputs") else 0.0
    return OTHER_S + _capacity_s(playbook, host) + inputs_s


def _capacity_s(playbook: str, host: BoxHost) -> float:
    wait = CAPACITY_WAITS.get(host.text("platform_driver"))
    return _told_s(host, wait) if wait is not None and playbook in RENTING else 0.0


def _told_s(host: BoxHost, variable: str) -> float:
    try:
        return float(host.text(variable) or role_defaults.seconds(variable))
    except ValueError:
        # The role refuses it, and says so.
        return role_defaults.seconds(variable)


def for_all_s(playbook: str, hosts: Sequence[BoxHost], spec: Mapping[str, Any] | None = None) -> float:
    """Seconds for a playbook on several boxes, which with one fork take their turns."""
    return sum(allowance_s(playbook, host, spec) for host in hosts)
