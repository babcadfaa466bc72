#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisor_bundle
short_description: Build the supervisor program for the boxes
version_added: 0.1.0
description:
  - Builds C(supervisor.pyz) from this collection's own sources into the cache of the state store.
  - The same sources always give the same bytes, so the file's name carries its hash.
  - Works on the controller and touches no box.
options:
  state_dir:
    description: The state store, usually V(tenant_state_dir).
    type: path
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Build the supervisor
  tenant.gpu.supervisor_bundle:
    state_dir: "{{ tenant_state_dir }}"
  register: __deploy_bundle
"""

RETURN = r"""
bundle:
  description: The built program.
  returned: success
  type: dict
  contains:
    name:
      description: File name, with the first twelve digits of its hash.
      type: str
    path:
      description: Where it lies on the controller.
      type: str
    sha256:
      description: SHA-256 of its bytes.
      type: str
"""
