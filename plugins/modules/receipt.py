#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: receipt
short_description: Record that the results of a run are home, whole, and load
version_added: 0.1.0
description:
  - Works on the controller and touches no box. It withdraws the old receipt, hashes every file of the manifest where it
    lies, loads every file that has a loader, and only then writes the new receipt.
  - A standing receipt for the same manifest, level and run state is kept when every file still hashes right.
  - The gate asks for a complete receipt of every run before anything irreversible. A receipt is complete when the
    run is done, the manifest is not a snapshot and lists files, and its files were loaded, not only looked at.
  - Nothing in the files is executed.
options:
  project:
    description: The project, usually V(tenant_project).
    type: str
    required: true
  run_id:
    description: The run.
    type: str
    required: true
  box:
    description: The box, usually V(inventory_hostname).
    type: str
    required: true
  generation:
    description: The generation of the box.
    type: int
    required: true
  provider_id:
    description: The provider's own id of the machine.
    type: str
    required: true
  state_dir:
    description: The state store, usually V(tenant_state_dir).
    type: path
    required: true
  root:
    description: Folder on the controller that the manifest's files lie in.
    type: path
    required: true
  manifest:
    description: The manifest's file on the controller. C(manifest.json) in O(root) when not given.
    type: path
  run_state:
    description: The supervisor's word for the run. Only V(done) makes a receipt complete.
    type: str
    default: unknown
  snapshot:
    description: Whether this is a copy of a live run. Such a receipt is never complete.
    type: bool
    default: false
  how:
    description: How the copy was made.
    type: str
    choices: [pulled, reread]
    default: pulled
  provenance:
    description: What made the results, such as code, config, seed, platform, driver, torch and cost. Never a secret.
    type: dict
    default: {}
  not_pulled:
    description: What was left behind, in words, so that nobody has to guess.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
  - tenant.gpu.load_checks
attributes:
  check_mode:
    support: full
    description: Verifies everything and writes nothing.
  diff_mode:
    support: full
    description: Shows what the old and the new receipt say.
  idempotent:
    support: full
    description: A standing receipt whose files hash right is kept as it is.
seealso:
  - module: tenant.gpu.checked_sync
  - module: tenant.gpu.teardown_gate
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Record that the run is home
  tenant.gpu.receipt:
    project: "{{ tenant_project }}"
    run_id: digits-1
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    state_dir: "{{ tenant_state_dir }}"
    root: "{{ tenant_results_dir }}/{{ tenant_project }}/digits-1/{{ inventory_hostname }}/g1"
    run_state: done
"""

RETURN = r"""
receipt:
  description: The receipt in force, or in check mode the one that would be written.
  returned: success
  type: dict
"""
