# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An instance as the market's REST API shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .billing import MOST_DISCOUNT
from .dialects import Dialect
from .engines.base import LOOPBACK
from .instances import Instance, Phase, credit_balance, wire_states
from .offers import Machine, hardware_row, moments, price_row
from .volumes import mounts

# What v1 can filter by: stored columns, none that is computed.
FILTERABLE = frozenset(
    {"id", "label", "actual_status", "intended_status", "cur_state", "gpu_name", "verification", "machine_id",
     "host_id", "image_uuid", "start_date", "geolocation", "template_id", "template_hash_id"}
)  # fmt: skip
DIRECT_RUNTYPES = frozenset({"ssh_direc", "ssh_direct", "jupyter_direc", "jupyter_direct"})


def is_direct(runtype: str) -> bool:
    """Whether port 22 of the box is mapped to a port of the machine."""
    return bool(DIRECT_RUNTYPES.intersection(runtype.split()))


def no_ports(dialect: Dialect) -> dict[str, Any] | None:
    return {} if dialect.ports == "empty" else None


def offers_ssh(runtype: str) -> bool:
    return runtype != "args"


def stored_row(instance: Instance, machine: Machine, dialect: Dialect) -> dict[str, Any]:
    """The columns of :data:`FILTERABLE` and no others, as :func:`instance_row` shows them.

    They change only when the instance does, so that a list can be filtered and ordered without building its rows.
    """
    states = wire_states(instance, dialect)
    return {
        "id": instance.id,
        "label": instance.label,
        "actual_status": states.actual,
        "intended_status": states.intended,
        "cur_state": states.current,
        "gpu_name": machine.model.name,
        "verification": machine.verification,
        "machine_id": machine.machine_id,
        "host_id": machine.host_id,
        "image_uuid": instance.image,
        "start_date": instance.created_at,
        "geolocation": machine.geolocation,
        "template_id": instance.template.get("template_id"),
        "template_hash_id": instance.template.get("template_hash_id"),
    }


MOVING = frozenset({"end_date", "duration", "uptime_mins", "credit_balance"})


def moving_columns(instance: Instance, machine: Machine, now: float) -> dict[str, Any]:
    """The columns of :data:`MOVING`: they change with the clock alone."""
    _started, ends = moments(machine, now)
    if instance.ends_at is not None:
        ends = instance.ends_at
    return {
        "end_date": ends,
        "duration": ends - now,
        "uptime_mins": None if instance.running_since is None else (now - instance.running_since) / 60,
        "credit_balance": credit_balance(instance, now) if instance.deposits else None,
    }


def _mapped(instance: Instance, direct: bool) -> dict[str, Any]:
    ports = {**({"22/tcp": instance.ports[0]} if direct else {}), **instance.mapped}
    anywhere = "0.0.0.0"  # noqa: S104 - as the market writes it
    return {name: [{"HostIp": anywhere, "HostPort": str(port)}] for name, port in ports.items()}


def instance_row(instance: Instance, machine: Machine, now: float, min_bid: float, dialect: Dialect) -> dict[str, Any]:
    """:param min_bid: the market's price for the machine now."""
    row = hardware_row(machine, now)
    # A contract keeps the price of its disk, whatever the machine's is now.
    row.update(price_row(replace(machine, storage_cost=instance.storage_cost), instance.base_price, instance.disk_gb))
    if instance.is_bid and dialect.bid_base == "machine":
        row["dph_base"] = machine.price
    row.update(_state_columns(instance, dialect))
    row.update(_address_columns(instance, machine, dialect))
    row.update(_use_columns(instance, machine))
    row.update(
        {
            "is_bid": instance.is_bid,
            "min_bid": round(min_bid, 6),
            "start_date": instance.created_at,
            **moving_columns(instance, machine, now),
        }
    )
    row.update(_order_columns(instance))
    row.update(_discount_columns(instance, row["dph_total"]))
    row.update({"client_run_time": 1.0, "host_run_time": machine.days * 86400})
    return row


def _state_columns(instance: Instance, dialect: Dialect) -> dict[str, Any]:
    states = wire_states(instance, dialect)
    return {
        "id": instance.id,
        "actual_status": states.actual,
        "intended_status": states.intended,
        "cur_state": states.current,
        "next_state": states.next,
        "status_msg": instance.status_msg,
        "label": instance.label,
    }


def _address_columns(instance: Instance, machine: Machine, dialect: Dialect) -> dict[str, Any]:
    direct = is_direct(instance.runtype)
    mapped = _mapped(instance, direct) if instance.phase is Phase.RUNNING else {}
    return {
        "ssh_host": LOOPBACK if offers_ssh(instance.runtype) else None,
        "ssh_idx": "1",
        # Clients add one for a jupyter box; its sshd answers on both ports.
        "ssh_port": instance.ports[0] if offers_ssh(instance.runtype) else None,
        "machine_dir_ssh_port": instance.ports[0],
        "public_ipaddr": LOOPBACK,
        "local_ipaddrs": f"{LOOPBACK} \n",
        "ports": mapped or no_ports(dialect),
        "direct_port_count": machine.direct_ports if direct else -1,
        "direct_port_start": instance.ports[0] if direct else -1,
        "direct_port_end": instance.ports[-1] if direct else -1,
        "bundle_id": instance.offer_id - 1_000_000,
        "ask_contract_id": instance.offer_id,
    }


def _use_columns(instance: Instance, machine: Machine) -> dict[str, Any]:
    running = instance.phase is Phase.RUNNING
    return {
        "gpu_util": 0.0 if running else None,
        "gpu_temp": 34.0 if running else None,
        "cpu_util": 0.0,
        "mem_limit": machine.cpu_ram / 1000,
        "mem_usage": 0.1 if running else 0.0,
        "vmem_usage": 0.0,
        "disk_space": instance.disk_gb,
        "disk_usage": -1.0,
        "disk_util": -1.0,
    }


def _order_columns(instance: Instance) -> dict[str, Any]:
    """What it was rented with."""
    return {
        "image_uuid": instance.image,
        "image_args": list(instance.args),
        "image_runtype": instance.runtype,
        "onstart": instance.onstart,
        "extra_env": [[name, value] for name, value in instance.env.items()],
        "template_id": instance.template.get("template_id"),
        "template_hash_id": instance.template.get("template_hash_id"),
        "template_name": instance.template.get("template_name"),
        "jupyter_token": None,
        "volume_info": [{"id": number, "mount_path": path} for number, path in mounts(instance.env).items()],
        "rentable": False,
    }


def _discount_columns(instance: Instance, dph_total: float) -> dict[str, Any]:
    return {
        "credit_discount": instance.discount if instance.deposits else None,
        "credit_discount_max": 0.0 if instance.is_bid else MOST_DISCOUNT,
        "discount_rate": instance.discount,
        "discounted_hourly": instance.base_price * instance.discount,
        "discounted_dph_total": dph_total - instance.base_price * instance.discount,
    }
