#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: seal_info
short_description: Read a box's seal, its index of runs, and what lives on it
version_added: 0.1.0
description:
  - Reads on the box whether its supervisor sealed it, whether anything was written since, which runs it knows, how far
    they got and which cells live. Changes nothing.
  - P(tenant.gpu.teardown_gate#module) asks it. A box without a supervisor has neither seal nor index.
options:
  tenant_root:
    description: The supervisor's folder on the box.
    type: path
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Read the seal
  tenant.gpu.seal_info:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
"""

RETURN = r"""
seal:
  description: The seal, or nothing when the box is not sealed.
  returned: success
  type: dict
index:
  description: The index of runs, or nothing before the first one.
  returned: success
  type: dict
live_cells:
  description: Attempts whose processes live, as C(run/cell/attempt).
  returned: success
  type: list
  elements: str
unlisted_runs:
  description: Folders of runs that the index does not list.
  returned: success
  type: list
  elements: str
checkpoints:
  description: How far each cell got, C(step) and C(done) per run and cell, by the names of its checkpoints.
  returned: success
  type: dict
durable:
  description: Device numbers of the durable mounts that the box writes to.
  returned: success
  type: list
  elements: int
boot_id:
  description: The running kernel's own id.
  returned: success
  type: str
problems:
  description: Records that are there and cannot be trusted, and artifacts that changed after the box was sealed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import seal_reading


def main() -> None:
    module = AnsibleModule(argument_spec={"tenant_root": {"type": "path", "required": True}}, supports_check_mode=True)
    module.exit_json(changed=False, **seal_reading.read_box(module.params["tenant_root"]))


if __name__ == "__main__":
    main()
