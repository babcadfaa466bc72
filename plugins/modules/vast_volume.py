# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_volume
short_description: Rent and delete volumes on vast.ai
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Makes a volume of a project present or absent. A volume is storage on one machine that outlives the boxes there.
  - It is known by the stamp in its name (project, name, generation), so it is found again from the provider alone.
  - A create is sent once. If its answer is lost, the account is searched for the stamp until the answer is certain.
  - A volume can neither grow nor move. One that is smaller than wanted, or on another machine, is an error.
  - Deleting a volume destroys what it holds. Nobody can look into a volume from outside, so it never counts as unused.
    With O(state=absent) the evidence gate is asked here, on records re-read now, and wants a person's consent to the
    loss. A volume that a box uses, even a stopped one, is not deleted. No option opens the gate.
  - Volumes without our stamp are never touched.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.vast
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_vast
attributes:
  check_mode:
    support: full
    details:
      - RV(would) says which offer would be rented, at what price. Nothing is deleted, but the gate is asked.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  project:
    description: The project that the volume belongs to.
    type: str
    required: true
  name:
    description:
      - The volume's name in the project.
      - The market's names have at most 64 characters, of which project and name may take about 40.
    type: str
    required: true
  state:
    description:
      - V(present) rents the volume if there is none.
      - V(absent) deletes every volume of this name, through the gate.
    type: str
    choices: [present, absent]
    default: present
  state_dir:
    description: The state store (C(tenant_state_dir)), where records, journal and approvals are.
    type: path
    required: true
  size_gb:
    description: Size in whole GB. It cannot be changed later.
    type: int
    default: 15
  price_cap:
    description:
      - Most that the whole volume may cost an hour, in dollars. This is the consent to spend.
      - Required with O(state=present).
    type: float
  offer_id:
    description: Only this offer.
    type: int
  machine_id:
    description: Only on this machine, for instance the one of a box that shall use it.
    type: int
  geolocation:
    description: Only in these countries, as two letters.
    type: list
    elements: str
    default: []
  min_reliability:
    description: Least reliability of the host, from 0 to 1.
    type: float
    default: 0.0
  verified:
    description: Whether only hosts that the market has verified are taken.
    type: bool
    default: true
seealso:
  - module: tenant.gpu.vast_instance
  - module: tenant.gpu.vast_account_info
"""

EXAMPLES = r"""
- name: Keep the data set on the machine of the box
  tenant.gpu.vast_volume:
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
    name: imagenet
    size_gb: 200
    machine_id: "{{ ansible_facts['box_endpoint']['machine_id'] }}"
    price_cap: 0.05
  delegate_to: localhost

- name: Delete it, once somebody consented with "gpu-tenant approve delete imagenet --volume"
  tenant.gpu.vast_volume:
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
    name: imagenet
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
volume:
  description: The volume as the provider shows it; null when there is none.
  returned: success
  type: dict
  contains:
    id:
      description: The volume's id.
      type: int
    reference:
      description: How other commands of the market name it.
      type: str
      sample: V.31000007
    stamp:
      description: Its name on the market.
      type: str
      sample: gt1__vision__imagenet__g1__0a1b2c3d
    name:
      description: Its name in the project.
      type: str
    generation:
      description: Its generation; each create raises it.
      type: int
    size_gb:
      description: Its size.
      type: float
    machine_id:
      description: The machine that it is on, for ever.
      type: int
    price_per_hour:
      description: Dollars an hour, used or not; null when the provider does not say.
      type: float
    status:
      description: What the provider says of it, untrusted text.
      type: str
    instances:
      description: The instances that use it, stopped ones too.
      type: list
      elements: int
superseded:
  description: Other volumes that carry the same name. They bill.
  returned: success
  type: list
  elements: dict
gate:
  description: For each volume that went through the gate, its C(id), the C(rule) and the C(approval_id).
  returned: success
  type: list
  elements: dict
would:
  description: What would be rented - C(offer_id), C(machine_id), C(size_gb), C(price_per_hour), C(geolocation).
  returned: in check mode, when something would be rented
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.state_store import StateStore
from ..module_utils.vast.actions import Account
from ..module_utils.vast.options import client_of, run_module
from ..module_utils.vast.volumes import Wish, converge

SPEC = {
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "state_dir": {"type": "path", "required": True},
    "size_gb": {"type": "int", "default": 15},
    "price_cap": {"type": "float"},
    "offer_id": {"type": "int"},
    "machine_id": {"type": "int"},
    "geolocation": {"type": "list", "elements": "str", "default": []},
    "min_reliability": {"type": "float", "default": 0.0},
    "verified": {"type": "bool", "default": True},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    wish = Wish(**{name: options[name] for name in SPEC if name != "state_dir"})
    account = Account(client_of(options), StateStore(options["state_dir"]), read_only=module.check_mode)
    return converge(account, wish, module.check_mode)


def main() -> None:
    run_module(act, argument_spec=SPEC, required_if=[("state", "present", ["price_cap"])])


if __name__ == "__main__":
    main()
