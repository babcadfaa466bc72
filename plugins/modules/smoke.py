#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke
short_description: Run the smoke command of a run spec on the controller
version_added: 0.1.0
description:
  - Runs the short CPU command that a run spec gives as C(smoke), so that a broken training script is found before
    a box is rented.
  - A pass is recorded for the hash of the spec and its code; the same code is not smoke-tested twice.
  - The keys of all markets and of a Kubernetes cluster, the token and the password of AWX, and the first passwords of
    boxes are taken out of the environment of the command, unless the run spec sets such a variable itself.
options:
  run_spec:
    description: The fact C(run_spec), see M(tenant.gpu.run_spec).
    type: dict
    required: true
  state_dir:
    description: The state store, usually V(tenant_state_dir).
    type: path
    required: true
  python:
    description: Interpreter that stands for a leading V(python). By default the one that runs Ansible.
    type: path
  timeout_s:
    description: Deadline in seconds.
    type: int
    default: 600
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
    description: Says whether the command would run.
  diff_mode:
    support: none
    description: There is nothing to show.
  idempotent:
    support: full
    description: A pass is remembered.
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Smoke-test the run
  tenant.gpu.smoke:
    run_spec: "{{ ansible_facts['run_spec'] }}"
    state_dir: "{{ tenant_state_dir }}"
"""

RETURN = r"""
passed:
  description: Always V(true); a failing command fails the task.
  returned: success
  type: bool
"""
