#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_proof
short_description: Prove that boxes reach each other and sum a tensor together
version_added: 0.1.0
description:
  - One box's side of a proof that all boxes of a run take part in at the same time, in the Python that trains and with
    the network settings of the run.
  - The box of rank 0 listens on the rendezvous port, every other one connects to it, then all do a small all-reduce.
  - Every step has a deadline. What fails is a result, not a failure; M(tenant.gpu.node_group) judges the results of
    all boxes.
  - The boxes wait for each other, so run it with C(async), or with more forks than the run has boxes.
options:
  tenant_root:
    description: The supervisor's folder on the box.
    type: path
    required: true
  run_id:
    description: The run.
    type: str
    required: true
  request:
    description: Rank, world, port and so on, as M(tenant.gpu.node_group) gives it.
    type: dict
    required: true
  environment:
    description: The environment of the launch.
    type: dict
    default: {}
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: none
    description: The proof opens a port and connections.
  diff_mode:
    support: none
    description: There is nothing to show.
  idempotent:
    support: full
    description: Changes nothing.
seealso:
  - module: tenant.gpu.node_group
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Prove that the boxes can train together
  tenant.gpu.node_proof:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    run_id: digits
    request: "{{ node_group.request }}"
    environment: "{{ node_group.launch.env }}"
  async: 120
  poll: 0
  register: node_proof_job
"""

RETURN = r"""
proof:
  description: What came of it.
  returned: success
  type: dict
  contains:
    problem:
      description: Why the proof failed here; empty when it did not.
      type: str
    waited:
      description: Whether another box is to blame.
      type: bool
    port_s:
      description: Seconds until every box had come to the port.
      type: float
    reduce_ms:
      description: Milliseconds of the fastest all-reduce of 16 KiB.
      type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.node_proof import prove

ARGUMENT_SPEC = {
    "tenant_root": {"type": "path", "required": True},
    "run_id": {"type": "str", "required": True},
    "request": {"type": "dict", "required": True},
    "environment": {"type": "dict", "default": {}},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=False)
    try:
        module.exit_json(changed=False, proof=prove(**module.params))
    except RecordError as error:
        failure = TenantFailure("config", str(error), safe="nothing was started", fix="run the deploy playbook again")
        module.fail_json(**failure.as_result())


if __name__ == "__main__":
    main()
