#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inputs
short_description: Have a rented box fetch and prove the inputs of a run
version_added: 0.1.0
description:
  - The box fetches its inputs itself, once, with the supervisor's own program and nothing else. The fetch is detached,
    so that it survives a lost connection and goes on after a reboot, inside the file where it was cut.
  - A file is an input only when its hash is the promised one. C(https) and C(s3) inputs are proven by their SHA-256,
    repositories of Hugging Face by the hashes that the Hub keeps for the commit.
  - Files are kept once under their hash and linked into a folder of their own for each list of inputs, which the
    trainer finds in E(TENANT_INPUTS_DIR). They cannot be written there, and one that was changed nevertheless keeps the
    next cell from starting.
  - For C(s3) inputs the controller makes presigned URLs, so that no key of the account reaches the box.
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: path
    required: true
  inputs:
    description: The inputs as M(tenant.gpu.run_spec) returns them.
    type: list
    elements: dict
    required: true
  pyz:
    description: The supervisor program on the box, by default the one that the box itself uses at its start.
    type: path
    default: ""
  env:
    description: Environment for the fetch, over what M(tenant.gpu.mirror_select) chose on the box.
    type: dict
    default: {}
  env_file:
    description: File on the box that holds the secrets which inputs name.
    type: path
    default: ""
  proxy_hook:
    description: Shell file on the box that sets proxy variables, or the URL of a proxy.
    type: str
    default: ""
  object_store:
    description: How the store of C(s3) inputs is reached, the O(tenant.gpu.checked_sync#module:object_store) option.
    type: dict
    default: {}
  limits:
    description: C(min_free_bytes) and C(min_free_inodes) that must be left when everything is there.
    type: dict
    default: {}
  deadline_s:
    description: The fetch ends after this many seconds. The same task then goes on.
    type: float
    default: 21600
  stall_s:
    description: A connection that brings nothing, or hardly anything, for this long is given up for a new one.
    type: float
    default: 60
  tries:
    description: Tries in a row that may bring nothing before a file is given up.
    type: int
    default: 12
  connections:
    description: Files that are fetched at the same time.
    type: int
    default: 4
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Says what would be fetched; nothing is asked of the sources.
  diff_mode:
    support: full
  idempotent:
    support: full
    description: Inputs that are proven are not fetched again, and a fetch that is under way is adopted.
seealso:
  - module: tenant.gpu.inputs_info
  - module: tenant.gpu.supervisor
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Have the box fetch what the run needs
  tenant.gpu.inputs:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    inputs: "{{ ansible_facts['run_spec']['inputs'] }}"
    env: {HF_ENDPOINT: "https://hub.example.org"}
    deadline_s: 7200
"""

RETURN = r"""
inputs:
  description: How far the fetch is.
  returned: success
  type: dict
  contains:
    state:
      description: V(proven), or with check mode V(absent), V(fetching), V(interrupted) or V(failed).
      type: str
    set:
      description: Names this list of inputs by what they are.
      type: str
    folder:
      description: Where they lie on the box.
      type: str
    files:
      description: Files that are proven, of C(files_total).
      type: int
    bytes:
      description: Their size, of C(bytes_total) where every size is known.
      type: int
    fetched_bytes:
      description: What came over the wire in the last fetch.
      type: int
    why:
      description: Why they are not proven.
      type: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
