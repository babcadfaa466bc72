# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: runpod_pod
short_description: Rent, start, stop and terminate pods on RunPod
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Brings one box of a project to the wanted state. A box is known by its stamp (project and name), which is written
    into the pod's name and environment, so it is found again from the provider alone.
  - A create is sent once. If its answer is lost, or an error that may hide a pod, the account is searched for the stamp
    until the answer is certain. Creates of one account happen one at a time, across processes that share O(state_dir).
  - RunPod's REST API tells the price of a pod once it is rented. A new pod above O(price_cap), or one that does not
    come up with its GPUs and a public ssh port, is terminated at once, before anything was put on it.
  - A stopped pod keeps its volume disk, which then bills double, loses its container disk, and may come back without a
    GPU. That is noticed and fails the task, unless O(gpu_required) is false. A pod that this task started, and that
    came up so or above O(price_cap), is stopped again through the gate, and the failure says how it was left.
  - Terminating deletes the volume disk. With O(state=absent) the evidence gate is asked here, on records re-read now -
    seal, receipts, every byte of every copy, approval - and refuses unless the results are home. No option opens it.
  - Pods without our stamp are never touched. Network volumes are never deleted.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.rental.box
  - tenant.gpu.runpod
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_runpod
  - tenant.gpu.attributes.rental_action
attributes:
  check_mode:
    support: full
    details:
      - For a pod that is not rented yet, RV(would) says what would be asked for, under which cap. Its price is unknown.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) rents a pod if there is none. One that exists is left as it is, running or stopped.
      - V(started) also starts a pod that is stopped.
      - V(stopped) stops computing. The volume disk is kept and bills double. A pod without a volume, or whose
        O(data_dir) is not on it, loses its results by it, so that the gate is asked as before a termination.
      - V(absent) terminates the pod and every superseded pod of its name, each through the gate.
    type: str
    choices: [present, started, stopped, absent]
    default: present
  image:
    description:
      - The container image. It must start sshd itself, as RunPod's own do.
      - Needed only when there is no pod yet.
    type: str
    default: ''
  gpu_types:
    description:
      - RunPod's names of the cards to rent, tried in order, such as V(NVIDIA GeForce RTX 4090).
      - Needed only when there is no pod yet.
    type: list
    elements: str
    default: []
  gpu_count:
    description: GPUs that the pod has to have.
    type: int
    default: 1
  gpu_required:
    description:
      - Whether a pod that runs with fewer than O(gpu_count) GPUs is a failure.
      - Set it to V(false) to harvest a pod that came back without its GPU.
    type: bool
    default: true
  cloud_type:
    description:
      - V(secure) is RunPod's own data centers, where the address of a pod is stable. V(community) is others' machines.
    type: str
    choices: [secure, community]
    default: secure
  market:
    description:
      - V(interruptible) rents a spot pod, which is cheaper and may be taken within seconds; it then rests with its
        volume disk, and RV(pod.state) is V(outbid).
      - Version 1 of RunPod's REST has spot pods, version 2 has not, and refuses; RunPod is taking them out of its APIs.
        Whether an account is let have them is told nowhere. Nothing else is rented in their place.
      - It is fixed for the life of a pod, and cannot be together with O(stop_after_s) or O(terminate_after_s).
    type: str
    choices: [on-demand, interruptible]
    default: on-demand
  data_centers:
    description: Ids of the data centers to rent in, such as V(EU-RO-1). Any when empty.
    type: list
    elements: str
    default: []
  cuda_versions:
    description: CUDA versions that the machine's driver may have, such as V(12.8). Any when empty.
    type: list
    elements: str
    default: []
  container_disk_gb:
    description: Size of the container disk (C(/)), which every stop wipes.
    type: int
    default: 20
  volume_gb:
    description:
      - Size of the volume disk, which a stop keeps and a termination deletes.
      - Without effect with O(network_volume), which takes its place.
    type: int
    default: 20
  volume_mount_path:
    description: Where the volume disk or network volume is mounted.
    type: str
    default: /workspace
  data_dir:
    description:
      - The folder of the pod where results lie, usually C({{ platform_data_dir }}).
      - A stop keeps it only where it is O(volume_mount_path) of the pod, or below. Else the gate is asked for a stop as
        before a termination, and a warning says so when the pod is rented or found.
      - The folders that plays deployed to are in the box record (M(tenant.gpu.box_record)) and count beside it.
    type: str
    default: /workspace
  network_volume:
    description:
      - Id of a network volume to mount. It outlives the pod, bills by itself, and ties the pod to its data center. It
        cannot be attached later.
    type: str
    default: ''
  ports:
    description: Ports to expose beside ssh's, such as V(8888/http) or V(8000/tcp). A port is of HTTP or of TCP.
    type: list
    elements: str
    default: []
  env:
    description:
      - Environment variables of the pod. The host can read them, so no secrets.
      - C(PUBLIC_KEY) holds the keys that RunPod's images let in. E(TENANT_STAMP) is added.
    type: dict
    default: {}
  start_command:
    description: Words of the command in place of the image's own. The image's own when empty.
    type: list
    elements: str
    default: []
  stop_after_s:
    description:
      - Seconds after which RunPod itself stops a new pod, even if nobody is there to do it. V(0) for never.
      - The pod is then rented by RunPod's GraphQL, the only one of its APIs that takes this. The moment is counted from
        the create, once, and no API moves it; a run that goes on then is interrupted, and goes on after a start.
      - The stop keeps the volume, so O(data_dir) has to be on it. At least 600. A pod that exists is not changed.
    type: int
    default: 0
  terminate_after_s:
    description:
      - Seconds after which RunPod itself terminates a new pod and its volume disk, without a look at the evidence. V(0)
        for never. Prefer O(stop_after_s).
      - It is refused unless a person consented to that loss before the pod is rented, for just these seconds and this
        generation (C(gpu-tenant approve terminate-after NAME --after 2d)). That consent is spent with the create, and
        no API takes the moment back.
      - At least 600, and later than O(stop_after_s). A pod that exists is not changed.
    type: int
    default: 0
  provider_id:
    description: With O(state=stopped) and O(state=absent), only this one of the pods that carry the name.
    type: str
    default: ''
seealso:
  - module: tenant.gpu.runpod_pod_info
  - module: tenant.gpu.vast_instance
"""

EXAMPLES = r"""
- name: Rent a pod, or find it again and start it
  tenant.gpu.runpod_pod:
    project: digits
    name: pod-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    image: runpod/pytorch:2.8.0-py3.11-cuda12.8.1
    gpu_types: [NVIDIA GeForce RTX 4090, NVIDIA RTX A6000]
    volume_gb: 40
    price_cap: 0.80
    env:
      PUBLIC_KEY: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
  delegate_to: localhost
  register: box

- name: Park it, its volume disk bills double from now on
  tenant.gpu.runpod_pod:
    project: digits
    name: pod-a
    state: stopped
    state_dir: ~/.local/state/gpu-tenant
  delegate_to: localhost

- name: Start it to harvest it, with a GPU or without
  tenant.gpu.runpod_pod:
    project: digits
    name: pod-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    price_cap: 0.80
    gpu_required: false
  delegate_to: localhost

- name: Terminate it, which the gate allows once the results are home and somebody approved
  tenant.gpu.runpod_pod:
    project: digits
    name: pod-a
    state: absent
    state_dir: ~/.local/state/gpu-tenant
  delegate_to: localhost
"""

RETURN = r"""
pod:
  description: The pod as the provider shows it; null when there is none (any more, or yet).
  returned: success
  type: dict
  contains:
    provider_id:
      description: The pod's id.
      type: str
      sample: xedezhzb9la3ye
    state:
      description: loading, running, stopped, outbid (a spot pod that was taken) or unknown.
      type: str
      sample: running
    host:
      description: SSH host, checked against a strict pattern; empty while there is none.
      type: str
    port:
      description: SSH port, another one after each start.
      type: int
    user:
      description: SSH login.
      type: str
    num_gpus:
      description: GPUs that it has now.
      type: int
    gpu_type:
      description: RunPod's name of the card.
      type: str
    machine_id:
      description: The machine.
      type: str
    data_center:
      description: Where it is.
      type: str
    market:
      description: on-demand or interruptible.
      type: str
    container_disk_gb:
      description: GB of its container disk, which is new at every start but the first.
      type: float
    volume_gb:
      description: GB of its own volume, which lives as long as the pod; 0 without one.
      type: float
    volume_mount_path:
      description: Where it sees its volume.
      type: str
    network_volume:
      description: The id of its network volume, empty without one.
      type: str
    price_per_hour:
      description: Compute and disks while it runs, dollars an hour.
      type: float
    clocks:
      description: What is billed in each state.
      type: dict
stamp:
  description: The box's stamp, empty when there is no pod.
  returned: success
  type: str
  sample: gt1/digits/pod-a/g1/0123456789abcdef
generation:
  description: The box's generation; each create raises it.
  returned: success
  type: int
superseded:
  description: Other pods that carry the same name. They bill, and must be harvested and terminated.
  returned: success
  type: list
  elements: dict
gate:
  description: >-
    For each pod that went through the gate, the C(rule) that opened it, C(approval_id) and C(approver) where a person
    consented.
  returned: success
  type: list
  elements: dict
would:
  description: >-
    What would be rented or started - C(price_per_hour) (null for a new pod, since it is unknown before), C(price_cap),
    C(clocks), and for a new pod C(gpu_types), C(gpu_count), C(cloud_type) and
    C(market).
  returned: in check mode, when something would be rented or started
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.dollar_budgets import OPTIONS
from ..module_utils.runpod.desired import STATES, converge
from ..module_utils.runpod.options import account_of, desire_of, run_module
from ..module_utils.runpod.rental import MARKETS

SPEC = {
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "state_dir": {"type": "path", "required": True},
    "results_dir": {"type": "path", "default": ""},
    "image": {"type": "str", "default": ""},
    "gpu_types": {"type": "list", "elements": "str", "default": []},
    "gpu_count": {"type": "int", "default": 1},
    "gpu_required": {"type": "bool", "default": True},
    "cloud_type": {"type": "str", "choices": ["secure", "community"], "default": "secure"},
    "market": {"type": "str", "choices": list(MARKETS), "default": "on-demand"},
    "data_centers": {"type": "list", "elements": "str", "default": []},
    "cuda_versions": {"type": "list", "elements": "str", "default": []},
    "container_disk_gb": {"type": "int", "default": 20},
    "volume_gb": {"type": "int", "default": 20},
    "volume_mount_path": {"type": "str", "default": "/workspace"},
    "data_dir": {"type": "str", "default": "/workspace"},
    "network_volume": {"type": "str", "default": ""},
    "ports": {"type": "list", "elements": "str", "default": []},
    "env": {"type": "dict", "default": {}},
    "start_command": {"type": "list", "elements": "str", "default": []},
    "stop_after_s": {"type": "int", "default": 0},
    "terminate_after_s": {"type": "int", "default": 0},
    "price_cap": {"type": "float"},
    "budget_per_hour": {"type": "float"},
    **OPTIONS,
    "wait_s": {"type": "int", "default": 900},
    "verb_keeps": {"type": "dict", "default": {}},
    "provider_id": {"type": "str", "default": ""},
}
RULES = {"required_if": [("state", "present", ["price_cap"]), ("state", "started", ["price_cap"])]}


def act(module: AnsibleModule) -> dict[str, Any]:
    return converge(account_of(module.params), desire_of(module.params), module.check_mode)


def main() -> None:
    run_module(act, argument_spec=SPEC, **RULES)


if __name__ == "__main__":
    main()
