# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: runpod_network_volume
short_description: Make and delete network volumes on RunPod
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Makes a network volume of a project present or absent. It is storage in one data center that outlives all pods and
    bills by the hour, with a pod or without.
  - It is known by the stamp in its name (project, name, generation), so it is found again from the provider alone.
  - A create is sent once. If its answer is lost, the account is searched for the stamp until the answer is certain.
  - A volume never leaves its data center and never shrinks. One that is elsewhere, or smaller than wanted, is an error.
  - Deleting a volume destroys what it holds. Nobody can look into a volume from outside, so it never counts as unused.
    With O(state=absent) the evidence gate is asked here, on records re-read now, and wants a person's consent to the
    loss. A volume that a pod mounts, even a stopped one, is not deleted. No option opens the gate.
  - Volumes without our stamp are never touched.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.runpod
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_runpod
attributes:
  check_mode:
    support: full
    details:
      - RV(would) says what would be made, at what price. Nothing is deleted, but the gate is asked.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  project:
    description: The project that the volume belongs to.
    type: str
    required: true
  name:
    description:
      - The volume's name in the project.
      - The stamp has at most 64 characters, of which project and name may take about 40.
    type: str
    required: true
  state:
    description:
      - V(present) makes the volume if there is none.
      - V(absent) deletes every volume of this name, through the gate.
    type: str
    choices: [present, absent]
    default: present
  state_dir:
    description: The state store (C(tenant_state_dir)), where records, journal and approvals are.
    type: path
    required: true
  size_gb:
    description: Size in whole GB, from 10 to 4000.
    type: int
    default: 20
  data_center:
    description:
      - Id of the data center, such as V(EU-RO-1). Pods that mount the volume are rented there.
      - Required with O(state=present).
    type: str
    default: ''
  price_cap:
    description:
      - Most that the whole volume may cost an hour, in dollars. This is the consent to spend.
      - Required with O(state=present).
    type: float
seealso:
  - module: tenant.gpu.runpod_pod
  - module: tenant.gpu.runpod_network_volume_info
"""

EXAMPLES = r"""
- name: Keep the data set where the pods will be
  tenant.gpu.runpod_network_volume:
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
    name: imagenet
    size_gb: 200
    data_center: EU-RO-1
    price_cap: 0.05
  delegate_to: localhost
  register: data

- name: Rent a pod that has it at /workspace
  tenant.gpu.runpod_pod:
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
    name: pod-a
    image: runpod/pytorch:2.8.0-py3.11-cuda12.8.1
    gpu_types: [NVIDIA GeForce RTX 4090]
    network_volume: "{{ data.volume.id }}"
    price_cap: 0.80
  delegate_to: localhost

- name: Delete it, once somebody consented with "gpu-tenant approve delete imagenet --volume"
  tenant.gpu.runpod_network_volume:
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
    name: imagenet
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
volume:
  description: The volume as the provider shows it; null when there is none.
  returned: success
  type: dict
  contains:
    id:
      description: The volume's id, which runpod_pod takes as C(network_volume).
      type: str
      sample: agv6w2qcg7
    stamp:
      description: Its name at RunPod.
      type: str
      sample: gt1__vision__imagenet__g1__0a1b2c3d
    project:
      description: The project in its stamp.
      type: str
    name:
      description: Its name in the project.
      type: str
    generation:
      description: Its generation; each create raises it.
      type: int
    size_gb:
      description: Its size.
      type: float
    data_center:
      description: The data center that it is in, for ever.
      type: str
    price_per_hour:
      description: Dollars an hour, used or not; null when its size is not told.
      type: float
    pods:
      description: The pods that mount it, resting ones too.
      type: list
      elements: str
superseded:
  description: Other volumes that carry the same name. They bill.
  returned: success
  type: list
  elements: dict
gate:
  description: For each volume that went through the gate, its C(id), the C(rule) and the C(approval_id).
  returned: success
  type: list
  elements: dict
would:
  description: What would be made - C(size_gb), C(data_center), C(price_per_hour).
  returned: in check mode, when something would be made
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.runpod.actions import PodAccount
from ..module_utils.runpod.options import client_of, run_module
from ..module_utils.runpod.volumes import Wish, converge
from ..module_utils.state_store import StateStore

SPEC = {
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "state_dir": {"type": "path", "required": True},
    "size_gb": {"type": "int", "default": 20},
    "data_center": {"type": "str", "default": ""},
    "price_cap": {"type": "float"},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    wish = Wish(**{name: options[name] for name in SPEC if name != "state_dir"})
    account = PodAccount(client_of(options), StateStore(options["state_dir"]), read_only=module.check_mode)
    return converge(account, wish, module.check_mode)


def main() -> None:
    run_module(act, argument_spec=SPEC, required_if=[("state", "present", ["price_cap"])])


if __name__ == "__main__":
    main()
