#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: resume_checkpoint
short_description: Find the checkpoints at home that a new box should go on from
version_added: 0.1.0
description:
  - Looks through the results of every box and generation of a run and returns, for each cell, the newest checkpoint
    whose hash is that of its manifest and whose structure is sound.
  - Works on the controller and touches no box.
options:
  results_dir:
    description: Where results are brought home, usually V(tenant_results_dir).
    type: path
    required: true
  project:
    description: The project, usually V(tenant_project).
    type: str
    required: true
  run_id:
    description: The run.
    type: str
    required: true
  name:
    description: The box that will go on. What came from this very box and generation is left out.
    type: str
    required: true
  generation:
    description: The generation of the box.
    type: int
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Find what the new box should go on from
  tenant.gpu.resume_checkpoint:
    results_dir: "{{ tenant_results_dir }}"
    project: "{{ tenant_project }}"
    run_id: "{{ ansible_facts['run_spec']['id'] }}"
    name: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
  register: __deploy_resume
"""

RETURN = r"""
checkpoints:
  description: At most one checkpoint for each cell.
  returned: success
  type: list
  elements: dict
  contains:
    cell:
      description: The cell.
      type: str
    step:
      description: The training step that the checkpoint was saved at.
      type: int
    name:
      description: File name.
      type: str
    folder:
      description: Folder on the controller.
      type: str
    bytes:
      description: Size.
      type: int
    sha256:
      description: Hash of the file, read again now.
      type: str
"""
