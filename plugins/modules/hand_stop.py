#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hand_stop
short_description: Prepare and check a stop or a release that only a person can do
version_added: "0.1.0"
description:
  - For boxes that no interface ends. Lists the steps of the platform's console in their order, and what goes on
    billing.
  - When somebody says that they are done, looks whether the machine whose key is pinned still shows that key at its
    address. One that does is neither stopped nor released. One that does not is recorded, with the time, from which the
    platform's danger clocks count.
  - Works on the controller, connects to no box and opens no gate.
options:
  step:
    description: What was done in the console. V(started) takes a recorded stop back.
    type: str
    choices: [stopped, released, started]
    required: true
  verbs:
    description: The steps, C(platform_verbs.park) or C(platform_verbs.full_stop) of the profile.
    type: list
    elements: dict
    default: []
  storage:
    description: The storage tiers of the platform, its C(platform_storage).
    type: list
    elements: dict
    default: []
  told:
    description: A person says that the step was done. Without it only the checklist is made.
    type: bool
    default: false
  looks:
    description: How often the address is looked at before silence counts.
    type: int
    default: 2
  pause_s:
    description: Seconds between two looks.
    type: float
    default: 5
  asked:
    description:
      - The box itself was just told to stop, which only O(step=stopped) can be. It counts as stopped once it shows its
        key no more, without a person's word; where that cannot be seen, the word is still needed.
    type: bool
    default: false
  wait_s:
    description: Seconds for which a box that was told to stop is looked at again while it shows its key.
    type: float
    default: 0
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
  - tenant.gpu.box_identity
attributes:
  check_mode:
    support: full
    description: Looks, and records nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: A step of one machine is recorded once.
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: See that the rental was ended in the console
  tenant.gpu.hand_stop:
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    state_dir: "{{ tenant_state_dir }}"
    step: released
    verbs: "{{ platform_verbs.full_stop }}"
    storage: "{{ platform_storage }}"
    told: true
"""

RETURN = r"""
checklist:
  description: The steps in their order, then what goes on billing.
  returned: success
  type: list
  elements: str
  sample: ["1. 释放 (in the console): ends compute and disk charges, keeps fs, for ever"]
done:
  description: Whether the step is recorded as done.
  returned: success
  type: bool
how:
  description: What speaks for or against it.
  returned: success
  type: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
