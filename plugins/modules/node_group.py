#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_group
short_description: Decide for all boxes of a run at once whether they may train together
version_added: 0.1.0
description:
  - Compares what every box of a run with C(nodes) has shown in this play. Every box comes to the same verdict, so that
    all go on or none does, and each names the box that is to blame and the reason.
  - Renders the launch, the one torchrun command for all boxes and what differs in their environment.
  - Works on the controller and touches no box. Needs a strategy under which the boxes take each task together, as
    C(linear) does.
options:
  stage:
    description:
      - V(config) judges inventory and profiles, before anything is rented.
      - V(compare) judges the results of M(tenant.gpu.node_facts) and renders the launch.
      - V(proof) judges the results of M(tenant.gpu.node_proof).
      - V(started) judges the results of M(tenant.gpu.supervisor).
    type: str
    required: true
    choices: [config, compare, proof, started]
  run_spec:
    description: The fact C(run_spec).
    type: dict
    required: true
  project:
    description: The project; part of the rendezvous id.
    type: str
  results:
    description: Name of the variable that each box has registered the results under.
    type: str
  clock_skew_s:
    description: How far the clocks of two boxes may be apart, in seconds.
    type: float
    default: 5
  within_s:
    description: Deadline of the proof, in seconds.
    type: float
    default: 60
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
seealso:
  - module: tenant.gpu.node_facts
  - module: tenant.gpu.node_proof
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Compare the boxes
  tenant.gpu.node_group:
    stage: compare
    run_spec: "{{ ansible_facts['run_spec'] }}"
    project: "{{ tenant_project }}"
    results: node_look
  register: node_group
"""

RETURN = r"""
plan:
  description: V(start), or V(nothing) where every box lives under this very launch or has finished.
  returned: with O(stage=compare)
  type: str
launch:
  description:
    - What the supervisor of this box is given, with the C(argv) that is the same on every box, the C(env) that is not,
      C(leader) (rank 0 lives here) and C(members).
  returned: with O(stage=compare)
  type: dict
request:
  description: What M(tenant.gpu.node_proof) of this box is asked.
  returned: with O(stage=compare)
  type: dict
live:
  description: Whether a cell of the run lives on this box.
  returned: with O(stage=compare)
  type: bool
reduce_ms:
  description: Milliseconds of the fastest all-reduce, by box.
  returned: with O(stage=proof)
  type: dict
failure:
  description: The box to blame, the reason, what is safe and what to do.
  returned: on failure
  type: dict
"""
