#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_command
short_description: Run a program on a rented box
version_added: 0.1.0
description:
  - Runs a program by the box's own shell, and takes from it its exit code and what it printed, and nothing else.
  - The box is somebody else's. What answers M(ansible.builtin.command) there is a program of the box, and Ansible would
    believe facts in its answer, and with them where it connects next and how.
options:
  argv:
    description: The program and its arguments.
    type: list
    elements: str
    required: true
  detach:
    description:
      - Whether to only begin it, for a program that ends the connection. How it ends is not known then.
    type: bool
    default: false
  expected:
    description: Exit codes that are no failure.
    type: list
    elements: int
    default: [0]
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: partial
    description: Runs nothing; what the program would change is not known.
  diff_mode:
    support: none
    description: What the program changes is not known.
  idempotent:
    support: none
    description: Runs the program each time.
seealso:
  - module: ansible.builtin.command
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: See what lies there
  tenant.gpu.box_command:
    argv: [du, -sk, "{{ platform_data_dir }}"]
  changed_when: false
  check_mode: false

- name: Have the box stop itself
  tenant.gpu.box_command:
    argv: [/usr/bin/shutdown]
    detach: true
"""

RETURN = r"""
rc:
  description: The exit code; with O(detach=true), that it was begun.
  returned: when it was run
  type: int
stdout:
  description: The first 4000 characters that it printed.
  returned: when it was run
  type: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
