#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: reboot_hook
short_description: Let a machine go on with its runs when it starts again
version_added: 0.1.0
description:
  - Has the machine run C(bin/resume-all) below O(tenant_root) at each start, by a unit of systemd or by a line of cron.
  - That program does nothing where nothing is deployed, on hold or sealed.
  - A platform that runs a script at each start by itself (vast.ai's onstart) does not need it.
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: path
    required: true
  state:
    description: Whether the hook is there.
    type: str
    choices: [present, absent]
    default: present
  hook:
    description:
      - What starts it. V(auto) takes systemd where it is the init and lets units of this user live without a login,
        else cron, else nothing and says so.
      - V(systemd) and V(cron) fail where they cannot be used.
    type: str
    choices: [auto, cron, systemd]
    default: auto
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
- name: Go on after a reboot
  tenant.gpu.reboot_hook:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
"""

RETURN = r"""
hook:
  description: What runs it; empty where nothing does.
  returned: success
  type: str
  sample: systemd
why:
  description: Why nothing does, where something was asked for.
  returned: success
  type: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import reboot_hook
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure


def define_module() -> AnsibleModule:
    return AnsibleModule(
        argument_spec={
            "tenant_root": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "hook": {"type": "str", "choices": ["auto", "cron", "systemd"], "default": "auto"},
        },
        supports_check_mode=True,
    )


def main() -> None:
    module = define_module()
    try:
        result = reboot_hook.act(module.params, module.check_mode)
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
