# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_instance
short_description: Rent, start, stop and destroy boxes on vast.ai
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Brings one box of a project to the wanted state. A box is known by its stamp (project and name), which is written
    into the instance's label and environment, so it is found again from the provider alone.
  - A create is sent once. If its answer is lost, the account is searched for the stamp until the answer is certain.
    Creates of one account happen one at a time, across processes that share O(state_dir).
  - Nothing is rented or started above O(price_cap). A new box that comes out dearer, or that gets stuck
    (loading, scheduling on a GPU that is taken, exited, offline, outbid), is given back, and the next offer is tried.
  - A box that runs and has become dearer than O(price_cap), because its host raised the price or somebody lowered the
    cap, fails the task with the kind C(budget) and is left as it is. To raise the cap is the consent to that price.
  - Destroying deletes the box's disk. With O(state=absent) the evidence gate is asked here, on records re-read now -
    seal, receipts, every byte of every copy, approval - and refuses unless the results are home. No option opens it.
  - Instances without our stamp are never touched.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.rental.box
  - tenant.gpu.vast
  - tenant.gpu.vast_ranking
  - tenant.gpu.vast_volumes
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_vast
  - tenant.gpu.attributes.rental_action
attributes:
  check_mode:
    support: full
    details:
      - For a box that is not rented yet, RV(would) says which offer would be rented, at what price, under which cap.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(state=rebooted) and O(state=recycled) restart the box each time.
options:
  state:
    description:
      - V(present) rents the box if there is none. A box that exists is left as it is, running or stopped. Where it is
        not what is declared, RV(differs) and a warning say so.
      - V(started) also starts a box that is stopped. If it was outbid, its bid is raised within O(price_cap) first.
      - V(stopped) stops computing and keeps the disk, which goes on billing.
      - V(absent) destroys the box and every superseded box of its name, each through the gate.
      - V(rebooted) restarts a box that runs. Its disk is kept, its processes end, and its onstart runs again. Every
        call reboots.
      - V(recycled) makes the container of a box that runs anew from its image. Its disk is wiped, so the gate is asked
        as before a destroy, and the approval is for this verb (C(gpu-tenant approve recycle BOX)). Volumes are kept,
        and the contract, its price and its machine too. The box has new host keys afterwards, of which
        M(tenant.gpu.box_host_key) has to be told. Every call recycles.
    type: str
    choices: [present, started, stopped, rebooted, recycled, absent]
    default: present
  offers:
    description:
      - Offers to rent, tried in order - ids, or rows as returned by M(tenant.gpu.vast_offer_info).
      - Their prices are read again before renting.
      - Needed only when there is no box yet.
    type: list
    elements: raw
    default: []
  rank_offers:
    description:
      - Try O(offers) in the order of their expected cost at the prices of now, and with what the journal in
        O(state_dir) tells of their machines, instead of the order in which they are given.
    type: bool
    default: false
  image:
    description:
      - The container image. A digest pins it, a tag may move.
      - Needed only when there is no box yet, and not with a O(template) that names one.
    type: str
    default: ''
  template:
    description:
      - Hash id, or number, of one of the account's templates. It completes what is declared here and rented as one.
      - O(image) and O(onstart) are the template's only where they are empty here. O(env) and O(ports) are added to
        those of the template, and a variable of O(env) beats the template's of that name.
      - O(disk_gb), the price, the market and that the box is reached by ssh are always what is declared here; the
        template's recommended disk, its search filters and its launch mode are not used.
      - The template is read before anything is rented, and what it brings is checked as if it were declared here.
        Refused are one that the account does not see, one without an image, and one that brings a volume, a network, a
        host name, ranges of ports or E(TENANT_STAMP) by its docker options.
      - In check mode C(template) in RV(would) shows what it brings. An existing box is compared with both together;
        where the template is gone by then, a warning says that it was not.
    type: str
    default: ''
  disk_gb:
    description: Size of the disk in GB. It cannot be changed later.
    type: float
    default: 20.0
  env:
    description:
      - Environment variables of the box. The host can read them, so no secrets.
      - E(TENANT_STAMP) is added.
    type: dict
    default: {}
  onstart:
    description:
      - Shell script that the box runs at every start. Never put a secret into it.
      - The market takes 4048 characters. A longer one is sent gzipped, and refused when that does not fit either.
    type: str
    default: ''
  market:
    description:
      - V(interruptible) boxes bid, and are stopped without notice when somebody bids more.
      - V(on-demand) boxes run until they are stopped.
      - It is fixed for the life of a box.
      - V(reserved) boxes are rented on demand and then paid ahead, which makes them cheaper (O(reserve_months)). A box
        on demand that is there becomes a reserved one.
    type: str
    choices: [interruptible, on-demand, reserved]
    default: interruptible
  reserve_months:
    description:
      - For how many months of 720 hours a box of O(market=reserved) is paid ahead. The market sells 1, 3 and 6 months,
        for which its client's help names discounts of 20, 30 and 40 %.
      - It is paid once in a generation, when the box runs and its price was checked. A box that is paid ahead already
        is left as it is, however little of it remains, because the market computes the discount anew at every payment.
      - What is used up is not renewed; RV(reserved) and a warning say so. To go on, pay in the provider's console.
      - A payment whose answer is lost, or whose sender was killed, stands in the box record, and nothing is sent while
        it stands. A deposit that shows later is taken as it is.
      - Refused when the rental ends before, because nothing comes back then.
      - Only O(state=present) and O(state=started) pay.
    type: float
  reserve_cap:
    description:
      - Most dollars that may be paid ahead, at once. This is the consent to it, and O(price_cap) is not.
      - Offers that would cost more are not rented.
      - When the box is destroyed, the market gives back what is left less what the discount had saved; a warning says
        how much, in check mode too.
    type: float
  bid:
    description:
      - Bid at least this, in dollars an hour for the whole box.
      - Never more than O(price_cap) less the price of the disk.
    type: float
  bid_margin:
    description: Bid the least that runs, and this share of it on top.
    type: float
    default: 0.1
  bulk_transfer:
    description:
      - Declares that large files will move to or from the box. Offers of hosts that the market has not verified, or
        that have no direct port, are then refused, because every byte would go through the provider's proxy.
    type: bool
    default: false
  exclude_machines:
    description: Machine ids never to rent.
    type: list
    elements: int
    default: []
  ports:
    description:
      - Ports of the box to open beside ssh's, as V(8080) or V(8080/udp). Each is mapped to a port of the machine that
        the provider picks, which RV(instance.ports) and the box's variable C(VAST_TCP_PORT_8080) tell.
      - Only offers with so many direct ports are rented. Ports are fixed for the life of a box.
    type: list
    elements: str
    default: []
  price_rises:
    description:
      - What to answer when the host of a box that exists raises its prices, asked with O(state=present) and
        O(state=started). Until a rise is accepted the old price holds, and the rental is no longer extended by itself.
      - V(tell) answers nothing. What is asked stands in RV(price_rises) and in a warning.
      - V(accept) accepts what stays within O(price_cap), and tells of the rest.
      - V(accept_or_reject) accepts what stays within O(price_cap), and rejects the rest, after which the box stops when
        its rental ends.
      - O(price_cap) says nothing of traffic, so that a rise of its price is never accepted by itself, and what the
        provider does not state well enough to be weighed is only told.
    type: str
    choices: [tell, accept, accept_or_reject]
    default: tell
  public_key_file:
    description:
      - A C(.pub) file whose key the account shall have before anything is rented, as M(tenant.gpu.vast_ssh_key) puts it
        there. A box gets the keys that the account has when it is rented.
      - Only O(state=present) and O(state=started) look at it.
    type: path
  provider_id:
    description:
      - With every O(state) but V(present) and V(started), only this one of the boxes that carry the name.
      - Used to deal with a superseded box.
    type: str
    default: ''
  replaces:
    description:
      - With O(state=present) and O(state=started), the id of a box of this name that is lost for its job. As long as it
        is the current one, it is told to stop, and one of O(offers) on another machine is rented as the next
        generation.
      - With O(volumes), it is one on the machine where they lie, which may be the same.
      - Once another box is the current one, this option changes nothing, so the same call may be repeated.
      - The replaced box keeps its disk and is superseded from then on, see M(tenant.gpu.vast_superseded).
    type: str
    default: ''
seealso:
  - module: tenant.gpu.vast_offer_info
  - module: tenant.gpu.vast_instance_info
  - module: tenant.gpu.vast_ssh_key
"""

EXAMPLES = r"""
- name: Rent the best offer, or find the box again
  tenant.gpu.vast_instance:
    project: digits
    name: vast-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    offers: "{{ market.offers }}"
    image: pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime
    disk_gb: 40
    price_cap: 0.45
    onstart: "{{ lookup('ansible.builtin.file', 'onstart.sh') }}"
  delegate_to: localhost
  register: box

- name: Rent what a template of the account says, with one more variable
  tenant.gpu.vast_instance:
    project: digits
    name: vast-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    offers: "{{ market.offers }}"
    template: 4e17788f74f075dd9aab7d0d4427968f
    env:
      WANDB_MODE: offline
    price_cap: 0.45
  delegate_to: localhost

- name: Rent on the machine of a volume, and mount it
  tenant.gpu.vast_instance:
    project: digits
    name: vast-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    offers: "{{ market.offers }}"
    image: pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime
    price_cap: 0.45
    volumes:
      - volume: imagenet
        path: /data
  delegate_to: localhost

- name: Pay three months ahead, for a job that runs as long
  tenant.gpu.vast_instance:
    project: digits
    name: vast-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    offers: "{{ market.offers }}"
    image: pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime
    market: reserved
    reserve_months: 3
    reserve_cap: 700
    price_cap: 0.45
  delegate_to: localhost

- name: Park it
  tenant.gpu.vast_instance:
    project: digits
    name: vast-a
    state: stopped
    state_dir: ~/.local/state/gpu-tenant
  delegate_to: localhost

- name: Go on with another machine, the box that was outbid keeps its disk
  tenant.gpu.vast_instance:
    project: digits
    name: vast-a
    state: started
    state_dir: ~/.local/state/gpu-tenant
    offers: "{{ market.offers }}"
    image: pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime
    price_cap: 0.45
    replaces: "20000123"
  delegate_to: localhost

- name: Begin anew on the same machine, which the gate allows once the results are home
  tenant.gpu.vast_instance:
    project: digits
    name: vast-a
    state: recycled
    state_dir: ~/.local/state/gpu-tenant
  delegate_to: localhost

- name: Destroy it, which the gate allows once the results are home and somebody approved
  tenant.gpu.vast_instance:
    project: digits
    name: vast-a
    state: absent
    state_dir: ~/.local/state/gpu-tenant
    verb_keeps: "{{ platform_verbs }}"
  delegate_to: localhost
"""

RETURN = r"""
instance:
  description: The box as the provider shows it; null when there is none (any more, or yet).
  returned: success
  type: dict
  contains:
    provider_id:
      description: The instance's id.
      type: str
      sample: "20000123"
    state:
      description: loading, running, stopped, outbid, scheduling, exited, offline or unknown.
      type: str
      sample: running
    host:
      description: SSH host, checked against a strict pattern; empty while there is none.
      type: str
    port:
      description: SSH port.
      type: int
    ports:
      description: >-
        Where the ports beside ssh's are reached while the box runs, each as C(host) and C(port), by names such as
        C(8080/tcp).
      type: dict
    user:
      description: SSH login.
      type: str
    proxy:
      description: Whether the endpoint is the provider's proxy.
      type: bool
    machine_id:
      description: The machine.
      type: int
    market:
      description: V(interruptible) or V(on-demand).
      type: str
    price_per_hour:
      description: Compute and disk, dollars an hour.
      type: float
    bid:
      description: What it bids, dollars an hour; null on demand.
      type: float
    clocks:
      description: What is billed in each state, and when the rental ends.
      type: dict
stamp:
  description: The box's stamp, empty when there is no box.
  returned: success
  type: str
  sample: gt1/digits/vast-a/g1/0123456789abcdef
generation:
  description: The box's generation; each create raises it.
  returned: success
  type: int
superseded:
  description: Other boxes that carry the same name. They bill, and must be harvested and destroyed.
  returned: success
  type: list
  elements: dict
rejected:
  description: Boxes that were rented and given back on the way, each with C(machine_id) and C(reason).
  returned: success
  type: list
  elements: dict
gate:
  description: >-
    For each box that went through the gate, the C(rule) that opened it, C(approval_id) and C(approver) where a person
    consented.
  returned: success
  type: list
  elements: dict
offer:
  description: >-
    The offer that was rented - C(id), C(machine_id), C(cost_per_useful_hour), C(cost_parts) and C(why), as
    M(tenant.gpu.vast_offer_info) returns them, at the price of renting.
  returned: when a box was rented
  type: dict
differs:
  description:
    - Where a box that exists is not what is declared - C(name), what it C(is) and what is C(declared), each also in the
      diff and in a warning. Image, disk, volumes, ports, environment, onstart and market are fixed when a box is
      rented, so it is left as it is. They are compared when O(image) is given. Of the environment only names are shown.
  returned: success
  type: list
  elements: dict
price_rises:
  description: What the box's host asks from now on, and what was (or in check mode would be) answered.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The provider's number of the demand.
      type: int
    provider_id:
      description: The box that it is about.
      type: str
    verdict:
      description: V(accepted), V(rejected) or V(told).
      type: str
    objection:
      description: Why O(price_cap) does not consent to it; empty when it does.
      type: str
    price_per_hour:
      description: Compute and disk as they are, dollars an hour.
      type: float
    new_price_per_hour:
      description: The same once it is accepted; null when the provider does not tell.
      type: float
    new_traffic_per_gb:
      description: >-
        Dollars a GB that traffic costs once it is accepted, by C(bwd) (down) and C(bwu) (up); empty where it stays.
      type: dict
    rental_ends:
      description: When the rental ends if it is not accepted.
      type: str
    extended_to:
      description: When it ends at the earliest if it is accepted.
      type: str
reserved:
  description: What is paid ahead for the box.
  returned: with O(market=reserved), when the box runs and is or was paid ahead
  type: dict
  contains:
    refundable:
      description: Dollars that come back if the box is destroyed now.
      type: float
    months_left:
      description: How long the deposit lasts while the box runs, in months of 720 hours.
      type: float
    used_up:
      description: Whether it was paid ahead and nothing is left; it then bills its full price.
      type: bool
    paid:
      description: Dollars that this call paid; not there when an earlier one did.
      type: float
    months:
      description: For how many months the market said that it lasts.
      type: float
    discount:
      description: By which fraction an hour is cheaper.
      type: float
would:
  description: >-
    What would be rented or started - C(offer) with its C(why), C(cost_parts) and C(cost_per_useful_hour),
    C(bid), C(price_per_hour), C(price_cap), C(image), C(template) with what it brings, C(clocks). With
    O(market=reserved), for a box that runs, C(pay_ahead) dollars for C(reserve_months).
  returned: in check mode, when something would be rented or started
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.dollar_budgets import OPTIONS
from ..module_utils.public_keys import read_public_key
from ..module_utils.rental_states import PRESENT, STARTED
from ..module_utils.vast.desired import STATES, converge
from ..module_utils.vast.instance_options import RESERVED, account_of, desire_of
from ..module_utils.vast.keys import ensure_ssh_key
from ..module_utils.vast.options import ranking_options, run_module, volume_options
from ..module_utils.vast.price_rises import POLICIES

SPEC = {
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "state_dir": {"type": "path", "required": True},
    "results_dir": {"type": "path", "default": ""},
    "offers": {"type": "list", "elements": "raw", "default": []},
    "image": {"type": "str", "default": ""},
    "template": {"type": "str", "default": ""},
    "disk_gb": {"type": "float", "default": 20.0},
    "env": {"type": "dict", "default": {}},
    "ports": {"type": "list", "elements": "str", "default": []},
    "onstart": {"type": "str", "default": ""},
    "market": {"type": "str", "choices": ["interruptible", "on-demand", RESERVED], "default": "interruptible"},
    "reserve_months": {"type": "float"},
    "reserve_cap": {"type": "float"},
    "bid": {"type": "float"},
    "bid_margin": {"type": "float", "default": 0.1},
    "price_cap": {"type": "float"},
    "budget_per_hour": {"type": "float"},
    **OPTIONS,
    "bulk_transfer": {"type": "bool", "default": False},
    "exclude_machines": {"type": "list", "elements": "int", "default": []},
    **volume_options(),
    "wait_s": {"type": "int", "default": 900},
    "verb_keeps": {"type": "dict", "default": {}},
    "public_key_file": {"type": "path", "no_log": False},
    "provider_id": {"type": "str", "default": ""},
    "replaces": {"type": "str", "default": ""},
    "price_rises": {"type": "str", "choices": list(POLICIES), "default": "tell"},
    "rank_offers": {"type": "bool", "default": False},
    **ranking_options(),
}
RULES = {"required_if": [("state", "present", ["price_cap"]), ("state", "started", ["price_cap"])]}


def act(module: AnsibleModule) -> dict[str, Any]:
    desire, account = desire_of(module.params), account_of(module.params)
    if not module.params["public_key_file"] or desire.state not in (PRESENT, STARTED):
        return converge(account, desire, module.check_mode)
    key = ensure_ssh_key(account.client, read_public_key(module.params["public_key_file"]), PRESENT, module.check_mode)
    result = converge(account, desire, module.check_mode)
    diff = {side: {**key["diff"][side], **result["diff"][side]} for side in ("before", "after")}
    return {**result, "changed": key["changed"] or result["changed"], "diff": diff}


def main() -> None:
    run_module(act, argument_spec=SPEC, **RULES)


if __name__ == "__main__":
    main()
