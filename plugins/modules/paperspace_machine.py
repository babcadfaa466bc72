# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: paperspace_machine
short_description: Rent, start, stop and delete machines on Paperspace
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Brings one box of a project to the wanted state. A box is known by its stamp (project and name), which is written
    into the name of the machine and of the startup script that lets our key in, so it is found again from the
    provider alone.
  - A create is sent once. If its answer is lost, the team's machines are searched for the stamp until the answer is
    certain. Creates of one account happen one at a time, across processes that share O(state_dir).
  - Paperspace's API tells the price of a machine once it is rented. A new one above O(price_cap), or one that does
    not come up, is deleted at once, before anything was put on it.
  - A machine that is off keeps its disk, and bills it and its static address. It was shut down by O(state=stopped),
    by a person, or by the provider O(auto_shutdown_hours) after it was started.
  - Deleting deletes the disk. With O(state=absent) the evidence gate is asked here, on records re-read now - seal,
    receipts, every byte of every copy, approval - and refuses unless the results are home. No option opens it. A
    machine that runs is shut down first, for the provider deletes none that runs; then its static address is
    released.
  - Machines without our stamp are never touched. Snapshots, shared drives and templates are never made and never
    deleted.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.rental.box
  - tenant.gpu.paperspace
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_paperspace
attributes:
  check_mode:
    support: full
    details:
      - For a machine that is not rented yet, RV(would) says what would be asked for, under which cap. Its price is
        unknown.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) rents a machine if there is none. One that exists is left as it is, running or off.
      - V(started) also starts a machine that is off.
      - V(stopped) shuts it down. Its disk is kept and bills, and so does a static address.
      - V(absent) shuts down, deletes and releases the machine and every superseded machine of its name, each through
        the gate, and says what bills on.
    type: str
    choices: [present, started, stopped, absent]
    default: present
  machine_types:
    description:
      - Paperspace's names of the machine types to rent, tried in order, such as V(A6000) or V(A100-80G).
      - Needed only when there is no machine yet.
    type: list
    elements: str
    default: []
  region:
    description: Where to rent, such as V(ny2). Needed only when there is no machine yet.
    type: str
    default: ''
  template:
    description:
      - Id of the template that the disk is made of, the provider's or the team's own. An H100 needs one of Ubuntu
        22.04.
      - Needed only when there is no machine yet.
    type: str
    default: ''
  ssh_public_key:
    description:
      - The public key that is let in, by a startup script on the first boot.
      - Needed only when there is no machine yet.
    type: str
    default: ''
  disk_gb:
    description: Size of the disk, 50 to 2000 GB. It can grow, and never shrinks.
    type: int
    default: 50
  public_ip_type:
    description:
      - V(dynamic) is another address after each start, and costs nothing while the machine is off.
      - V(static) stays the same, and bills until it is released.
    type: str
    choices: [dynamic, static]
    default: dynamic
  network:
    description: Id of the private network to rent in. The team's default when empty.
    type: str
    default: ''
  auto_shutdown_hours:
    description:
      - Hours after each start at which the provider shuts the machine down, whatever runs on it; at most a week.
        V(0) is never. It is the dead-man switch of a box whose controller died - its disk is kept.
      - It is set when the machine is rented, and cannot be changed here later.
    type: int
    default: 168
  provider_id:
    description: With O(state=stopped) and O(state=absent), only this one of the machines that carry the name.
    type: str
    default: ''
seealso:
  - module: tenant.gpu.paperspace_machine_info
  - module: tenant.gpu.runpod_pod
"""

EXAMPLES = r"""
- name: Rent a machine, or find it again and start it
  tenant.gpu.paperspace_machine:
    project: digits
    name: box-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    machine_types: [A6000, A100-80G]
    region: ny2
    template: t0nspur5
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    disk_gb: 100
    auto_shutdown_hours: 48
    price_cap: 3.50
  delegate_to: localhost
  register: box

- name: Park it, its disk bills on
  tenant.gpu.paperspace_machine:
    project: digits
    name: box-a
    state: stopped
    state_dir: ~/.local/state/gpu-tenant
  delegate_to: localhost

- name: End it for good, which the gate allows once the results are home and somebody approved
  tenant.gpu.paperspace_machine:
    project: digits
    name: box-a
    state: absent
    state_dir: ~/.local/state/gpu-tenant
  delegate_to: localhost
  register: ended

- name: Show what bills on
  ansible.builtin.debug:
    var: ended.leftovers
"""

RETURN = r"""
machine:
  description: The machine as the provider shows it; null when there is none (any more, or yet).
  returned: success
  type: dict
  contains:
    provider_id:
      description: The machine's id.
      type: str
      sample: psm9u09bwu5i
    state:
      description: loading, running, stopped or unknown.
      type: str
      sample: running
    status:
      description: >-
        The provider's own word - off, provisioning, starting, serviceready, ready, restarting, upgrading, stopping.
      type: str
      sample: ready
    host:
      description: SSH host, checked against a strict pattern; empty while there is none.
      type: str
    port:
      description: SSH port.
      type: int
    user:
      description: SSH login.
      type: str
    num_gpus:
      description: GPUs that it has.
      type: int
    gpu_name:
      description: The provider's name of the card.
      type: str
    machine_type:
      description: Paperspace's name of its type.
      type: str
    region:
      description: Where it is.
      type: str
    disk_gb:
      description: Size of its disk.
      type: float
    public_ip_type:
      description: static, dynamic or none.
      type: str
    auto_snapshots:
      description: Whether somebody had automatic snapshots made, which bill.
      type: bool
    started_at:
      description: When it was last told to run, where that was asked; else null.
      type: str
    price_per_hour:
      description: Dollars an hour while it runs, disk and address included.
      type: float
    clocks:
      description: >-
        What is billed in each state (C(running_per_hour), C(stopped_per_hour)), and C(auto_shutdown_hours),
        C(auto_shutdown_at) and C(auto_shutdown_left_s), null for never or unknown.
      type: dict
stamp:
  description: The box's stamp, empty when there is no machine.
  returned: success
  type: str
  sample: gt1/digits/box-a/g1/0123456789abcdef
generation:
  description: The box's generation; each create raises it.
  returned: success
  type: int
superseded:
  description: Other machines that carry the same name. They bill, and must be harvested and deleted.
  returned: success
  type: list
  elements: dict
gate:
  description: >-
    For each machine that went through the gate, the C(rule) that opened it, C(approval_id) and C(approver) where a
    person consented.
  returned: success
  type: list
  elements: dict
leftovers:
  description: >-
    What bills beside machines, whoever made it, with C(price_per_hour) null where the provider does not say.
  returned: with O(state=absent)
  type: list
  elements: dict
  contains:
    kind:
      description: static IP, snapshot, shared drive or custom template.
      type: str
    id:
      description: Its id, for an address the address.
      type: str
    name:
      description: Its name, for an address its region.
      type: str
    state:
      description: What the provider says of it.
      type: str
    price_per_hour:
      description: Dollars an hour.
      type: float
    machine:
      description: Id of the machine that it is of, or was.
      type: str
would:
  description: >-
    What would be rented or started - C(price_per_hour) (null for a new machine, since it is unknown before),
    C(price_cap), C(clocks), and for a new machine C(machine_types) and C(region).
  returned: in check mode, when something would be rented or started
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.dollar_budgets import OPTIONS
from ..module_utils.paperspace.desired import STATES, converge
from ..module_utils.paperspace.options import account_of, desire_of, run_module

SPEC = {
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "state_dir": {"type": "path", "required": True},
    "results_dir": {"type": "path", "default": ""},
    "machine_types": {"type": "list", "elements": "str", "default": []},
    "region": {"type": "str", "default": ""},
    "template": {"type": "str", "default": ""},
    "ssh_public_key": {"type": "str", "default": "", "no_log": False},
    "disk_gb": {"type": "int", "default": 50},
    "public_ip_type": {"type": "str", "choices": ["dynamic", "static"], "default": "dynamic"},
    "network": {"type": "str", "default": ""},
    "auto_shutdown_hours": {"type": "int", "default": 168},
    "price_cap": {"type": "float"},
    "budget_per_hour": {"type": "float"},
    **OPTIONS,
    "wait_s": {"type": "int", "default": 900},
    "verb_keeps": {"type": "dict", "default": {}},
    "provider_id": {"type": "str", "default": ""},
}
RULES = {"required_if": [("state", "present", ["price_cap"]), ("state", "started", ["price_cap"])]}


def act(module: AnsibleModule) -> dict[str, Any]:
    return converge(account_of(module.params), desire_of(module.params), module.check_mode)


def main() -> None:
    run_module(act, argument_spec=SPEC, **RULES)


if __name__ == "__main__":
    main()
