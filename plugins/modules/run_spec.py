#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_spec
short_description: Read and check a run spec
version_added: 0.1.0
description:
  - Reads the YAML file that describes one training job, checks it and hashes it together with its code tree.
  - Returns the fact C(run_spec), which every role of this collection starts from.
  - Works on the controller and touches no box.
options:
  path:
    description:
      - Path of the run spec, as given or below the current folder, the playbook's or the inventory's.
    type: str
    required: true
  project:
    description: The project, usually V(tenant_project).
    type: str
    required: true
  state_dir:
    description: The state store, usually V(tenant_state_dir). Only read.
    type: path
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Read the run spec
  tenant.gpu.run_spec:
    path: "{{ tenant_run }}"
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
"""

RETURN = r"""
ansible_facts:
  description: The fact that the roles read.
  returned: success
  type: dict
  contains:
    run_spec:
      description:
        - The run spec with every default filled in, C(code_files), C(code_exclude), C(code_sha256) and C(spec_sha256).
        - C(finished) is the complete receipt of this very spec, or null.
      type: dict
"""
