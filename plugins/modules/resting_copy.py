#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: resting_copy
short_description: Read, and at the end delete, the copied records of a box at rest
version_added: 0.1.0
description:
  - Works on the box that holds the copy of a stopped one, made by M(tenant.gpu.vast_copy) with C(at_rest).
  - With O(state=read) the seal is read from the copied records and kept in the state store as the seal reading of the
    box at rest. A box that was never sealed cannot write while the provider says that it is stopped, so its copy is
    sealed in its place, with the manifests of what is there. The reading says so, and is as old as the request for
    the copy.
  - Nothing from the copy is executed, and secrets of runs that came along are deleted first. Links that lead out of it
    and files that are no plain files are refused. A copy that is not whole fails by name where a finished cell promised
    the file.
  - With O(state=absent) the copy is deleted, once a receipt for every run that it holds was re-read together with its
    copies, and the paths and sizes are journalled. The original stays on the box at rest until its own teardown.
options:
  tenant_root:
    description: The folder on this box that its supervisor's folder was copied to.
    type: path
    required: true
  state:
    description: Whether to read the copy or to delete it.
    type: str
    choices: [read, absent]
    default: read
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.box_identity
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Keeps no reading and deletes nothing.
  diff_mode:
    support: full
    description: Shows what was deleted.
  idempotent:
    support: full
seealso:
  - module: tenant.gpu.vast_copy
  - module: tenant.gpu.manifest
  - module: tenant.gpu.teardown_gate
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Read the seal of the stopped box from its copy
  tenant.gpu.resting_copy:
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    tenant_root: /workspace/gpu-tenant-harvest/bert-a.g2
    state_dir: "{{ tenant_state_dir }}"
  delegate_to: bert-b

- name: Delete the copy once its runs are home
  tenant.gpu.resting_copy:
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    tenant_root: /workspace/gpu-tenant-harvest/bert-a.g2
    state_dir: "{{ tenant_state_dir }}"
    state: absent
  delegate_to: bert-b
"""

RETURN = r"""
runs:
  description: The runs that the seal names, each with C(run_id), C(spec_sha256), C(state) and C(manifest_digest).
  returned: with O(state=read)
  type: list
  elements: dict
sealed_by:
  description:
    - V(supervisor) when the box was sealed before it was stopped, V(controller) when its copy was sealed in its place.
  returned: with O(state=read)
  type: str
problems:
  description: Records in the copy that cannot be trusted, and artifacts written after the seal. They shut the gate.
  returned: with O(state=read)
  type: list
  elements: str
not_home:
  description: Why the copy was kept, for each run that is not home. Empty when it was deleted.
  returned: with O(state=absent)
  type: list
  elements: str
files:
  description: How many files were deleted.
  returned: with O(state=absent)
  type: int
bytes:
  description: How many bytes they had.
  returned: with O(state=absent)
  type: int
listed:
  description: The first thousand of them, each with C(path) and C(bytes).
  returned: with O(state=absent)
  type: list
  elements: dict
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import copied_records
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

IDENTITY = ("project", "box", "generation", "provider_id")


def define_module() -> AnsibleModule:
    """The part that runs where the copy is; the action plugin of this name has the part of the state store."""
    return AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "box": {"type": "str", "required": True},
            "generation": {"type": "int", "required": True},
            "provider_id": {"type": "str", "required": True},
            "tenant_root": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["read", "absent"], "default": "read"},
            "state_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )


def main() -> None:
    module = define_module()
    params = module.params
    try:
        if params["state"] == "read":
            module.exit_json(changed=False, **copied_records.examine(params["tenant_root"]))
        identity = {key: params[key] for key in IDENTITY}
        module.exit_json(**copied_records.remove(params["tenant_root"], identity, module.check_mode))
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())
    except (RecordError, OSError) as error:
        module.fail_json(**TenantFailure("evidence_missing", str(error)).as_result())


if __name__ == "__main__":
    main()
