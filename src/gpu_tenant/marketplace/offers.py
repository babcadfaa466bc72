# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the market has to let: machines drawn from a seed, and their rows in a search.

Every market, whatever its seed, holds the machines of the rehearsal: among the single RTX 4090, the cheapest one
to bid for claims 24 GB and has 16 GB; honest ones follow at higher prices.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from .billing import MONTH_H, MOST_DISCOUNT
from .engines.base import Card
from .filters import driver_number

DAY_S = 86400
FIRST_OFFER_ID = 20_400_000
CATALOGUE_SIZE = 40


@dataclass(frozen=True)
class GpuModel:
    """What all cards of one model share; prices are dollars per hour for one."""

    name: str
    arch: str
    memory_mb: int
    memory_bandwidth: float
    compute_cap: int
    tflops: float
    dlperf: float
    watts: int
    price: float


MODELS = (
    GpuModel("RTX 3060", "nvidia", 12288, 336.0, 860, 12.7, 13.0, 170, 0.08),
    GpuModel("RTX 3090", "nvidia", 24576, 861.0, 860, 35.6, 38.0, 350, 0.22),
    GpuModel("RTX 4090", "nvidia", 24564, 926.0, 890, 81.4, 89.0, 450, 0.40),
    GpuModel("RTX 5090", "nvidia", 32607, 1519.0, 1200, 107.5, 170.0, 575, 0.62),
    GpuModel("RTX A6000", "nvidia", 49140, 683.0, 860, 38.3, 47.0, 300, 0.48),
    GpuModel("L40S", "nvidia", 46068, 735.0, 890, 90.3, 95.0, 350, 0.66),
    GpuModel("A100 SXM4", "nvidia", 81920, 1555.0, 800, 19.5, 80.0, 400, 0.98),
    GpuModel("H100 SXM", "nvidia", 81559, 2651.0, 900, 53.8, 330.0, 700, 2.10),
)
GEOLOCATIONS = (
    "Sweden, SE", "Norway, NO", "Germany, DE", "Bulgaria, BG", "Czechia, CZ", "Spain, ES", "Texas, US", "Utah, US",
    "California, US", "Quebec, CA", "Taiwan, TW", "Japan, JP", "South Korea, KR", "Australia, AU",
)  # fmt: skip
CPUS = (("AMD EPYC 7763 64-Core Processor", 64, 3.5), ("Xeon Gold 6330", 56, 3.1), ("AMD Ryzen 9 7950X", 32, 5.7))
DRIVERS = (("550.54.14", 12.4), ("560.35.03", 12.6), ("570.86.15", 12.8), ("535.183.01", 12.2))
# (price to bid, price on demand, memory that the card really has): the cheapest one lies.
REHEARSAL_4090 = (
    (0.118, 0.310, 16380),
    (0.152, 0.335, 24564),
    (0.169, 0.349, 24564),
    (0.187, 0.372, 24564),
    (0.214, 0.401, 24564),
)


@dataclass(frozen=True)
class Machine:
    """One machine, let as a whole by one offer. Money in dollars, memory in MB, disk in GB, bandwidth in Mb/s."""

    offer_id: int
    machine_id: int
    host_id: int
    model: GpuModel
    num_gpus: int
    real_memory_mb: int
    price: float
    min_bid: float
    storage_cost: float
    inet_up: float
    inet_down: float
    up_cost: float
    down_cost: float
    reliability: float
    driver: str
    cuda: float
    geolocation: str
    direct_ports: int
    verification: str
    hosting_type: int
    cpu_name: str
    cpu_cores: int
    cpu_ghz: float
    cpu_ram: int
    disk_space: float
    disk_bw: float
    pcie_bw: float
    days: float

    @property
    def card(self) -> Card:
        name = self.model.name
        full = f"NVIDIA GeForce {name}" if name.startswith("RTX") and " A" not in name else f"NVIDIA {name}"
        return Card(full, self.real_memory_mb, self.num_gpus, self.driver, f"{self.cuda:.1f}")


def generate(seed: int, size: int = CATALOGUE_SIZE) -> list[Machine]:
    """The market's machines, the same for the same seed; a larger market has those of a smaller one and more."""
    chance = random.Random(seed)  # noqa: S311 - a market drawn from a seed, no secret
    machines = [_rehearsal_machine(chance, index) for index in range(len(REHEARSAL_4090))]
    machines += [_machine(chance, index) for index in range(len(machines), size)]
    return machines


def gpu_names(machines: list[Machine]) -> list[str]:
    return sorted({machine.model.name for machine in machines})


def offer_row(
    machine: Machine, now: float, min_bid: float, rentable: bool, interruptible: bool, allocated_gb: float
) -> dict[str, Any]:
    """A machine as a search shows it.

    :param min_bid: the market's price for it now.
    :param allocated_gb: disk that the price includes.
    """
    row = hardware_row(machine, now)
    base = min_bid if interruptible else machine.price
    row.update(price_row(machine, base, allocated_gb))
    discount = 0.0 if interruptible else MOST_DISCOUNT
    row.update(
        {
            "id": machine.offer_id,
            "ask_contract_id": machine.offer_id,
            "bundle_id": machine.offer_id - 1_000_000,
            "bundled_results": 1,
            "min_bid": round(min_bid, 6),
            "is_bid": interruptible,
            "rentable": rentable,
            "rented": not rentable,
            "resource_type": "gpu",
            "discount_rate": discount,
            "discounted_hourly": base * discount,
            "discounted_dph_total": row["dph_total"] - base * discount,
            "credit_discount_max": discount,
            "avail_vol_ask_id": None,
            "avail_vol_dph": None,
            "avail_vol_size": None,
            "cluster_id": None,
            "rn": 1,
        }
    )
    return row


def price_row(machine: Machine, base: float, disk_gb: float) -> dict[str, Any]:
    """The block of prices that offers and instances share; ``base`` is dollars per hour for the compute."""
    storage = machine.storage_cost * disk_gb / MONTH_H
    total = base + storage
    hourly = {"gpuCostPerHour": base, "diskHour": storage, "totalHour": total}
    search = {**hourly, "discountTotalHour": 0.0, "discountedTotalPerHour": total}
    return {
        "dph_base": base,
        "dph_total": total,
        "dph_total_adj": total,
        "storage_cost": machine.storage_cost,
        "storage_total_cost": storage,
        "dlperf_per_dphtotal": machine.model.dlperf * machine.num_gpus / total,
        "flops_per_dphtotal": machine.model.tflops * machine.num_gpus / total,
        "vram_costperhour": total / (machine.model.memory_mb * machine.num_gpus),
        "search": search,
        "instance": dict(search),
    }


def hardware_row(machine: Machine, now: float) -> dict[str, Any]:
    """What offers and instances say alike about the machine; the memory is the claimed one."""
    return {
        "machine_id": machine.machine_id,
        "host_id": machine.host_id,
        "hosting_type": machine.hosting_type,
        "hostname": None,
        "public_ipaddr": "127.0.0.1",
        **_gpu_columns(machine),
        **_board_columns(machine),
        **_network_columns(machine),
        **_score_columns(machine),
        **_place_and_time_columns(machine, now),
        "nw_disk_min_bw": None,
        "nw_disk_max_bw": None,
        "nw_disk_avg_bw": None,
        "platform_fee": 0.25,
        "logo": "/static/logos/vastai_small2.png",
        "webpage": None,
    }


def _gpu_columns(machine: Machine) -> dict[str, Any]:
    model = machine.model
    return {
        "num_gpus": machine.num_gpus,
        "gpu_name": model.name,
        "gpu_arch": model.arch,
        "gpu_ids": list(range(machine.num_gpus)),
        "gpu_ram": model.memory_mb,
        "gpu_total_ram": model.memory_mb * machine.num_gpus,
        "gpu_totalram": model.memory_mb * machine.num_gpus,
        "gpu_frac": 1.0,
        "gpu_lanes": 16,
        "gpu_mem_bw": model.memory_bandwidth,
        "gpu_max_power": float(model.watts),
        "gpu_max_temp": 88.0,
        "gpu_display_active": False,
        "compute_cap": model.compute_cap,
        "cuda_max_good": machine.cuda,
        "bw_nvlink": 0.0,
        "driver_version": machine.driver,
        "driver_vers": driver_number(machine.driver),
    }


def _board_columns(machine: Machine) -> dict[str, Any]:
    return {
        "cpu_name": machine.cpu_name,
        "cpu_arch": "amd64",
        "cpu_cores": machine.cpu_cores,
        "cpu_cores_effective": float(machine.cpu_cores),
        "cpu_ghz": machine.cpu_ghz,
        "cpu_ram": machine.cpu_ram,
        "has_avx": 1,
        "mobo_name": "ROME2D32GM",
        "os_version": "22.04",
        "pci_gen": 4.0,
        "pcie_bw": machine.pcie_bw,
        "disk_name": "Samsung SSD 980 PRO",
        "disk_bw": machine.disk_bw,
        "disk_space": machine.disk_space,
    }


def _network_columns(machine: Machine) -> dict[str, Any]:
    return {
        "inet_up": machine.inet_up,
        "inet_down": machine.inet_down,
        "inet_up_cost": machine.up_cost,
        "inet_down_cost": machine.down_cost,
        "internet_up_cost_per_tb": machine.up_cost * 1000,
        "internet_down_cost_per_tb": machine.down_cost * 1000,
        "direct_port_count": machine.direct_ports,
        "static_ip": True,
    }


def _score_columns(machine: Machine) -> dict[str, Any]:
    model = machine.model
    return {
        "dlperf": model.dlperf * machine.num_gpus,
        "total_flops": model.tflops * machine.num_gpus,
        "score": round(model.dlperf * machine.num_gpus * machine.reliability / machine.price, 3),
        "external": None,
        "verification": machine.verification,
        "vericode": 1 if machine.verification == "verified" else 0,
        "is_vm_deverified": False,
        "vms_enabled": False,
        "reliability": machine.reliability,
        "reliability2": machine.reliability,
        "reliability_mult": 1.0,
        "expected_reliability": machine.reliability,
    }


def _place_and_time_columns(machine: Machine, now: float) -> dict[str, Any]:
    started, ends = moments(machine, now)
    return {
        "geolocation": machine.geolocation,
        "geolocode": None,
        "country_code": machine.geolocation[-2:],
        "start_date": started,
        "end_date": ends,
        "duration": machine.days * DAY_S,
        "time_remaining": "",
        "time_remaining_isbid": "",
    }


def moments(machine: Machine, now: float) -> tuple[float, float]:
    """``start_date`` and ``end_date``, the columns that move with the clock."""
    return now - 90 * DAY_S, now + machine.days * DAY_S


def _rehearsal_machine(chance: random.Random, index: int) -> Machine:
    min_bid, price, memory = REHEARSAL_4090[index]
    model = next(model for model in MODELS if model.name == "RTX 4090")
    return _machine(chance, index, model=model, count=1, prices=(price, min_bid), memory_mb=memory, sound=True)


def _machine(
    chance: random.Random,
    index: int,
    model: GpuModel | None = None,
    count: int = 0,
    prices: tuple[float, float] | None = None,
    memory_mb: int = 0,
    sound: bool = False,
) -> Machine:
    """One machine; ``sound`` ones pass every filter that a careful tenant would set."""
    model = model or chance.choice(MODELS)
    count = count or chance.choice((1, 1, 1, 2, 2, 4, 8))
    if prices is None:
        # Above the rehearsal's machines, so that those stay the cheapest of their kind.
        price = round(model.price * count * chance.uniform(1.05, 1.6), 4)
        prices = (price, round(price * chance.uniform(0.60, 0.80), 4))
    driver, cuda = chance.choice(DRIVERS[:3] if sound else DRIVERS)
    cpu_name, cores, ghz = chance.choice(CPUS)
    return Machine(
        offer_id=FIRST_OFFER_ID + 137 * index + chance.randrange(100),
        machine_id=12_000 + 31 * index + chance.randrange(30),
        host_id=60_000 + chance.randrange(900),
        model=model,
        num_gpus=count,
        real_memory_mb=memory_mb or model.memory_mb,
        price=prices[0],
        min_bid=prices[1],
        storage_cost=round(chance.uniform(0.10, 0.20), 3),
        inet_up=round(chance.uniform(300, 900), 1),
        inet_down=round(chance.uniform(400, 1200), 1),
        up_cost=round(chance.uniform(0.0, 0.004 if sound else 0.03), 4),
        down_cost=round(chance.uniform(0.0, 0.004 if sound else 0.03), 4),
        reliability=round(chance.uniform(0.992, 0.9995) if sound else chance.uniform(0.90, 0.9995), 5),
        driver=driver,
        cuda=cuda,
        geolocation=chance.choice(GEOLOCATIONS),
        direct_ports=chance.randrange(20, 250) if sound else chance.choice((0, 1, 4, 49, 100, 199)),
        verification="verified" if sound or chance.random() < 0.8 else "unverified",
        hosting_type=chance.choice((0, 1)),
        cpu_name=cpu_name,
        cpu_cores=cores,
        cpu_ghz=ghz,
        cpu_ram=chance.choice((64_000, 128_000, 257_000)),
        disk_space=round(chance.uniform(200, 1500), 1),
        disk_bw=round(chance.uniform(1500, 6000), 1),
        pcie_bw=round(chance.uniform(11, 25), 1),
        days=round(chance.uniform(20, 120) if sound else chance.uniform(2, 120), 2),
    )
