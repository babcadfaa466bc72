#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_locate
short_description: Say where a box is, without connecting to it
version_added: 0.1.0
description:
  - Sets the fact C(box_endpoint), from which the platform profiles take host, port, user and the alias of the host key,
    and the fact C(box_record), what is noted of that machine on the controller.
  - A platform whose runs are Jobs (Kubernetes) has no boxes, and none is located.
  - For a platform with a driver, the box is found by the stamp of project and name in the provider's own list. The
    list is shared by all forks of the account for a few seconds.
  - For a platform without an API, what the inventory says is believed, and V(running) is an assumption.
  - A box that the provider does not list has the state V(absent) and the host V(not-located.invalid), so that
    connecting to it fails closed. Absence of a box that is on record is asked for twice.
  - Checks that the box is in exactly one platform group, that its C(platform_*) values are usable after the merge with
    the team's own, and that no two names of the play reach one machine.
  - Runs on the controller.
options:
  project:
    description: The project. If not set, the variable C(tenant_project).
    type: str
  name:
    description: The box. If not set, C(inventory_hostname).
    type: str
  state_dir:
    description: The state store. If not set, the variable C(tenant_state_dir).
    type: path
  driver:
    description: Which driver to use; empty for none. If not set, the variable C(platform_driver).
    type: str
  generation:
    description:
      - Generation of a box of a platform without an API. Raise it when the machine is a new one.
      - If not set, the variable C(tenant_generation), else the last one on record, at least 1.
    type: int
  max_age_s:
    description: How old a shared list may be, in seconds.
    type: float
    default: 5
  refresh:
    description: Ask the provider now, whatever has been shared.
    type: bool
    default: false
  require:
    description: Fail when the box cannot be connected to now.
    type: bool
    default: false
  api_url:
    description:
      - Base URL of the API.
      - If not set, the variable C(DRIVER_api_url), such as C(vast_api_url) or C(runpod_api_url), else the environment
        variable of the market (E(VAST_URL), E(RUNPOD_REST_URL), E(LAMBDA_API_URL), E(PAPERSPACE_API_URL)), else the
        vendor's own.
    type: str
  api_key:
    description: The account's API key. Prefer O(api_key_file), which keeps the key out of every variable.
    type: str
  api_key_file:
    description:
      - File on the controller that holds the API key and nothing else.
      - If not set, the variable C(DRIVER_api_key_file), such as C(vast_api_key_file), else the environment
        variable of the market (E(VAST_API_KEY), E(RUNPOD_API_KEY), E(LAMBDA_API_KEY), E(PAPERSPACE_API_KEY)) is used.
    type: path
  api_timeout_s:
    description: Seconds that one request may take before it counts as unanswered.
    type: int
    default: 30
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.action_plugin
author: The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Locate the box
  tenant.gpu.box_locate:
  tags: [always]

- name: Locate the box that has just been rented
  tenant.gpu.box_locate:
    refresh: true
    require: true
"""

RETURN = r"""
ansible_facts:
  description: Two facts.
  returned: success
  type: dict
  contains:
    box_endpoint:
      description: Where the box is.
      type: dict
      contains:
        host:
          description: Host name or address; V(not-located.invalid) while it cannot be connected to.
          type: str
        port:
          description: Port of its ssh server.
          type: int
        user:
          description: Login name.
          type: str
        alias:
          description: Name under which its host key is pinned, C(<box>.g<generation>).
          type: str
        python:
          description: The Python that trains, as the profile has it.
          type: str
        provider_id:
          description:
            - The provider's own id, empty when absent. Without an API C(ssh:<host>:<port>), or C(ssh:<mark>) once
              M(tenant.gpu.box_machine) has marked a box whose platform names its instances
              (C(platform_instance_id)); that one stays when the address changes.
          type: str
        generation:
          description: Which machine of this name it is; 0 when absent.
          type: int
        state:
          description:
            - One of V(absent), V(loading), V(running), V(stopped), V(outbid), V(scheduling), V(exited), V(offline),
              V(unknown).
          type: str
        intended:
          description: What the provider was last told to do with it; empty without an API.
          type: str
        stamp:
          description: The stamp by which it was found; empty without an API.
          type: str
        proxy:
          description: Whether it is reached through a proxy or a jump host, where large transfers are slow.
          type: bool
        proxy_instead:
          description: What to use in place of a proxy that the profile knows (C(platform_ssh_proxies)); else empty.
          type: str
        machine_id:
          description: The provider's id of the physical machine.
          type: int
        price_per_hour:
          description: Dollars an hour while it runs; none when unknown.
          type: float
        superseded:
          description: Other machines that carry the same name, with their provider id, generation and state.
          type: list
          elements: dict
        problem:
          description: Why the endpoint that the provider gave was refused; empty when it was not.
          type: str
    box_record:
      description: What the state store has noted of this generation of it, as M(tenant.gpu.box_record) writes it.
      type: dict
      contains:
        admitted_at:
          description: When its probe admitted it, UTC; null where it has not.
          type: str
        deploy_started_at:
          description: When the first deploy to it began, UTC; null where none has.
          type: str
        tenant_roots:
          description: The folders that were deployed to.
          type: list
          elements: str
observed_at:
  description: When the provider was asked, UTC.
  returned: success
  type: str
  sample: "2026-11-21T03:38:06Z"
"""
