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
    whose hashes are those of its manifest and whose structure is sound.
  - A sharded checkpoint (the folder C(step-<n>.dcp) that C(tenant_checkpoint.py) writes) counts when its own manifest
    and every file that this lists are home, from whichever boxes of the run they came.
  - A loop of one's own may save a step as several files, and the newest may have come home half saved. Earlier steps
    that have files which the later ones lack are returned behind it, whole, sixteen steps in all at most.
  - Where that checkpoint names another one as the best so far, the best is returned behind it, so that it outlives the
    boxes of its run.
  - Returns beside them the cells that are finished and whole at home, so that the new box need not run them again.
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
  spec_sha256:
    description:
      - Only checkpoints that this very spec has trained. Empty takes those of any spec under this run id, and no cell
        as finished.
    type: str
    default: ""
  parts:
    description: The boxes of a run that has a share on each. Only what O(name) itself has finished counts then.
    type: list
    elements: str
    default: []
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
    spec_sha256: "{{ ansible_facts['run_spec']['spec_sha256'] }}"
    parts: "{{ ansible_facts['run_spec']['parts'] }}"
  register: __deploy_resume
"""

RETURN = r"""
finished:
  description: Cells whose done record is home with every file that it promises, logs aside.
  returned: success
  type: list
  elements: dict
  contains:
    cell:
      description: The cell.
      type: str
    attempt:
      description: The folder of the attempt that finished it.
      type: str
    bytes:
      description: Size of all its files.
      type: int
    dest:
      description: Folder that they belong into, below the run's folder on the box.
      type: str
    shares:
      description: Where they lie on the controller, as in RV(checkpoints[].shares); the done record comes last.
      type: list
      elements: dict
checkpoints:
  description:
    - For each cell that is not finished the newest checkpoint, then those before it that complete it, and then the best
      so far.
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
      description: Name of the file, or of the folder of a sharded one.
      type: str
    best:
      description: Whether it is there because it is the best so far, and not to go on from.
      type: bool
    bytes:
      description: Size of all its files.
      type: int
    sha256:
      description: Hash of the file, of a sharded one that of its manifest, read again now.
      type: str
    dest:
      description: Folder that it belongs into, below the run's folder on the box.
      type: str
    files:
      description:
        - Its files as they will lie below the run's folder on the box, each with the loader that the run spec names for
          it, as M(tenant.gpu.verify_load) takes them.
      type: list
      elements: dict
    shares:
      description: Where its files lie on the controller, one entry for each box that they came from.
      type: list
      elements: dict
      contains:
        folder:
          description: Folder on the controller.
          type: str
        paths:
          description: Files in it that make up the checkpoint, each read again now.
          type: list
          elements: str
"""
