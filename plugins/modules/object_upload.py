#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: object_upload
short_description: The box's part in bringing files into an object store
version_added: 0.1.0
description:
  - What P(tenant.gpu.checked_sync#module) asks of the box with O(tenant.gpu.checked_sync#module:direction=store). Use
    that one.
  - Hashes ranges of files, and sends ranges of files to presigned URLs over several connections. Thousands of files
    cost one call.
  - The box gets no key of the store. Each URL admits one request for one object until it expires, and whoever reads
    it may send that request, so the order is kept out of every log.
options:
  order:
    description: A JSON object with the folder, the ranges to hash, and the ranges to send with their URLs.
    type: str
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
    description: Hashes, and sends nothing.
  diff_mode:
    support: none
  idempotent:
    support: none
    description: What it is told to send is sent; P(tenant.gpu.checked_sync#module) asks only for what is missing.
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Hash the first MiB of a checkpoint
  tenant.gpu.object_upload:
    order: >-
      {"root": "/workspace/gpu-tenant/runs/digits", "hashes":
      [{"path": "c0/a1/out/model.pt", "offset": 0, "bytes": 1048576, "of": 4194304, "algorithm": "sha256"}]}
"""

RETURN = r"""
hashed:
  description: For each range to hash its C(digest), or C(kind) and C(problem).
  returned: success
  type: list
  elements: dict
sent:
  description: For each range to send its C(etag) and C(version_id), or C(kind) and C(problem).
  returned: success
  type: list
  elements: dict
whole:
  description: Files that are not what the roster says, each with C(path) and C(what).
  returned: success
  type: list
  elements: dict
"""

import dataclasses
import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import object_upload

# One text, not a list: each string of a list under no_log would be looked for in each string of the answer.
ARGUMENT_SPEC = {"order": {"type": "str", "required": True, "no_log": True}}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        order = object_upload.parse_order(json.loads(module.params["order"]))
    except ValueError as error:
        what = str(error) if isinstance(error, object_upload.BadOrder) else "the order is not JSON"
        module.fail_json(msg=f"{what}. Nothing was sent.")
    if module.check_mode:
        order = dataclasses.replace(order, sends=())
    answer = object_upload.carry_out(order)
    module.exit_json(changed=any("etag" in sent for sent in answer["sent"]), **answer)


if __name__ == "__main__":
    main()
