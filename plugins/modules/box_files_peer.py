#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_files_peer
short_description: The far end of small files that go to a box
version_added: 0.1.0
description:
  - What P(tenant.gpu.box_files#module) asks of the box. Use that one.
options:
  folders:
    description: Each folder with C(path) and C(mode).
    type: list
    elements: dict
    default: []
  files:
    description: Each file with C(path), C(mode) and C(sha256).
    type: list
    elements: dict
    required: true
  contents:
    description: Contents by path, compressed and in base64. A file that differs and has none is named in RV(wanting).
    type: dict
    default: {}
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
- name: Ask whether a program is there
  tenant.gpu.box_files_peer:
    files:
      - path: /workspace/gpu-tenant/bin/resume-all
        mode: "0755"
        sha256: 9b74c9897bac770ffc029102a200c5de1cf70f9bb9a5c4d4fb2c8f4ff0a4fe92
  check_mode: true
"""

RETURN = r"""
differing:
  description: Each folder or file that was not as wanted, with C(path), C(before) and its C(text) where it is short.
  returned: success
  type: list
  elements: dict
wanting:
  description: Files whose content has to be sent.
  returned: success
  type: list
  elements: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import box_files
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

ARGUMENT_SPEC = {
    "folders": {"type": "list", "elements": "dict", "default": []},
    "files": {"type": "list", "elements": "dict", "required": True},
    # No secret, but half a megabyte that neither the box's log nor the answer needs to repeat.
    "contents": {"type": "dict", "default": {}, "no_log": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = box_files.act(module.params, module.check_mode)
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
