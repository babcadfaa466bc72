#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_login
short_description: Wait until a box lets somebody log in
version_added: 0.1.0
description:
  - Runs one command of plain sh on the box until it answers, over the connection that the next tasks use. Where that
    works at once it costs one round trip, needs no Python on the box, and leaves a shared connection as it is;
    M(ansible.builtin.wait_for_connection) ends it and starts a Python.
  - A server that answers may still refuse the key for a while, because the box installs it as it starts.
options:
  within_s:
    description: How long to try, in seconds. It is tried once at least.
    type: float
    default: 120
  pause_s:
    description: Seconds between two tries.
    type: float
    default: 1
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    details:
      - A box that a check run was to start is not there, so nobody is waited for.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    support: full
seealso:
  - module: tenant.gpu.box_host_key
  - module: tenant.gpu.box_probe
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Wait for the first login
  tenant.gpu.box_login:
    within_s: 120
"""

RETURN = r"""
tries:
  description: How often it was tried.
  returned: success
  type: int
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
