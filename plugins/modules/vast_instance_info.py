# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_instance_info
short_description: Show the boxes of a project on vast.ai
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Lists the boxes that carry the project's stamp, found from the provider alone, with their prices, what was billed
    for them so far, and what goes on billing.
  - Instances without a stamp are counted, not shown.
  - A partial or malformed answer is an error, never an empty list.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.vast
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.actiongroup_vast
options:
  project:
    description: Only boxes of this project. If not set, the boxes of every project.
    type: str
  name:
    description: Only the box of this name. Needs O(project).
    type: str
  state_dir:
    description:
      - The state store (C(tenant_state_dir)). If given, RV(instances[].record) says what it knows of each box.
    type: path
  charges:
    description: Whether to ask what was billed for each box.
    type: bool
    default: true
seealso:
  - module: tenant.gpu.vast_instance
"""

EXAMPLES = r"""
- name: Show every box of the project
  tenant.gpu.vast_instance_info:
    project: digits
  delegate_to: localhost
  register: fleet

- name: Show what runs and what it costs
  ansible.builtin.debug:
    msg: "{{ item.name }} g{{ item.generation }} is {{ item.state }}, ${{ item.price_per_hour }}/h"
  loop: "{{ fleet.instances }}"
"""

RETURN = r"""
instances:
  description: The boxes, by project, name and generation; of one name the box that counts comes first.
  returned: success
  type: list
  elements: dict
  contains:
    provider_id:
      description: The instance's id.
      type: str
      sample: "20000123"
    project:
      description: The project in its stamp.
      type: str
    name:
      description: The box in its stamp.
      type: str
    generation:
      description: Its generation.
      type: int
    is_current:
      description: Whether it is the box that counts. Others of the same name are superseded.
      type: bool
    state:
      description: loading, running, stopped, outbid, scheduling, exited, offline or unknown.
      type: str
    host:
      description: SSH host, empty while there is none.
      type: str
    port:
      description: SSH port.
      type: int
    user:
      description: SSH login.
      type: str
    price_per_hour:
      description: Compute and disk, dollars an hour.
      type: float
    billed:
      description: Dollars billed so far, in all and by kind; null when the provider does not say yet.
      type: dict
    clocks:
      description: What is billed in each state, and when the rental ends.
      type: dict
    record:
      description:
        - The state store's record of the box, with C(admitted_at), C(deploy_started_at), C(parked_at) and C(rejected).
        - Null when it has none.
      returned: when O(state_dir) is given
      type: dict
unstamped:
  description: Number of instances of the account that are not ours.
  returned: success
  type: int
credit:
  description: Credit left on the account in dollars, null when the provider does not say.
  returned: when O(charges) is true
  type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.vast.inventory import list_boxes
from ..module_utils.vast.options import client_of, run_module, store_of

SPEC = {
    "project": {"type": "str"},
    "name": {"type": "str"},
    "state_dir": {"type": "path"},
    "charges": {"type": "bool", "default": True},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    store = store_of(options)
    return list_boxes(client_of(options), options["project"], options["name"], options["charges"], store)


def main() -> None:
    run_module(act, argument_spec=SPEC, required_by={"name": "project"})


if __name__ == "__main__":
    main()
