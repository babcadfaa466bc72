#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: held_files
short_description: Let go of what a snapshot held of a living run
version_added: 0.1.0
description:
  - M(tenant.gpu.manifest) with O(tenant.gpu.manifest#module:snapshot) holds the files of a run that trains on by hard
    links, so that none disappears while they are copied. Once they are home, nothing needs to be held any more, and a
    checkpoint that the trainer has removed meanwhile gives its space back.
options:
  tenant_root:
    description: Where everything of ours lies on the box.
    type: path
    required: true
  run_id:
    description: The run.
    type: str
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    description: What is held are further names of files that stay where they are.
  idempotent:
    support: full
seealso:
  - module: tenant.gpu.manifest
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Let go of what was held for the copy
  tenant.gpu.held_files:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    run_id: digits
"""

RETURN = r"""
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
