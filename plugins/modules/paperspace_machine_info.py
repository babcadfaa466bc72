# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: paperspace_machine_info
short_description: Show the machines of a project on Paperspace, and what bills beside them
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Lists the machines that carry the project's stamp, found from the provider alone, with what they cost, and the
    static addresses, snapshots, shared drives and custom templates of the team, which bill whether a machine uses
    them or none.
  - Machines without a stamp are counted, not shown.
  - A malformed answer is an error, never an empty list. Paperspace's list tells no total, so that a part of it looks
    like the whole; that a machine is not listed does not say that it is gone.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.paperspace
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.actiongroup_paperspace
options:
  project:
    description: Only machines of this project. If not set, the machines of every project.
    type: str
  name:
    description: Only the machines of this name. Needs O(project).
    type: str
seealso:
  - module: tenant.gpu.paperspace_machine
"""

EXAMPLES = r"""
- name: Show every machine of the project
  tenant.gpu.paperspace_machine_info:
    project: digits
  delegate_to: localhost
  register: fleet

- name: Show what bills beside the machines
  ansible.builtin.debug:
    msg: "{{ item.kind }} {{ item.id }} ({{ item.state }}) bills ${{ item.price_per_hour }}/h"
  loop: "{{ fleet.leftovers }}"
"""

RETURN = r"""
machines:
  description: The machines, by project, name and generation; of one name the one that counts comes first.
  returned: success
  type: list
  elements: dict
  contains:
    provider_id:
      description: The machine's id.
      type: str
      sample: psm9u09bwu5i
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
      description: Whether it is the machine that counts. Others of the same name are superseded.
      type: bool
    state:
      description: loading, running, stopped or unknown.
      type: str
    status:
      description: The provider's own word, such as off, starting or ready.
      type: str
    host:
      description: SSH host, checked against a strict pattern; empty while there is none.
      type: str
    machine_type:
      description: Paperspace's name of its type.
      type: str
    region:
      description: Where it is.
      type: str
    public_ip_type:
      description: static, dynamic or none.
      type: str
    price_per_hour:
      description: Dollars an hour while it runs, disk and address included.
      type: float
    clocks:
      description: What is billed in each state, and after how many hours it is shut down.
      type: dict
unstamped:
  description: Number of machines of the team that are not ours.
  returned: success
  type: int
leftovers:
  description: >-
    What bills beside machines - C(kind) (static IP, snapshot, shared drive, custom template), C(id), C(name),
    C(state), C(price_per_hour) (null where the provider does not say), C(machine).
  returned: success
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.paperspace.desired import list_machines
from ..module_utils.paperspace.options import client_of, run_module

SPEC = {"project": {"type": "str"}, "name": {"type": "str"}}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    return list_machines(client_of(options), options["project"], options["name"])


def main() -> None:
    run_module(act, argument_spec=SPEC, required_by={"name": "project"})


if __name__ == "__main__":
    main()
