#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: copy_reading
short_description: Read a copy on a durable mount from a box that did not write it, and keep what was found
version_added: 0.1.0
description:
  - Runs on the reading box, which must have the durable mount. Hashes every file that the manifest promises, and keeps
    the reading in the state store with the reader's identity, its kernel and its mount.
  - The gate takes a C(mount://) copy for evidence only by such a reading, no older than five minutes, made by another
    kernel than the one that wrote the copy, or through a mount made afresh. The writer's page cache would answer for a
    disk that lost the bytes.
options:
  uri:
    description: The copy as the receipt names it, C(mount://platform.tier/path).
    type: str
    required: true
  root:
    description: The copy's folder on the reading box.
    type: str
    required: true
  manifest:
    description: Path on the controller of the manifest that the box sealed.
    type: path
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.box_identity
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Reads the same and keeps nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: tenant.gpu.copy_info
  - module: tenant.gpu.teardown_gate
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Read what another box wrote to the file system that both mount
  tenant.gpu.copy_reading:
    uri: mount://autodl.fs/vision/digits/g1
    root: /root/autodl-fs/vision/digits/g1
    manifest: "{{ tenant_results_dir }}/vision/digits/writer/g1/manifest.json"
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    state_dir: "{{ tenant_state_dir }}"
"""

RETURN = r"""
reading:
  description: The reading as it is kept.
  returned: success
  type: dict
whole:
  description: Whether every promised file is there with the promised bytes.
  returned: success
  type: bool
"""
