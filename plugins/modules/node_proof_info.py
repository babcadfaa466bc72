#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_proof_info
short_description: Look for the answer of a detached proof
version_added: 0.1.0
description:
  - Says whether a M(tenant.gpu.node_proof) that was started with C(async) has ended, and how.
  - The answer lies on the box, which is somebody else's. M(ansible.builtin.async_status) would have Ansible believe
    facts in it, and with them where it connects next and how; none is taken here.
options:
  jid:
    description: The job, as C(ansible_job_id) of the task that started it.
    type: str
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    description: There is nothing to show.
  idempotent:
    support: full
    description: Changes nothing.
seealso:
  - module: tenant.gpu.node_proof
  - module: tenant.gpu.node_group
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Wait for the proof
  tenant.gpu.node_proof_info:
    jid: "{{ job.ansible_job_id }}"
  register: proof
  until: proof is finished
  retries: 120
  delay: 1
"""

RETURN = r"""
finished:
  description: Whether the proof has ended.
  returned: success
  type: bool
proof:
  description: What the box has proven, as M(tenant.gpu.node_proof) returns it.
  returned: once it has ended
  type: dict
"""
