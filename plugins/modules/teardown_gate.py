#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: teardown_gate
short_description: Say whether an irreversible verb would be allowed, and what is missing
version_added: 0.1.0
description:
  - Reads the box's seal while it can be reached and keeps the reading in the state store. Re-reads every receipt, every
    byte of every copy, and the approvals. Then says which rule opens the gate, or everything that keeps it shut.
  - It opens nothing. Each irreversible verb gathers the evidence and decides again by itself, so a registered result
    of this module, forged or real, changes no decision.
  - It stops mistakes. It does not stop a person who holds the provider's key.
options:
  tenant_root:
    description: The supervisor's folder on the box.
    type: str
    required: true
  verb:
    description: The verb, as the platform's profile names it.
    type: str
    required: true
  verb_keeps:
    description:
      - The tiers that survive the verb, from C(platform_verbs). Without V(disk), or without another tier that may hold
        artifacts (see O(artifact_paths)), the verb is gated.
    type: list
    elements: str
    required: true
  storage:
    description: The storage tiers of the platform, its C(platform_storage).
    type: list
    elements: dict
    default: []
  artifact_paths:
    description:
      - Folders of the box that may hold artifacts, usually C(platform_data_dir) and C(platform_durable_path). A verb
        that loses the tier of one of them is gated. The tier V(disk) always counts, so that this can only add to it.
    type: list
    elements: str
    default: []
  provider_state:
    description: The state that the provider shows. If not set, the fact C(box_endpoint) is believed.
    type: str
    choices: [absent, loading, running, stopped, outbid, scheduling, exited, offline, unknown]
  provider_started_at:
    description: When the provider says that the box last started, as V(2026-11-21T03:38:06Z).
    type: str
  provider_observed_at:
    description: The C(Date) of the provider's answer, in the same form. The present if not set.
    type: str
  fail_on_refusal:
    description: Whether a refusal fails the task.
    type: bool
    default: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.box_identity
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Looks at the same evidence and does not keep the seal reading.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: tenant.gpu.receipt
  - module: tenant.gpu.seal_info
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: See what keeps the box from being destroyed
  tenant.gpu.teardown_gate:
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    state_dir: "{{ tenant_state_dir }}"
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    verb: destroy
    verb_keeps: []
    storage: "{{ platform_storage }}"
    artifact_paths: ["{{ platform_data_dir }}", "{{ platform_durable_path }}"]
    fail_on_refusal: false
  register: __teardown_gate
"""

RETURN = r"""
allowed:
  description: Whether the gate would open now.
  returned: always
  type: bool
rule:
  description: The rule that decided.
  returned: always
  type: str
  sample: evidence_home
missing:
  description: Everything that keeps the gate shut, in words and with the fix.
  returned: always
  type: list
  elements: str
approval_id:
  description: The approval that would be spent; empty when none is needed or found.
  returned: always
  type: str
evidence:
  description: What was looked at.
  returned: always
  type: dict
loss:
  description:
    - What would be lost if the box went now, and the last durable copy of each cell by name.
  returned: always
  type: list
  elements: str
  sample: ["digits/c1: steps 400 to 900; last durable copy: step 400, of b1 g1, verified 2026-11-21T03:38:06Z, in file:///r"]
note:
  description: Whether the seal was read from the box now, or why the last reading was used.
  returned: always
  type: str
"""
