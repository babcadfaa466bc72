#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: receipt_info
short_description: Say whether the receipt of a finished run still stands
version_added: 0.1.0
description:
  - Asks a sealed box, in one remote execution, for the digest of what it promises of the run and for what stays on it,
    hashes every file at home, and reads the receipt's copies elsewhere again. It lists, copies and loads nothing.
  - The receipt stands when all of them, the manifest beside the results and the level agree, and nothing else lies
    there.
  - What cannot be told so does not stand. Harvest it then, which says what is wrong, or puts it right. A run that has
    parts on several boxes is always such a case.
options:
  run_id:
    description: The run.
    type: str
    required: true
  root:
    description: Folder on the controller that the run's results lie in.
    type: path
    required: true
  tenant_root:
    description: Folder on the box that holds everything of ours.
    type: path
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.action_plugin
  - tenant.gpu.box_identity
  - tenant.gpu.load_checks
seealso:
  - module: tenant.gpu.receipt
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: See whether all that the box promises is home and right
  tenant.gpu.receipt_info:
    project: "{{ tenant_project }}"
    run_id: digits-1
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    state_dir: "{{ tenant_state_dir }}"
    root: "{{ tenant_results_dir }}/{{ tenant_project }}/digits-1/{{ inventory_hostname }}/g1"
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
  register: digits_home
"""

RETURN = r"""
stands:
  description: Whether the receipt says what the box promises, and every file is as the receipt says.
  returned: success
  type: bool
why:
  description: What does not agree, or cannot be told so; empty when the receipt stands.
  returned: success
  type: str
"""
