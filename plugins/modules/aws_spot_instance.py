#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_spot_instance
short_description: Rent or terminate a Spot Instance on Amazon EC2
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Brings one box of a project to the wanted state. The instance is known by the stamp in its tag C(gpu-tenant-stamp),
    and until it is tagged by the same tag of its Spot request.
  - What changes anything on EC2 is a module of the collection C(amazon.aws) - C(ec2_spot_instance), C(ec2_instance),
    C(ec2_key) and C(ec2_tag). It has to be installed where Ansible runs, and boto3 with it.
  - A Spot request is one-time, is sent with a client token, and has as its limit O(price_cap) less the root disk. One
    that is not filled within O(capacity_wait_s) is cancelled before the next type is tried. When an answer is lost it
    is sent again with the same token, which EC2 takes for the same request.
  - A new instance that does not come up is terminated again; the gate lets that through, because nothing was ever put
    on it.
  - O(state=absent) goes through the teardown gate. EC2 deletes the root disk with the instance, so the gate opens only
    for an instance that was never used, or once the results are home. No option opens it.
  - There is no state of rest. O(state=stopped) fails, and says so, because EC2 stops no instance of a one-time request.
  - What does not carry our stamp is never listed and never touched.
extends_documentation_fragment:
  - tenant.gpu.rental.box
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    details:
      - For an instance that is not rented yet, RV(would) says what the types cost now, and under which limit.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) and V(started) rent an instance if there is none, and wait until it runs.
      - V(stopped) always fails. Harvest the box, then make it V(absent).
      - V(absent) terminates the instance and every superseded one of its name, each through the gate, and cancels
        requests of its name that nothing came of.
    type: str
    choices: [present, started, stopped, absent]
    default: present
  region:
    description: The AWS region, such as V(us-east-1). What the AWS configuration of the controller says when empty.
    type: str
    default: ''
  profile:
    description: Profile of C(~/.aws/config). The usual order of AWS credentials when empty.
    type: str
    default: ''
  api_url:
    description: Another address of EC2's API, for tests. Only https, or http on a loopback or private address.
    type: str
    default: ''
  api_timeout_s:
    description: Seconds that one request may take before it counts as unanswered.
    type: int
    default: 30
  ssh_user:
    description: Login of the machine image. It is tagged, so that the instance itself tells how one logs in.
    type: str
    default: ubuntu
  ssh_port:
    description: Where the sshd of the machine image listens, tagged likewise.
    type: int
    default: 22
  instance_types:
    description:
      - Instance types to rent, tried in order, such as V(g5.xlarge).
      - Needed only when there is no instance yet.
    type: list
    elements: str
    default: []
  image:
    description: Id of a machine image (AMI) of the region, with a driver for the GPU. Needed to rent.
    type: str
    default: ''
  public_key:
    description:
      - Text of the public SSH key that is let in. It is registered as a key pair that is named after it.
      - Needed only when there is no instance yet.
    type: str
    default: ''
  security_groups:
    description: Ids of security groups. One has to let the controller in by SSH; the default group does not.
    type: list
    elements: str
    default: []
  subnet:
    description: Id of a subnet, and with it the availability zone. EC2 picks one of the default VPC when empty.
    type: str
    default: ''
  disk_gb:
    description: Size of the root disk (gp3), which is deleted with the instance.
    type: int
    default: 100
  capacity_wait_s:
    description:
      - Seconds that a request of one instance type may stay unfilled.
      - Nothing else is rented on the account meanwhile.
    type: int
    default: 120
  provider_id:
    description: With O(state=absent), only this one of the instances that carry the name.
    type: str
    default: ''
notes:
  - Runs on the controller, so delegate it to C(localhost).
  - Credentials come by AWS's own chain, and are no option, so that they stand in no variable.
seealso:
  - module: tenant.gpu.lambda_instance
  - module: tenant.gpu.runpod_pod
  - module: tenant.gpu.vast_instance
"""

EXAMPLES = r"""
- name: Rent a Spot Instance, or find it again
  tenant.gpu.aws_spot_instance:
    project: digits
    name: box-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    region: eu-west-1
    instance_types: [g5.xlarge, g4dn.xlarge]
    image: ami-0123456789abcdef0
    public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    security_groups: [sg-0123456789abcdef0]
    disk_gb: 100
    price_cap: 0.60
  delegate_to: localhost
  register: box

- name: Terminate it, which the gate allows once the results are home and somebody approved
  tenant.gpu.aws_spot_instance:
    project: digits
    name: box-a
    state: absent
    state_dir: ~/.local/state/gpu-tenant
    region: eu-west-1
  delegate_to: localhost
  register: gone

- name: Say what bills on
  ansible.builtin.debug:
    msg: "{{ item.volume_id }} ({{ item.gb }} GB) was not deleted with its instance"
  loop: "{{ gone.left }}"
"""

RETURN = r"""
instance:
  description: The instance as EC2 shows it; null when there is none (any more, or yet).
  returned: success
  type: dict
  contains:
    provider_id:
      description: The instance's id, or its Spot request's while nothing came of that.
      type: str
      sample: i-0123456789abcdef0
    state:
      description: scheduling (a request), loading, running, stopped or unknown.
      type: str
      sample: running
    status:
      description: EC2's own word - requested, pending, running, stopping, stopped or shutting-down.
      type: str
      sample: running
    host:
      description: SSH host, the public address or the private one where there is no other. Empty while there is none.
      type: str
    port:
      description: SSH port.
      type: int
    user:
      description: SSH login.
      type: str
    instance_type:
      description: EC2's name of the type.
      type: str
    zone:
      description: Availability zone.
      type: str
    gpu_name:
      description: The cards of its type; empty where it has none.
      type: str
    num_gpus:
      description: How many.
      type: int
    price_per_hour:
      description: Dollars an hour at today's Spot price, and for its disks at most; null where it is not told.
      type: float
    max_price:
      description: The limit of its request. EC2 ends the instance rather than bill more for it.
      type: float
    volumes:
      description: Ids of its disks.
      type: list
      elements: str
    clocks:
      description: What is billed.
      type: dict
stamp:
  description: The box's stamp, empty when there is no instance.
  returned: success
  type: str
  sample: gt1/digits/box-a/g1/0123456789abcdef
generation:
  description: The box's generation; each rental raises it.
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
left:
  description: Volumes of this box that no instance uses. They bill until a person deletes them.
  returned: with O(state=absent)
  type: list
  elements: dict
  contains:
    volume_id:
      description: Its id.
      type: str
    gb:
      description: Its size.
      type: int
    state:
      description: EC2's word for what it does.
      type: str
    price_per_hour_at_most:
      description: Dollars an hour, by the price of the dearest region.
      type: float
would:
  description: >-
    What would be rented now - C(spot_prices) by instance type, C(max_price), C(price_cap), C(region), and as C(problem)
    that none of them is that cheap.
  returned: in check mode, when something would be rented
  type: dict
"""
