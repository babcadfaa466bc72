#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: harvest_policy
short_description: Choose what of a run comes home and what stays on the box
version_added: 0.1.0
description:
  - Without a choice, everything in a run's roster comes home. This module records another choice on the box, where the
    manifest and the seal are made, so that a receipt for the rest is complete and says what was left.
  - What is left on the box is lost with it. Receipts list it under C(not_pulled).
  - The choice is settled once the box is sealed. Another one is then refused.
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: path
    required: true
  run_id:
    description: The run.
    type: str
    required: true
  roles:
    description: Roles of artifacts that come home, any of V(checkpoint), V(metrics), V(log) and V(other).
    type: list
    elements: str
    default: [checkpoint, metrics, log, other]
  exclude:
    description:
      - Globs of files that stay on the box, relative to the folder C(out) of an attempt. V(*) stays within a folder,
        V(**) spans folders.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
    description: Says what would be recorded.
  diff_mode:
    support: full
    description: Shows the choice before and after.
  idempotent:
    support: full
    description: The same choice is recorded once.
seealso:
  - module: tenant.gpu.manifest
  - module: tenant.gpu.receipt
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Leave optimizer shards and logs on the box
  tenant.gpu.harvest_policy:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    run_id: llama
    roles: [checkpoint, metrics, other]
    exclude: ["checkpoints/**/optimizer*"]
"""

RETURN = r"""
policy:
  description: The choice in force, C(roles) and C(exclude).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.harvest_policy_task import choose_policy

ROLES = ["checkpoint", "metrics", "log", "other"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tenant_root": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "roles": {"type": "list", "elements": "str", "default": ROLES},
            "exclude": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**choose_policy(module.params, module.check_mode))
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())


if __name__ == "__main__":
    main()
