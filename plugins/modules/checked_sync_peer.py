#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: checked_sync_peer
short_description: The far end of a checked transfer
version_added: 0.1.0
description:
  - What P(tenant.gpu.checked_sync#module) asks of the box. Use that one; this module moves no bytes between machines.
  - V(offer) says what keeps files from being fetched, V(survey) hashes what is there and opens the staging folder,
    V(settle) hashes what arrived and moves it to its place.
options:
  op:
    description: What is asked.
    type: str
    required: true
    choices: [offer, survey, settle]
  root:
    description: Folder that the files belong in. An absolute path.
    type: path
    required: true
  files:
    description:
      - The roster. Each file has C(path), relative to O(root), C(bytes), C(sha256), and C(executable); with
        O(op=offer) the first two are enough.
    type: list
    elements: dict
    required: true
  within:
    description: Folder that O(root) must lie in, symlinks followed. Empty confines nothing.
    type: path
    default: ""
  inode_cap:
    description: The most files and folders that the mount of O(root) may hold, with O(op=survey). V(0) knows no cap.
    type: int
    default: 0
  aside:
    description: Extra files to move to the quarantine folder once nothing is missing, with O(op=settle).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
    description: Looks, and neither makes a folder nor moves a file.
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Ask what keeps a file from being fetched
  tenant.gpu.checked_sync_peer:
    op: offer
    root: /workspace/gpu-tenant/runs/digits
    files:
      - path: c0/a1/out/model.pt
        bytes: 4821
"""

RETURN = r"""
mismatches:
  description: Files that are not as they should be, each with C(path) and C(what).
  returned: with O(op=offer) and O(op=settle)
  type: list
  elements: dict
good:
  description: Paths that are right already.
  returned: with O(op=survey)
  type: list
  elements: str
extra:
  description: Paths that nobody promised.
  returned: with O(op=survey)
  type: list
  elements: str
room:
  description: Free bytes and inodes where the files will lie.
  returned: with O(op=survey)
  type: dict
staging:
  description: Folder that files are to be sent to.
  returned: with O(op=survey)
  type: str
settled:
  description: Paths that were right and now are in their place.
  returned: with O(op=settle)
  type: list
  elements: str
quarantine:
  description: Folder that extra files were moved to; empty when there were none.
  returned: with O(op=settle)
  type: str
rsync_problem:
  description: Why rsync cannot be used here; empty when it can.
  returned: with O(op=offer) and O(op=survey)
  type: str
python:
  description: The Python that answered.
  returned: with O(op=offer) and O(op=survey)
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import delivery, destination, roster
from ansible_collections.tenant.gpu.plugins.module_utils.delivery import answer

ARGUMENT_SPEC = {
    "op": {"type": "str", "required": True, "choices": ["offer", "survey", "settle"]},
    "root": {"type": "path", "required": True},
    # Not described further: thousands of files are parsed in one go, not option by option.
    "files": {"type": "list", "elements": "dict", "required": True},
    "within": {"type": "path", "default": ""},
    "inode_cap": {"type": "int", "default": 0},
    "aside": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = answer(module.params, module.check_mode)
    except (destination.BadDestination, delivery.UnsafeTree, roster.BadManifest, OSError) as error:
        module.fail_json(msg=f"{module.params['root']}: {error}. Nothing was put in its place.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
