#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Take, give back or read the lease on a box
version_added: 0.1.0
description:
  - One process at a time works on a box. The lease says which, in the state store, so that all controllers that share
    the store see it. Every role of the collection takes it before it looks at the box.
  - The holder is C(ansible-playbook) itself. A keeper beside it renews the lease for as long as it lives and gives it
    back when it ends, however it ends, so that no playbook needs a task for that.
  - A lease whose holder is dead gives way at once if the holder was a process of this machine. Another machine's gives
    way when its time has run out, or when O(take_from) names it.
  - A playbook that a runner started joins the runner's lease, which the environment variable C(GPU_TENANT_LEASE) names.
  - Works on the controller and touches no box.
options:
  project:
    description: The project of the box, usually V(tenant_project).
    type: str
    required: true
  box:
    description: The box, usually V(inventory_hostname).
    type: str
    required: true
  state_dir:
    description: The state store, usually V(tenant_state_dir).
    type: path
    required: true
  state:
    description:
      - V(taken) takes the lease or keeps the one that this playbook has, and fails if another process has it.
      - V(released) gives it back before the playbook ends.
      - V(read) only tells who has it.
    type: str
    choices: [taken, released, read]
    default: taken
  purpose:
    description: What the lease is for. Whoever is refused is told.
    type: str
    default: a playbook
  take_from:
    description:
      - The nonce of a lease to take away from its holder, as the refusal names it.
      - The holder is refused by every later verb on the box, and by the provider's verbs of this collection.
    type: str
    default: ""
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  action:
    details:
      - It runs entirely on the controller.
  check_mode:
    support: full
    description: Takes and gives back nothing, and says who has the lease.
  diff_mode:
    support: none
    description: There is nothing to show.
  idempotent:
    support: full
    description: Who works on a box is no state of the box, so this never reports a change.
seealso:
  - module: tenant.gpu.supervisor
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Take the lease on the box
  tenant.gpu.lease:
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    state_dir: "{{ tenant_state_dir }}"
    purpose: "{{ ansible_play_name }}"

- name: See who works on the box
  tenant.gpu.lease:
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    state_dir: "{{ tenant_state_dir }}"
    state: read
  register: lease
"""

RETURN = r"""
how:
  description:
    - How the lease was got. V(new), V(kept) or V(joined); or why another's gave way, V(dead), V(expired) or V(taken);
      V(none) when it was not asked for.
  returned: success
  type: str
held_by:
  description:
    - Who has the lease and would refuse this playbook, in words. Empty when nobody would.
    - Or that a newer version keeps the leases in the team's database, so that this one cannot tell.
  returned: success
  type: str
lease:
  description: The lease, null when nobody ever took one on this box.
  returned: success
  type: dict
  sample:
    box: box-1
    epoch: 1795296000
    nonce: 0f4c7f8f0a2b
    project: digits
    purpose: Rent, deploy and train
    granted_at: "2026-11-21T20:00:00Z"
    until: "2026-11-21T20:05:00Z"
    released_at: null
    holders: []
    displaced: []
ansible_facts:
  description: The fact C(box_lease) with C(epoch) and C(nonce), which the verbs of the supervisor carry to the box.
  returned: success
  type: dict
"""
