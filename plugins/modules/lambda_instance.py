# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_instance
short_description: Rent or terminate an instance on Lambda
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Brings one box of a project to the wanted state. The instance is known by the stamp in its name, and in its tag
    C(tenant-stamp) should the name be edited.
  - What is free at Lambda comes and goes within minutes. With O(capacity_wait_s) the module asks until one of
    O(instance_types) is free within O(price_cap), where O(file_systems) lie, and launches it at once.
  - A launch is sent once. When its answer is lost, the account is searched for the stamp before anything else is done.
  - A new instance that does not come up is terminated again; the gate lets that through, because nothing was ever put
    on it.
  - O(state=absent) goes through the teardown gate. Lambda deletes the instance's disk with it, so the gate opens only
    for an instance that was never used, or once the results are home. No option opens it.
  - There is no state of rest. O(state=stopped) fails, and says so; a shutdown from inside leaves the instance
    C(unhealthy) (Alert in the console), and it bills on.
  - Instances without our stamp are never touched. File systems are never created and never deleted.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.rental.box
  - tenant.gpu.lambda_cloud
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_lambda
attributes:
  check_mode:
    support: full
    details:
      - For an instance that is not rented yet, RV(would) says what would be launched where, at what price.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) and V(started) launch an instance if there is none, and wait until it runs.
      - V(stopped) always fails, because nothing at Lambda does so. Harvest the box, then make it V(absent).
      - V(absent) terminates the instance and every superseded one of its name, each through the gate.
    type: str
    choices: [present, started, stopped, absent]
    default: present
  instance_types:
    description:
      - Lambda's names of the types to rent, tried in order, such as V(gpu_1x_a10).
      - Needed only when there is no instance yet.
    type: list
    elements: str
    default: []
  regions:
    description:
      - Regions to rent in, tried in order, such as V(us-west-1). Any when empty.
      - With O(file_systems) it is their region, and this can only forbid it.
    type: list
    elements: str
    default: []
  ssh_key:
    description:
      - Name of the account's SSH key that is let in; Lambda takes exactly one.
      - This or O(public_key_file) is needed when there is no instance yet.
    type: str
    default: ''
  public_key_file:
    description:
      - File of the public key that is let in where O(ssh_key) names none. An account that lacks it gets it, as
        C(gpu-tenant-) and a part of its hash.
    type: path
  file_systems:
    description:
      - Names of file systems to attach, all of one region. Each is mounted below C(/lambda/nfs).
      - They outlive the instance, bill by themselves, and cannot be attached later.
    type: list
    elements: str
    default: []
  image_family:
    description: Family of the machine image. Lambda's own newest one (Lambda Stack) when empty.
    type: str
    default: ''
  capacity_wait_s:
    description: Seconds to ask until an instance is free. With V(0) it is asked once.
    type: int
    default: 1800
  wait_s:
    description:
      - Seconds to wait for an instance to run, or to be gone.
      - An instance with eight GPUs takes 25 minutes to boot.
    type: int
    default: 2400
  restart_unhealthy:
    description:
      - Whether an instance that is unhealthy is restarted. That keeps its disk, and ends whatever runs on it.
      - An unhealthy instance may still be at work, and merely not be heard of. Look before you set this.
    type: bool
    default: false
  provider_id:
    description: With O(state=absent), only this one of the instances that carry the name.
    type: str
    default: ''
seealso:
  - module: tenant.gpu.lambda_instance_info
  - module: tenant.gpu.runpod_pod
  - module: tenant.gpu.vast_instance
"""

EXAMPLES = r"""
- name: Rent an instance as soon as one is free, or find it again
  tenant.gpu.lambda_instance:
    project: digits
    name: box-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    instance_types: [gpu_1x_a10, gpu_1x_a100_sxm4]
    ssh_key: laptop
    file_systems: [results]
    price_cap: 2.00
    capacity_wait_s: 7200
  delegate_to: localhost
  register: box

- name: Restart it after somebody shut it down from inside
  tenant.gpu.lambda_instance:
    project: digits
    name: box-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    price_cap: 2.00
    restart_unhealthy: true
  delegate_to: localhost

- name: Terminate it, which the gate allows once the results are home and somebody approved
  tenant.gpu.lambda_instance:
    project: digits
    name: box-a
    state: absent
    state_dir: ~/.local/state/gpu-tenant
  delegate_to: localhost
  register: gone

- name: Say what bills on
  ansible.builtin.debug:
    msg: "{{ item.name }} in {{ item.region }} holds {{ item.gib }} GiB, ${{ item.price_per_hour }} an hour"
  loop: "{{ gone.file_systems }}"
"""

RETURN = r"""
instance:
  description: The instance as the provider shows it; null when there is none (any more, or yet).
  returned: success
  type: dict
  contains:
    provider_id:
      description: The instance's id.
      type: str
      sample: 0920582c7ff041399e34823a0be62549
    state:
      description: loading, running, offline (unhealthy) or unknown.
      type: str
      sample: running
    status:
      description: The provider's own word - booting, active, unhealthy, terminating or preempted.
      type: str
      sample: active
    alert:
      description: Whether it is unhealthy, which the console calls Alert. It bills all the same.
      type: bool
    host:
      description: SSH host, checked against a strict pattern; empty while there is none. Each launch has another.
      type: str
    port:
      description: SSH port, 22 but on the marketplace.
      type: int
    user:
      description: SSH login, which has sudo.
      type: str
      sample: ubuntu
    num_gpus:
      description: GPUs of its type.
      type: int
    instance_type:
      description: Lambda's name of the type.
      type: str
    region:
      description: Where it is.
      type: str
    file_systems:
      description: Names of the file systems that it sees.
      type: list
      elements: str
    mount_points:
      description: Where it sees them.
      type: list
      elements: str
    price_per_hour:
      description: Dollars an hour, root disk included.
      type: float
    clocks:
      description: What is billed.
      type: dict
stamp:
  description: The box's stamp, empty when there is no instance.
  returned: success
  type: str
  sample: gt1/digits/box-a/g1/0123456789abcdef
generation:
  description: The box's generation; each launch raises it.
  returned: success
  type: int
superseded:
  description: Other instances that carry the same name. They bill, and must be harvested and terminated.
  returned: success
  type: list
  elements: dict
gate:
  description: >-
    For each instance that went through the gate, the C(rule) that opened it, C(approval_id) and C(approver) where a
    person consented.
  returned: success
  type: list
  elements: dict
file_systems:
  description: The account's file systems, which bill until they are deleted, whether an instance uses them or none.
  returned: with O(state=absent)
  type: list
  elements: dict
  contains:
    id:
      description: The provider's id of it.
      type: str
    name:
      description: Its name.
      type: str
    region:
      description: Where it lies.
      type: str
    mount_point:
      description: Where an instance that it is attached to sees it.
      type: str
    in_use:
      description: Whether an instance sees it; null where the provider does not say.
      type: bool
    gib:
      description: What lies in it, by the provider's estimate of every few hours; null where there is none.
      type: float
    price_per_hour:
      description: Dollars an hour for that.
      type: float
would:
  description: >-
    What would be launched now - C(instance_type), C(region), C(price_per_hour), C(price_cap), C(file_systems), and as
    C(problem) what is not free.
  returned: in check mode, when something would be launched
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.dollar_budgets import OPTIONS
from ..module_utils.lambda_cloud.desired import STATES, converge
from ..module_utils.lambda_cloud.options import account_of, desire_of, run_module

SPEC = {
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "state_dir": {"type": "path", "required": True},
    "results_dir": {"type": "path", "default": ""},
    "instance_types": {"type": "list", "elements": "str", "default": []},
    "regions": {"type": "list", "elements": "str", "default": []},
    "ssh_key": {"type": "str", "default": "", "no_log": False},
    "public_key_file": {"type": "path", "no_log": False},
    "file_systems": {"type": "list", "elements": "str", "default": []},
    "image_family": {"type": "str", "default": ""},
    "price_cap": {"type": "float"},
    "budget_per_hour": {"type": "float"},
    **OPTIONS,
    "capacity_wait_s": {"type": "int", "default": 1800},
    "wait_s": {"type": "int", "default": 2400},
    "restart_unhealthy": {"type": "bool", "default": False},
    "verb_keeps": {"type": "dict", "default": {}},
    "provider_id": {"type": "str", "default": ""},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    return converge(account_of(module.params), desire_of(module.params), module.check_mode)


def main() -> None:
    consent = [("state", "present", ["price_cap"]), ("state", "started", ["price_cap"])]
    run_module(act, argument_spec=SPEC, required_if=consent)


if __name__ == "__main__":
    main()
