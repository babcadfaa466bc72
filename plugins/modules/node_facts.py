#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_facts
short_description: Show what decides whether a box may train together with others
version_added: 0.1.0
description:
  - Reads, on one box of a run with C(nodes), what is deployed, whether it would start, which Python, torch and packages
    the trainer will see, which network interface carries the box's own address, and how far its clock is off.
  - Whether the boxes fit together is decided by M(tenant.gpu.node_group).
options:
  tenant_root:
    description: The supervisor's folder on the box.
    type: path
    required: true
  run_id:
    description: The run.
    type: str
    required: true
  address:
    description: The address by which the other boxes reach this one. It must be one of the box itself.
    type: str
    required: true
  interface:
    description: The network interface that the run spec names; empty to find the one that carries O(address).
    type: str
    default: ""
  code_files:
    description: C(path) and C(sha256) of each file that was deployed; each is read again on the box.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.action_plugin
seealso:
  - module: tenant.gpu.node_group
  - module: tenant.gpu.node_proof
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Look at the box
  tenant.gpu.node_facts:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    run_id: digits
    address: 10.0.0.11
    code_files: "{{ ansible_facts['run_spec']['code_files'] }}"
  register: node_look
"""

RETURN = r"""
node:
  description: What the box shows.
  returned: success
  type: dict
  contains:
    spec_sha256:
      description: The spec that is registered, empty when the run is not.
      type: str
    state:
      description: State of the run on this box, V(absent) when it is not registered.
      type: str
    live:
      description: Whether a cell of the run lives.
      type: bool
    launch:
      description: The launch that is in force, null without one.
      type: dict
    refusals:
      description: Why this box would not start a cell now, one sentence each.
      type: list
      elements: str
    code_problem:
      description: How the code on the disk differs from what was deployed; empty when it does not.
      type: str
    environment:
      description: C(python), C(torch), C(cuda), C(nccl) and C(packages) (name to version) of the Python that trains.
      type: dict
    environment_problem:
      description: Why torch cannot be used; empty when it can.
      type: str
    address:
      description: The address, as given.
      type: str
    interface:
      description: The network interface that carries the address; empty when none is known to.
      type: str
    network_problem:
      description: Why the other boxes cannot be met there; empty when nothing speaks against it.
      type: str
    clock_skew_s:
      description: Seconds by which the clock of the box is ahead of the controller's.
      type: float
    clock_uncertainty_s:
      description: How wrong the skew may be.
      type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.node_look import look

ARGUMENT_SPEC = {
    "tenant_root": {"type": "path", "required": True},
    "run_id": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "interface": {"type": "str", "default": ""},
    "code_files": {"type": "list", "elements": "dict", "default": []},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(changed=False, node=look(**module.params))
    except (RecordError, Refused) as error:
        fix = error.fix if isinstance(error, Refused) else "run the deploy playbook again"
        failure = TenantFailure("config", str(error), safe="nothing was started", fix=fix)
        module.fail_json(**failure.as_result())


if __name__ == "__main__":
    main()
