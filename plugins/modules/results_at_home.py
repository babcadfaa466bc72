#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: results_at_home
short_description: Find a finished run at home again when its receipt is lost
version_added: "0.1.0"
description:
  - For a run without a receipt whose box is gone, as after the loss of the state store. Where the results of this very
    run spec lie at home beside the manifest of a finished run, every file is hashed against it and every checkpoint
    loaded.
  - If all of them are right, the run counts as finished, and the roles rent, deploy and start nothing for it. A record
    of the proof is written that says what it is. It is no receipt, and opens no gate.
  - If they are not, a box that is not there is not rented. The module fails, says what lies at home, and what to do to
    have the run trained again.
  - A machine that is still there answers for its results itself, and a machine that the state store has a record of is
    not asked about; nothing is looked for then.
  - Works on the controller and touches no box.
options:
  project:
    description: The project, usually V(tenant_project).
    type: str
    required: true
  box:
    description: Inventory name of the box that would be rented or started.
    type: str
    required: true
  generation:
    description: The generation of its machine, 0 when there is none.
    type: int
    default: 0
  provider_id:
    description: The provider's id of its machine, empty when there is none.
    type: str
    default: ""
  state_dir:
    description: The state store, usually V(tenant_state_dir).
    type: path
    required: true
  run_spec:
    description: The run, as M(tenant.gpu.run_spec) returns it.
    type: dict
    required: true
  results_dir:
    description: Where results are brought home, usually V(tenant_results_dir).
    type: path
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Proves it all the same, and writes no record.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: What was proven is not hashed again while the same manifest lies there.
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Find a run at home again before anything is rented for it
  tenant.gpu.results_at_home:
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    state_dir: "{{ tenant_state_dir }}"
    run_spec: "{{ ansible_facts['run_spec'] }}"
    results_dir: "{{ tenant_results_dir }}"
"""

RETURN = r"""
ansible_facts:
  description: The fact that the roles read.
  returned: when the run is home
  type: dict
  contains:
    run_spec:
      description:
        - O(run_spec) with the record of the proof as C(finished). Its C(rebuilt) says why it was made, from which
          manifest, and when.
      type: dict
"""
