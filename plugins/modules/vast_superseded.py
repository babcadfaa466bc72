# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_superseded
short_description: Deal with the boxes that a later box of the same name replaced on vast.ai
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - A box is superseded when a later generation of its name was rented and admitted. It still bills, and it may still
    hold results.
  - Each is told to stop at once, which keeps its disk and can be undone. Within 24 hours after its successor was
    admitted it is to be harvested and destroyed.
  - With O(state=absent) those past that deadline are destroyed where the evidence gate, asked here on records re-read
    now, lets them go. What it refuses stays, and RV(boxes) and a warning say why.
  - What cannot be done to one box is told; it fails neither the task nor the other boxes.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.vast
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_vast
  - tenant.gpu.attributes.rental_action
attributes:
  check_mode:
    support: full
    details:
      - The gate judges each box as it is, so one that would first be stopped may be let go later than predicted.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  project:
    description: The project that the boxes belong to.
    type: str
    required: true
  name:
    description: The name that they share with the box that counts; the inventory host.
    type: str
    required: true
  state:
    description:
      - V(parked) stops them.
      - V(absent) also destroys those past their deadline, each through the gate.
    type: str
    choices: [parked, absent]
    default: parked
  state_dir:
    description: The state store (C(tenant_state_dir)), where box records, journal, receipts and approvals are.
    type: path
    required: true
  verb_keeps:
    description:
      - What each verb keeps, as in the profile's C(platform_verbs), or plainly a dictionary of verb to list of tiers.
      - It can only narrow what this market is known to keep, and so make the gate stricter.
    type: dict
    default: {}
  wait_s:
    description: Seconds that a stop, and the end of a box, may take.
    type: int
    default: 300
seealso:
  - module: tenant.gpu.vast_instance
  - module: tenant.gpu.vast_copy
"""

EXAMPLES = r"""
- name: Stop what a later box replaced, and end what is overdue where the gate lets it go
  tenant.gpu.vast_superseded:
    project: "{{ tenant_project }}"
    name: "{{ inventory_hostname }}"
    state: absent
    state_dir: "{{ tenant_state_dir }}"
    verb_keeps: "{{ platform_verbs }}"
  delegate_to: localhost
"""

RETURN = r"""
boxes:
  description: The superseded boxes, the newest generation first.
  returned: success
  type: list
  elements: dict
  contains:
    provider_id:
      description: The instance's id.
      type: str
    generation:
      description: Its generation.
      type: int
    machine_id:
      description: The machine.
      type: int
    price_per_hour:
      description: Compute and disk, dollars an hour, while it runs.
      type: float
    state:
      description: V(absent) when it was destroyed, else the provider's word or V(stopped) when it was told to stop.
      type: str
    superseded_at:
      description: When its successor was admitted; null for a second box of one generation.
      type: str
    due:
      description: By when it is to be dealt with.
      type: str
    overdue:
      description: Whether that has passed.
      type: bool
    to_harvest:
      description: Whether it is overdue, rests, and holds something that is not known to be home.
      type: bool
    kept_because:
      description: What could not be done and why, in words; empty when it is gone.
      type: str
    gate:
      description: The C(rule) that let it go, C(approval_id) and C(approver); null while nothing did.
      type: dict
told:
  description: One sentence for each of them; those that are still there are warned of.
  returned: success
  type: list
  elements: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.vast.instance_options import account_of
from ..module_utils.vast.options import run_module
from ..module_utils.vast.superseded import PARKED, STATES, settle

SPEC = {
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(STATES), "default": PARKED},
    "state_dir": {"type": "path", "required": True},
    "verb_keeps": {"type": "dict", "default": {}},
    "wait_s": {"type": "int", "default": 300},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    wanted = (options["project"], options["name"], options["state"], float(options["wait_s"]))
    result = settle(account_of(options), *wanted, check_mode=module.check_mode)
    for box, sentence in zip(result["boxes"], result["told"]):
        if box["state"] != "absent":
            module.warn(sentence)
    return result


def main() -> None:
    run_module(act, argument_spec=SPEC)


if __name__ == "__main__":
    main()
