#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: requirements
short_description: Install a file of Python requirements on a rented box
version_added: 0.1.0
description:
  - Has M(ansible.builtin.pip) install a requirements file that lies on the box.
  - The box is somebody else's. Of what its pip answers, Ansible would believe facts, and with them what is deployed
    next and from where; none is taken here.
options:
  path:
    description: The requirements file on the box.
    type: path
    required: true
  pip:
    description: The pip of the Python that trains.
    type: path
    required: true
  pip_args:
    description: More words for its command line, such as an index.
    type: str
    default: ""
  break_system_packages:
    description: Whether to install although the system guards its packages (PEP 668).
    type: bool
    default: false
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    description: pip does not tell beforehand what it would install.
  idempotent:
    support: full
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Install the requirements
  tenant.gpu.requirements:
    path: "{{ platform_data_dir }}/gpu-tenant/runs/digits/requirements.txt"
    pip: "{{ platform_python | dirname }}/pip"
"""

RETURN = r"""
cmd:
  description: The command that was run.
  returned: success
  type: str
stdout:
  description: What pip said.
  returned: success
  type: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
