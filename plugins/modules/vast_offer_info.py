# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_offer_info
short_description: Search vast.ai offers and rank them by what a useful hour costs
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Searches the market and ranks what fits by the expected cost of one useful hour, the cheapest first.
  - An hour is useful if its work is kept. The expected cost counts compute, disk, bandwidth both ways, the time that
    transfers bill, work lost to outbids (interruptible boxes), work lost to hosts that fail (reliability), and boxes
    that never come up.
  - RV(offers[].why) explains each offer, RV(offers[].cost_parts) adds up to its cost. What a host does not say is
    assumed to be dear.
  - If nothing fits, the module fails and says which constraint excludes how many offers, and the lowest
    O(price_cap) at which something would be found.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.vast
  - tenant.gpu.vast_ranking
  - tenant.gpu.vast_volumes
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.actiongroup_vast
  - tenant.gpu.attributes.rental_action
options:
  gpu_name:
    description:
      - Name of the GPU as the market writes it. Blanks and underscores are the same, case does not matter.
      - If empty, any GPU fits.
    type: str
    default: ''
  num_gpus:
    description: Number of GPUs in the box.
    type: int
    default: 1
  min_gpu_ram_gb:
    description: Least memory of each GPU, in GB (1000 MB, as the market counts).
    type: float
    default: 0.0
  min_disk_gb:
    description: Size of the disk to rent, in GB. It is priced with the offer, and cannot be changed later.
    type: float
    default: 20.0
  min_cuda:
    description: Least CUDA version that the host's driver must support, for example V(12.4).
    type: float
    default: 0.0
  min_reliability:
    description: Least share of time for which the host was up, from V(0) to V(1).
    type: float
    default: 0.0
  direct_ports:
    description: Least number of direct ports. With V(0) the box may be reachable through the provider's proxy only.
    type: int
    default: 1
  market:
    description:
      - V(interruptible) boxes are cheaper, and are stopped without notice when somebody bids more.
      - V(on-demand) boxes run until they are stopped.
    type: str
    choices: [interruptible, on-demand]
    default: interruptible
  price_cap:
    description:
      - Most that an hour may cost, compute and disk together, in dollars.
      - If not set, offers of any price are shown.
    type: float
  bid_margin:
    description: An interruptible box bids the least that runs, and this share of it on top.
    type: float
    default: 0.1
  exclude_machines:
    description: Machine ids never to rent, for example those that failed a probe.
    type: list
    elements: int
    default: []
  state_dir:
    description:
      - The state store (C(tenant_state_dir)). Its journal tells which machines came up and were outbid for us, which
        moves the assumptions. It is only read.
      - Without it, the stated assumptions hold for every machine.
    type: path
  bulk_transfer:
    description:
      - Declares that large files will move to or from the box. Only verified hosts with a direct port are shown then;
        O(verified=false) or O(direct_ports=0) beside it is an error.
    type: bool
    default: false
  verified:
    description: Only hosts that the market has verified.
    type: bool
    default: true
  project:
    description: The project whose volumes O(volumes) names.
    type: str
    default: ''
  limit:
    description: Most offers to return.
    type: int
    default: 10
  query:
    description:
      - More filters, merged over those from the other options - of the same column this one holds.
      - A text is read as the market's own client reads it, C(num_gpus>=2 gpu_name in [RTX_4090,RTX_5090] gpu_ram>=20
        duration>3 geolocation notin [CN] verified=any). Memory is in GB and C(duration) in days there, underscores in
        values are blanks, and C(=any) lifts a filter, also one that is there by default.
      - A dictionary has the API's own filters. The keys are columns, the values are operators and operands, in its
        units (MB and seconds), see the examples.
      - A name that the market does not have is an error that names the nearest.
    type: raw
    default: {}
seealso:
  - module: tenant.gpu.vast_instance
"""

EXAMPLES = r"""
- name: Find a box for eight hours of training
  tenant.gpu.vast_offer_info:
    gpu_name: RTX 4090
    min_disk_gb: 40
    min_reliability: 0.98
    price_cap: 0.45
    hours_expected: 8
    download_gb: 25
    upload_gb: 3
    state_dir: ~/.local/state/gpu-tenant
    query:
      geolocation: {in: [DE, SE]}
  delegate_to: localhost
  register: market

- name: Say why this one
  ansible.builtin.debug:
    msg: "{{ market.best.why }}"
"""

RETURN = r"""
offers:
  description: The offers that fit, the cheapest useful hour first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The offer's id, to rent it by.
      type: int
      sample: 1000123
    machine_id:
      description: The machine, for O(exclude_machines).
      type: int
    host_id:
      description: The host that owns the machine.
      type: int
    gpu_name:
      description: Name of the GPU.
      type: str
      sample: RTX 4090
    num_gpus:
      description: Number of GPUs.
      type: int
    gpu_ram:
      description: Memory of each GPU in MB.
      type: float
    disk_space:
      description: Disk on offer in GB.
      type: float
    cuda_max_good:
      description: Highest CUDA version that the driver supports.
      type: float
    reliability:
      description: Share of time for which the host was up.
      type: float
    direct_port_count:
      description: Number of direct ports.
      type: int
    verified:
      description: Whether the market has verified the host.
      type: bool
    geolocation:
      description: Where the host says that it is.
      type: str
    available_hours:
      description: Hours until the host takes the offer away, null when it does not say.
      type: float
    market:
      description: V(interruptible) or V(on-demand).
      type: str
    min_bid:
      description: Least bid that runs, dollars an hour.
      type: float
    bid:
      description: The bid that would be made, dollars an hour; null on demand.
      type: float
    dph_base:
      description: Compute on demand, dollars an hour.
      type: float
    storage_cost:
      description: Dollars per GB of disk and month.
      type: float
    storage_per_hour:
      description: Disk, dollars an hour, billed while the box is stopped too.
      type: float
    price_per_hour:
      description: Compute and disk, dollars an hour.
      type: float
    inet_down:
      description: Download in Mbit/s.
      type: float
    inet_up:
      description: Upload in Mbit/s.
      type: float
    inet_down_cost:
      description: Dollars per GB downloaded, null when the host does not say.
      type: float
    inet_up_cost:
      description: Dollars per GB uploaded, null when the host does not say.
      type: float
    cost_per_useful_hour:
      description: Expected dollars for an hour whose work is kept; what the offers are ranked by.
      type: float
    cost_parts:
      description: >-
        What RV(offers[].cost_per_useful_hour) is the sum of, in dollars per useful hour - C(compute), C(disk),
        C(bandwidth), C(transfers), C(interruptions) and C(failed_boots).
      type: dict
    why:
      description: The cost in words. What our own boxes told of the machine stands at its end.
      type: str
      sample: >-
        $0.3250 per useful hour of 4 h: $0.2970 bid + $0.0056 disk an hour, $0.050 once for 5 GB down and 1 GB up,
        2 min of transfers, an interruption expected every 11 h ($0.0069 an hour), 20% of boots fail ($0.0019 an hour),
        reliability 99.3%
best:
  description: The first of RV(offers).
  returned: success
  type: dict
"""

from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.vast.attached import attach, machine_of, mounts_in
from ..module_utils.vast.offer_search import reputation_of, search
from ..module_utils.vast.offers import DEFAULT_BID_MARGIN, INTERRUPTIBLE, MARKETS, Constraints
from ..module_utils.vast.options import client_of, ranking_options, run_module, volume_options
from ..module_utils.vast.ranking import Work

SPEC = {
    "gpu_name": {"type": "str", "default": ""},
    "num_gpus": {"type": "int", "default": 1},
    "min_gpu_ram_gb": {"type": "float", "default": 0.0},
    "min_disk_gb": {"type": "float", "default": 20.0},
    "min_cuda": {"type": "float", "default": 0.0},
    "min_reliability": {"type": "float", "default": 0.0},
    "direct_ports": {"type": "int", "default": 1},
    "market": {"type": "str", "choices": list(MARKETS), "default": INTERRUPTIBLE},
    "price_cap": {"type": "float"},
    "bid_margin": {"type": "float", "default": DEFAULT_BID_MARGIN},
    "exclude_machines": {"type": "list", "elements": "int", "default": []},
    "state_dir": {"type": "path"},
    "verified": {"type": "bool", "default": True},
    "bulk_transfer": {"type": "bool", "default": False},
    **volume_options(),
    "project": {"type": "str", "default": ""},
    "limit": {"type": "int", "default": 10},
    "query": {"type": "raw", "default": {}},
    **ranking_options(),
}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    client = client_of(options)
    machine = machine_of(attach(client, options["project"], mounts_in(options["volumes"])))
    wanted = replace(Constraints.from_options(options), only_machine=machine)
    work = Work.from_options(options)
    known = reputation_of(options["state_dir"])
    offers = search(client, wanted, work, options["limit"], known)
    return {"changed": False, "offers": offers, "best": offers[0]}


def main() -> None:
    run_module(act, argument_spec=SPEC)


if __name__ == "__main__":
    main()
