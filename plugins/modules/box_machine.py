#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_machine
short_description: Tell a box that moved from another machine
version_added: 0.1.0
description:
  - Some platforms without an API (AutoDL) give a box another port after each start, so that its address does not say
    which machine it is. Where such a platform names its instances on the box (C(platform_instance_id)), the box is
    known by a mark from its first admission on, a random id in the file C(.gpu-tenant-box.json) of its data folder. The
    mark is part of its provider id, which receipts, seals and approvals name; so they go on to hold at another address.
  - A machine is the one on record when it shows the pinned host key, the mark, and the instance that was noted. A clone
    shows all but the instance. Whatever does not fit is refused, with what to do.
  - On other platforms it does nothing, and connects to nothing.
  - Uses the fact C(box_endpoint). Needs no Python on the box.
options:
  project:
    description: The project of the box, usually V(tenant_project).
    type: str
    required: true
  name:
    description: The box. If not set, C(inventory_hostname).
    type: str
  state_dir:
    description: The state store, usually V(tenant_state_dir).
    type: path
    required: true
  state:
    description:
      - V(proven) refuses a machine that is not the one on record; without a machine on record it does nothing.
      - V(marked) marks a machine of which nothing is on record as well, and sets its provider id in C(box_endpoint).
    type: str
    choices: [proven, marked]
    default: proven
  required:
    description: Fail when a box that is on record cannot be asked. Without, a box at rest is no failure.
    type: bool
    default: false
  record:
    description: Whether another address is noted in the box's record and in the journal.
    type: bool
    default: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    details:
      - A box that has no mark yet is not connected to.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: tenant.gpu.box_locate
  - module: tenant.gpu.box_host_key
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Prove that it is the machine on record
  tenant.gpu.box_machine:
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
"""

RETURN = r"""
proven:
  description: Whether it is known that the box is the machine on record.
  returned: success
  type: bool
why:
  description: Why that is not known; empty where it is.
  returned: success
  type: str
  sample: its platform names no instances
moved_from:
  description: The address of the box before, as host and port; empty where it did not change.
  returned: success
  type: str
  sample: connect.westb.seetacloud.com:30122
ansible_facts:
  description: The fact C(box_endpoint) with the provider id that the machine has from now on.
  returned: when it was marked
  type: dict
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
