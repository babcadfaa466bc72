#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: copy_info
short_description: Re-read promised files below a folder, and say through which kernel and mount
version_added: 0.1.0
description:
  - Hashes every promised file where it lies. Changes nothing.
  - P(tenant.gpu.copy_reading#module) asks it on a machine that did not write the files.
options:
  root:
    description: The folder that the paths are relative to.
    type: path
    required: true
  files:
    description: The promised files, each with C(path), C(bytes) and C(sha256).
    type: list
    elements: dict
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Re-read one file of a durable mount
  tenant.gpu.copy_info:
    root: /root/autodl-fs/vision/digits/g1
    files:
      - path: c1/a1/out/model.pt
        bytes: 5
        sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
"""

RETURN = r"""
problems:
  description: Every promise that is not kept, in words. Empty when the files are whole.
  returned: success
  type: list
  elements: str
boot_id:
  description: The running kernel's own id.
  returned: success
  type: str
device:
  description: The device number of the mount that O(root) lies on.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import copy_reading
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.roster import BadManifest


def main() -> None:
    spec = {
        "root": {"type": "path", "required": True},
        "files": {"type": "list", "elements": "dict", "required": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **copy_reading.read_here(module.params["root"], module.params["files"]))
    except BadManifest as error:
        failure = TenantFailure("config", str(error), safe="Nothing was read", fix="Give the files of a manifest")
        module.fail_json(**failure.as_result())


if __name__ == "__main__":
    main()
