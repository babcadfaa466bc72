#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets
short_description: Deliver the secrets of a run to a rented box, and prove that they work
version_added: 0.1.0
description:
  - Reads the secrets that a run spec names from the controller and sends them over the connection's standard input.
    They are in no argument, no file of the controller, no result and no temporary file of the box.
  - On the box they lie in one file that only its user reads, on a disk of the instance itself. A network file system,
    or a folder that several boxes see, is refused.
  - Then the box asks each service who the bearer of its secret is (the viewer of a wandb key, C(whoami) of a Hugging
    Face token, or an address of your own). A secret that does not work is refused before anything trains.
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: path
    required: true
  pyz:
    description: The supervisor program on the box.
    type: path
    required: true
  python:
    description: The Python on the box that runs it, usually C(platform_python).
    type: path
    required: true
  path:
    description: The file on the box, mode 0600, that holds one C(NAME=value) a line.
    type: path
    required: true
  secrets:
    description: The secrets as M(tenant.gpu.run_spec) returns them, each with C(name), C(env) or C(file), and C(check).
    type: list
    elements: dict
    required: true
  shared:
    description: Folders of the box that several boxes see.
    type: list
    elements: str
    default: []
  prove:
    description: Ask the services. Without it a wrong secret is found by the training.
    type: bool
    default: true
  env:
    description: Environment for those questions, such as C(WANDB_BASE_URL), C(HF_ENDPOINT) and proxies.
    type: dict
    default: {}
  proxy_hook:
    description: Shell file on the box that sets proxy variables, or the URL of a proxy.
    type: str
    default: ""
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Compares with what is on the box; asks no service.
  diff_mode:
    support: full
    description: Shows names, never values.
  idempotent:
    support: full
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Deliver the secrets and prove them
  tenant.gpu.secrets:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    pyz: "{{ deploy_pyz }}"
    python: "{{ platform_python }}"
    path: "{{ platform_data_dir }}/gpu-tenant/runs/digits/secrets.env"
    secrets: "{{ ansible_facts['run_spec']['secrets'] }}"
"""

RETURN = r"""
renewed:
  description: Names of the secrets that came, went or changed.
  returned: success
  type: list
  elements: str
secrets:
  description:
    - Each secret with C(name), C(state) (V(proven), or V(unchecked) where nobody can be asked) and C(who), the user or
      entity that the service knows as its bearer.
  returned: success, outside of check mode
  type: list
  elements: dict
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
