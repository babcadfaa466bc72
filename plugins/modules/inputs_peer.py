#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inputs_peer
short_description: The far end of a fetch of inputs
version_added: 0.1.0
description:
  - What P(tenant.gpu.inputs#module) asks of the box. Use that one.
options:
  tenant_root:
    description: The supervisor's folder on the box.
    type: path
    required: true
  pyz:
    description: The supervisor program on the box, by default the one that the box itself uses at its start.
    type: path
  state:
    description:
      - V(looked) says what would be fetched, V(fetched) starts the fetch or adopts a living one and waits O(wait_s) for
        it, V(awaited) only waits.
    type: str
    choices: [looked, fetched, awaited]
    required: true
  order:
    description: What to fetch, and how patiently.
    type: dict
    required: true
  urls:
    description: A presigned URL for each input, by its C(dest), that cannot be had by its own address.
    type: dict
  wait_s:
    description: How long to wait for the end.
    type: float
    default: 0
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Wait for a fetch that is under way
  tenant.gpu.inputs_peer:
    tenant_root: /workspace/gpu-tenant
    state: awaited
    order:
      inputs: "{{ ansible_facts['run_spec']['inputs'] }}"
    wait_s: 20
"""

RETURN = r"""
inputs:
  description: How far the fetch is, as of P(tenant.gpu.inputs#module).
  returned: success
  type: dict
"""

import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import inputs_task
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure


def define_module() -> AnsibleModule:
    return AnsibleModule(
        argument_spec={
            "tenant_root": {"type": "path", "required": True},
            "pyz": {"type": "path"},
            "state": {"type": "str", "choices": ["looked", "fetched", "awaited"], "required": True},
            "order": {"type": "dict", "required": True},
            "urls": {"type": "dict", "no_log": True},
            "wait_s": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )


def main() -> None:
    module = define_module()
    try:
        result = inputs_task.act(
            module.params,
            lambda argv, text: module.run_command(argv, data=text),
            sys.executable,
            module.check_mode,
        )
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
