# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An instance as the market's REST API shows it."""

from __future__ import annotations

from typing import Any

from .engines.base import LOOPBACK
from .instances import Instance, Phase, wire_states
from .offers import Machine, hardware_row, moments, price_row

# What v1 can filter by: stored columns, none that is computed.
FILTERABLE = frozenset(
    {"id", "label", "actual_status", "intended_status", "cur_state", "gpu_name", "verification", "machine_id",
     "host_id", "image_uuid", "start_date", "geolocation", "template_id", "template_hash_id"}
)  # fmt: skip
DIRECT_RUNTYPES = frozenset({"ssh_direc", "ssh_direct", "jupyter_direc", "jupyter_direct"})


def is_direct(runtype: str) -> bool:
    """Whether port 22 of the box is mapped to a port of the machine."""
    return bool(DIRECT_RUNTYPES.intersection(runtype.split()))


def offers_ssh(runtype: str) -> bool:
    return runtype != "args"


def stored_row(instance: Instance, machine: Machine, stopped_as: str) -> dict[str, Any]:
    """The columns of :data:`FILTERABLE` and no others, as :func:`instance_row` shows them.

    They change only when the instance does, so that a list can be filtered and ordered without building its rows.
    """
    states = wire_states(instance, stopped_as)
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
        "template_id": None,
        "template_hash_id": None,
    }


MOVING = frozenset({"end_date", "duration", "uptime_mins"})


def moving_columns(instance: Instance, machine: Machine, now: float) -> dict[str, Any]:
    """The columns of :data:`MOVING`: they change with the clock alone."""
    _started, ends = moments(machine, now)
    return {
        "end_date": ends,
        "duration": ends - now,
        "uptime_mins": None if instance.running_since is None else (now - instance.running_since) / 60,
    }


def instance_row(instance: Instance, machine: Machine, now: float, min_bid: float, stopped_as: str) -> dict[str, Any]:
    """:param min_bid: the market's price for the machine now."""
    states = wire_states(instance, stopped_as)
    running = instance.phase is Phase.RUNNING
    direct = is_direct(instance.runtype)
    row = hardware_row(machine, now)
    row.update(price_row(machine, instance.base_price, instance.disk_gb))
    row.update(
        {
            "id": instance.id,
            "actual_status": states.actual,
            "intended_status": states.intended,
            "cur_state": states.current,
            "next_state": states.next,
            "status_msg": instance.status_msg,
            "label": instance.label,
            "ssh_host": LOOPBACK if offers_ssh(instance.runtype) else None,
            "ssh_idx": "1",
            # Clients add one for a jupyter box; its sshd answers on both ports.
            "ssh_port": instance.ports[0] if offers_ssh(instance.runtype) else None,
            "machine_dir_ssh_port": instance.ports[0],
            "public_ipaddr": LOOPBACK,
            "local_ipaddrs": f"{LOOPBACK} \n",
            "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(instance.ports[0])}]}  # noqa: S104 - as the market writes it
            if running and direct
            else {},
            "direct_port_count": machine.direct_ports if direct else -1,
            "direct_port_start": instance.ports[0] if direct else -1,
            "direct_port_end": instance.ports[-1] if direct else -1,
            "bundle_id": instance.offer_id - 1_000_000,
            "ask_contract_id": instance.offer_id,
            "gpu_util": 0.0 if running else None,
            "gpu_temp": 34.0 if running else None,
            "cpu_util": 0.0,
            "mem_limit": machine.cpu_ram / 1000,
            "mem_usage": 0.1 if running else 0.0,
            "vmem_usage": 0.0,
            "disk_space": instance.disk_gb,
            "disk_usage": -1.0,
            "disk_util": -1.0,
            "is_bid": instance.is_bid,
            "min_bid": round(min_bid, 6),
            "start_date": instance.created_at,
            **moving_columns(instance, machine, now),
            "image_uuid": instance.image,
            "image_args": list(instance.args),
            "image_runtype": instance.runtype,
            "onstart": instance.onstart,
            "extra_env": [[name, value] for name, value in instance.env.items()],
            "template_id": None,
            "template_hash_id": None,
            "template_name": None,
            "jupyter_token": None,
            "volume_info": [],
            "rentable": False,
            "credit_balance": None,
            "credit_discount": None,
            "credit_discount_max": 0.1,
            "client_run_time": 1.0,
            "host_run_time": machine.days * 86400,
        }
    )
    return row
