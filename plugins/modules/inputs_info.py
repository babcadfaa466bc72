#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inputs_info
short_description: Ask how large the inputs of a run are, and what they would bill
version_added: 0.1.0
description:
  - Asks the sources from the controller, by a C(HEAD) request, the Hub's list of files, or the object store.
  - What nobody says is shown as unknown and is never counted as nothing.
  - Works on the controller and touches no box.
options:
  inputs:
    description: The inputs as M(tenant.gpu.run_spec) returns them.
    type: list
    elements: dict
    required: true
  secrets:
    description: The secrets of the run spec, for inputs that name one. Their values are read here.
    type: list
    elements: dict
    default: []
  object_store:
    description: How the store of C(s3) inputs is reached, the O(tenant.gpu.checked_sync#module:object_store) option.
    type: dict
    default: {}
  hub_endpoint:
    description: Endpoint of the Hugging Face Hub, by default E(HF_ENDPOINT) of the controller or the Hub itself.
    type: str
    default: ""
  price_per_gb:
    description: Dollars for each GB that the box downloads. Left out, the price is unknown.
    type: float
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.action_plugin
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Price what the box will download
  tenant.gpu.inputs_info:
    inputs: "{{ ansible_facts['run_spec']['inputs'] }}"
    price_per_gb: 0.012
  register: input_sizes
"""

RETURN = r"""
inputs:
  description: Each input with C(dest), C(source), C(bytes) (null when nobody says) and C(why).
  returned: success
  type: list
  elements: dict
total:
  description:
    - C(bytes) that are known, how many inputs are C(unknown), C(usd) (null when the price is unknown), C(text).
  returned: success
  type: dict
lines:
  description: The same for people.
  returned: success
  type: list
  elements: str
"""
