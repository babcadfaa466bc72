#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_record
short_description: Record in the state store what happened to a box
version_added: 0.1.0
description:
  - Notes once, with the time, that a rented box was admitted by its probe, rejected by it, or that a deploy began.
  - The gate reads these records. A box that we created and on which no deploy began is I(virgin) and may be
    destroyed without approval.
  - Works on the controller and touches no box.
options:
  platform:
    description: The platform, usually V(platform_name).
    type: str
    required: true
  event:
    description: What happened. Without it the record is only read.
    type: str
    choices: [admitted, deploy_started, rejected]
  detail:
    description: What was seen, kept with O(event=admitted) and O(event=rejected).
    type: dict
    default: {}
  tenant_root:
    description:
      - With O(event=deploy_started), the folder of the box that the deploy brings things to. All that were are kept.
      - A stop that wipes one of them asks the gate like a termination, whatever a later task calls the data folder.
    type: str
    default: ''
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.box_identity
attributes:
  check_mode:
    support: full
    description: Says what would be recorded.
  diff_mode:
    support: full
    description: Shows the record before and after.
  idempotent:
    support: full
    description: An event of one machine is recorded once.
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Record that a deploy begins
  tenant.gpu.box_record:
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    platform: "{{ platform_name }}"
    state_dir: "{{ tenant_state_dir }}"
    event: deploy_started
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
"""

RETURN = r"""
record:
  description: The box record; empty when there is none yet.
  returned: success
  type: dict
"""
