# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_instance_info
short_description: Show the instances of a project on Lambda, and what bills beside them
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Lists the instances that carry the project's stamp, found from the provider alone, with what they cost, and the file
    systems of the account, which bill whether an instance uses them or none.
  - Instances without a stamp are counted, not shown.
  - A malformed answer is an error, never an empty list. Lambda's list tells no total, so that a part of it looks like
    the whole; that an instance is not listed does not say that it is gone.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.lambda_cloud
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.actiongroup_lambda
options:
  project:
    description: Only instances of this project. If not set, the instances of every project.
    type: str
  name:
    description: Only the instances of this name. Needs O(project).
    type: str
seealso:
  - module: tenant.gpu.lambda_instance
"""

EXAMPLES = r"""
- name: Show every instance of the project
  tenant.gpu.lambda_instance_info:
    project: digits
  delegate_to: localhost
  register: fleet

- name: Show what runs and what it costs
  ansible.builtin.debug:
    msg: "{{ item.name }} g{{ item.generation }} is {{ item.status }}, ${{ item.price_per_hour }}/h"
  loop: "{{ fleet.instances }}"
"""

RETURN = r"""
instances:
  description: The instances, by project, name and generation; of one name the one that counts comes first.
  returned: success
  type: list
  elements: dict
  contains:
    provider_id:
      description: The instance's id.
      type: str
      sample: 0920582c7ff041399e34823a0be62549
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
      description: Whether it is the instance that counts. Others of the same name are superseded.
      type: bool
    state:
      description: loading, running, offline (unhealthy) or unknown.
      type: str
    status:
      description: The provider's own word - booting, active, unhealthy, terminating or preempted.
      type: str
    alert:
      description: Whether it is unhealthy, which the console calls Alert. It bills all the same.
      type: bool
    host:
      description: SSH host, checked against a strict pattern; empty while there is none.
      type: str
    instance_type:
      description: Lambda's name of its type.
      type: str
    region:
      description: Where it is.
      type: str
    price_per_hour:
      description: Dollars an hour.
      type: float
    clocks:
      description: What is billed.
      type: dict
unstamped:
  description: Number of instances of the account that are not ours.
  returned: success
  type: int
file_systems:
  description: >-
    The account's file systems - C(id), C(name), C(region), C(mount_point), C(in_use), C(gib), C(price_per_hour).
  returned: success
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.lambda_cloud.desired import list_vms
from ..module_utils.lambda_cloud.options import client_of, run_module

SPEC = {"project": {"type": "str"}, "name": {"type": "str"}}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    return list_vms(client_of(options), options["project"], options["name"])


def main() -> None:
    run_module(act, argument_spec=SPEC, required_by={"name": "project"})


if __name__ == "__main__":
    main()
