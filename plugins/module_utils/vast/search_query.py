# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The raw filters of a search, checked before they are sent: a typo must not look like an empty market."""

from __future__ import annotations

import difflib
from typing import Any, Mapping

from ..failures import TenantFailure

OPERATIONS = ("eq", "neq", "gt", "gte", "lt", "lte", "in", "notin")
# What an offer can be filtered by: the columns of its row, the server's virtual ones and its other names for some.
_COLUMNS = """
    id ask_contract_id bundle_id machine_id host_id hosting_type hostname public_ipaddr num_gpus gpu_name gpu_arch
    gpu_ids gpu_ram gpu_total_ram gpu_totalram gpu_frac gpu_lanes gpu_mem_bw gpu_max_power gpu_max_temp
    gpu_display_active display_active compute_cap cuda_max_good cuda_vers bw_nvlink driver_version driver_vers cpu_name
    cpu_arch cpu_cores cpu_cores_effective cpu_ghz cpu_ram has_avx mobo_name os_version ubuntu_version pci_gen pcie_bw
    disk_name disk_bw disk_space inet_up inet_down inet_up_cost inet_down_cost internet_up_cost_per_tb
    internet_down_cost_per_tb direct_port_count static_ip dlperf dlperf_per_dphtotal dlperf_usd total_flops
    flops_per_dphtotal flops_usd score dph dph_base dph_total dphtotal dph_total_adj min_bid is_bid storage_cost
    storage_total_cost vram_costperhour discount_rate discounted_hourly discounted_dph_total credit_discount_max
    rentable rented external verification verified datacenter vericode is_vm_deverified vms_enabled reliability
    reliability2 reliability_mult expected_reliability geolocation geolocode country_code start_date end_date duration
    time_remaining time_remaining_isbid resource_type cluster_id avail_vol_ask_id avail_vol_dph avail_vol_size
    nw_disk_min_bw nw_disk_max_bw nw_disk_avg_bw platform_fee bundled_results
"""
# Not filters: how the server is to answer.
_SETTINGS = """
    order type limit allocated_storage disable_bundling target_reliability extra_ids gpu_option show_incompatible
    sort_option template_id
"""
COLUMNS = frozenset(_COLUMNS.split())
SETTINGS = frozenset(_SETTINGS.split())


def check_query(query: Mapping[str, Any]) -> None:
    """TenantFailure for a column or operation that the market does not have; names the nearest that it has."""
    for name, conditions in query.items():
        if name in SETTINGS:
            continue
        if name not in COLUMNS:
            raise _unknown("column", name, COLUMNS | SETTINGS)
        for operation in conditions if isinstance(conditions, Mapping) else ():
            if operation not in OPERATIONS:
                raise _unknown(f"operation on {name}", str(operation), frozenset(OPERATIONS))


def _unknown(what: str, name: str, known: frozenset[str]) -> TenantFailure:
    near = difflib.get_close_matches(str(name).lower(), sorted(known), n=1, cutoff=0.5)
    listed = ", ".join(OPERATIONS) if what.startswith("operation") else "the columns of an offer, as the API names them"
    fix = f"did you mean {near[0]!r}?" if near else f"there are {listed}"
    text = f"{str(name)[:60]!r} in query is no {what} that the market has"
    return TenantFailure("config", text, safe="nothing was searched or rented", fix=fix)
