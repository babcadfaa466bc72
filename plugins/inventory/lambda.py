# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402 - ansible-test wants the documentation before the imports
from __future__ import annotations

DOCUMENTATION = r"""
name: lambda
short_description: Instances of Lambda, as their provider lists them
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Asks Lambda for every instance of the account and puts what it says into the variable C(lambda_box) of the hosts.
  - A box is I(declared) when a host of another inventory source has its name and project. The declared host gets
    C(lambda_box) and the groups below; nothing that the team wrote about it, and no platform group, is changed. Where
    the box is, box_locate still asks each time.
  - A box that carries our stamp but that no inventory declares becomes a host of its own in the group
    C(tenant_undeclared). It bills; declare it, or harvest and destroy it.
  - Instances without our stamp are not listed, unless O(unstamped) asks for them. They cannot be connected to.
  - Host, port and login are checked against strict patterns. All other text of the provider stays untrusted, so it is
    never templated.
  - A list that is empty or malformed is an error, never an inventory without hosts.
notes:
  - Name the source so that it is read after those that declare hosts, for instance C(lambda.yml) beside C(hosts.yml).
    Ansible reads the files of a folder in alphabetical order, and several C(-i) as they come.
  - Ansible goes on without a source that failed, with a warning. Set C(any_unparsed_is_failed = true) in the section
    C([inventory]) of C(ansible.cfg) to make it end instead.
  - Lambda's list tells no total, so that a part of it looks like the whole. That an instance is missing from the
    inventory does not say that it is gone. What is cached holds no secret.
  - The groups are C(tenant_platform_lambda), C(tenant_state_STATE), C(tenant_project_PROJECT) and, with O(state_dir),
    C(tenant_run_RUN). Letters that a group's name cannot have become C(_).
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
  - tenant.gpu.rented_inventory
options:
  plugin:
    description: Token that ensures this is a source file for the plugin.
    required: true
    type: str
    choices: [tenant.gpu.lambda]
  api_url:
    description:
      - Base URL of the REST API, version 1. To rehearse, set it to a local marketplace, with C(/lambda/api/v1) behind
        its address.
    type: str
    default: https://cloud.lambda.ai/api/v1
    env:
      - name: LAMBDA_API_URL
  api_key_file:
    description:
      - File that holds the account's API key and nothing else.
      - If not set, the environment variable E(LAMBDA_API_KEY) is used.
    type: path
"""

EXAMPLES = r"""
# inventory/lambda.yml, beside hosts.yml and profiles.yml
plugin: tenant.gpu.lambda
api_key_file: ~/.config/lambda/api_key
state_dir: ~/.local/state/gpu-tenant/papers

---
# with groups by place and type, and one for those that were shut down from inside or are not heard of
plugin: tenant.gpu.lambda
keyed_groups:
  - key: lambda_box.region
    prefix: place
  - key: lambda_box.instance_type
    prefix: type
groups:
  in_alert: lambda_box.alert
"""

from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.api import LambdaClient
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.shown import SHOWN
from ansible_collections.tenant.gpu.plugins.plugin_utils.rented_inventory import RentedInventory


class InventoryModule(RentedInventory):
    NAME = "tenant.gpu.lambda"
    DRIVER = "lambda"
    MARKET = "Lambda"
    VARIABLE = "lambda_box"
    CLIENT = LambdaClient
    SHOWN = SHOWN
