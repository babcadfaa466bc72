# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: runpod_pod_info
short_description: Show the pods of a project on RunPod
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Lists the pods that carry the project's stamp, found from the provider alone, with what they cost in each state.
  - Pods without a stamp are counted, not shown.
  - A malformed answer is an error, never an empty list. RunPod's list tells no total, so that a part of it looks like
    the whole; that a pod is not listed does not say that it is gone.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.runpod
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.actiongroup_runpod
options:
  project:
    description: Only pods of this project. If not set, the pods of every project.
    type: str
  name:
    description: Only the pods of this name. Needs O(project).
    type: str
seealso:
  - module: tenant.gpu.runpod_pod
"""

EXAMPLES = r"""
- name: Show every pod of the project
  tenant.gpu.runpod_pod_info:
    project: digits
  delegate_to: localhost
  register: fleet

- name: Show what runs and what it costs
  ansible.builtin.debug:
    msg: "{{ item.name }} g{{ item.generation }} is {{ item.state }}, ${{ item.price_per_hour }}/h"
  loop: "{{ fleet.pods }}"
"""

RETURN = r"""
pods:
  description: The pods, by project, name and generation; of one name the pod that counts comes first.
  returned: success
  type: list
  elements: dict
  contains:
    provider_id:
      description: The pod's id.
      type: str
      sample: xedezhzb9la3ye
    project:
      description: The project in its stamp.
      type: str
    name:
      description: The box in its stamp.
      type: str
    generation:
      description: Its generation.
      type: int
    is_current:
      description: Whether it is the pod that counts. Others of the same name are superseded.
      type: bool
    state:
      description: loading, running, stopped or unknown.
      type: str
    host:
      description: SSH host, checked against a strict pattern; empty while there is none.
      type: str
    port:
      description: SSH port, another one after each start.
      type: int
    num_gpus:
      description: GPUs that it has now; 0 for a pod that came back without.
      type: int
    price_per_hour:
      description: Compute and disks while it runs, dollars an hour.
      type: float
    clocks:
      description: What is billed in each state.
      type: dict
unstamped:
  description: Number of pods of the account that are not ours.
  returned: success
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.runpod.desired import list_pods
from ..module_utils.runpod.options import client_of, run_module

SPEC = {"project": {"type": "str"}, "name": {"type": "str"}}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    return list_pods(client_of(options), options["project"], options["name"])


def main() -> None:
    run_module(act, argument_spec=SPEC, required_by={"name": "project"})


if __name__ == "__main__":
    main()
