# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The markets that this version rents on, by the name of their driver (``platform_driver``).

The inventory names an account by ``<driver>_api_url`` and ``<driver>_api_key_file`` (or ``<driver>_api_key``), on AWS
by ``aws_spot_region`` and ``aws_spot_profile``.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from .aws_spot.actions import SpotAccount
from .failures import TenantFailure
from .lambda_cloud.actions import VmAccount
from .paperspace.actions import MachineAccount
from .rental_account import RentalAccount
from .rest_client import RestClient
from .runpod.actions import PodAccount
from .vast.actions import Account

MARKETS: Mapping[str, type[RentalAccount[Any]]] = {
    one.PLATFORM: one for one in (Account, PodAccount, VmAccount, MachineAccount, SpotAccount)
}


def client_of(driver: str, value: Callable[[str], Any], **settings: Any) -> RestClient[Any]:
    """The client of the account that a box's variables name. TenantFailure when there is no usable key.

    :param value: a variable of the box by its name; nothing where it is not set.
    :param settings: of the client.
    """
    return MARKETS[driver].CLIENT.from_variables(driver, value, **settings)


def check_driver(driver: str, box: str) -> None:
    """TenantFailure for a driver that is neither one of ours nor none."""
    if driver and driver not in MARKETS:
        raise TenantFailure(
            "config",
            f"platform_driver {driver!r} is not one that this version has",
            box=box,
            safe="nothing was connected to or rented",
            fix=f"use {', '.join(sorted(MARKETS))}, or none ('')",
        )
