# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The markets that this version rents on, by the name of their driver (``platform_driver``).

The inventory names an account by ``<driver>_api_url`` and ``<driver>_api_key_file`` (or ``<driver>_api_key``), on AWS
by ``aws_spot_region`` and ``aws_spot_profile``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, ClassVar, Iterator, Mapping

from .failures import TenantFailure

if TYPE_CHECKING:
    from .rental_account import RentalAccount
    from .rest_client import RestClient


def _vast() -> type[RentalAccount[Any]]:
    from .vast.actions import Account

    return Account


def _runpod() -> type[RentalAccount[Any]]:
    from .runpod.actions import PodAccount

    return PodAccount


def _lambda() -> type[RentalAccount[Any]]:
    from .lambda_cloud.actions import VmAccount

    return VmAccount


def _paperspace() -> type[RentalAccount[Any]]:
    from .paperspace.actions import MachineAccount

    return MachineAccount


def _aws_spot() -> type[RentalAccount[Any]]:
    from .aws_spot.actions import SpotAccount

    return SpotAccount


class _Markets(Mapping[str, "type[RentalAccount[Any]]"]):
    """A market's program is read when it is asked for: most inventories have boxes of one."""

    _OF: ClassVar[Mapping[str, Callable[[], type[RentalAccount[Any]]]]] = {
        "vast": _vast,
        "runpod": _runpod,
        "lambda": _lambda,
        "paperspace": _paperspace,
        "aws_spot": _aws_spot,
    }

    def __getitem__(self, name: str) -> type[RentalAccount[Any]]:
        return self._OF[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._OF

    def __iter__(self) -> Iterator[str]:
        return iter(self._OF)

    def __len__(self) -> int:
        return len(self._OF)


MARKETS: Mapping[str, type[RentalAccount[Any]]] = _Markets()


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
