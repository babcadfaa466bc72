# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The markets that this version rents on, by the name of their driver (``platform_driver``).

The inventory names an account by ``<driver>_api_url`` and ``<driver>_api_key_file`` (or ``<driver>_api_key``).
"""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping

from .failures import TenantFailure
from .lambda_cloud.actions import VmAccount
from .paperspace.actions import MachineAccount
from .rental_account import RentalAccount
from .rental_key import api_key_of
from .rest_client import RestClient
from .runpod.actions import PodAccount
from .vast.actions import Account

MARKETS: Mapping[str, type[RentalAccount[Any]]] = {
    one.PLATFORM: one for one in (Account, PodAccount, VmAccount, MachineAccount)
}


def client_of(driver: str, value: Callable[[str], Any], **settings: Any) -> RestClient[Any]:
    """The client of the account that a box's variables name. TenantFailure when there is no usable key.

    :param value: a variable of the box by its name; nothing where it is not set.
    :param settings: of the client.
    """
    kind = MARKETS[driver].CLIENT
    options = {name: value(f"{driver}_{name}") for name in ("api_key", "api_key_file")}
    url = value(f"{driver}_api_url") or os.environ.get(kind.URL_VARIABLE) or kind.URL
    return kind(api_key_of(options, kind.KEY_VARIABLE, f"{driver}_api_key_file"), str(url), **settings)


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
