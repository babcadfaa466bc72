# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_copy
short_description: Have vast.ai copy between two boxes, or a box and a cloud connection
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Asks the provider to copy a folder from one box of the project to another, or between a box and a cloud connection
    of the account, and waits until the provider says how it ended. The boxes may be stopped.
  - The provider tells in status messages only, about half a minute late, in words that it promises nowhere. Its word
    ends the wait and B(proves nothing about the bytes). Build the manifest where they arrived, with
    M(tenant.gpu.manifest), and compare it.
  - What the API can tell is looked at and not taken on trust. A copy that the provider says failed, that stands still,
    that nobody ever spoke of, or of which an end is gone afterwards is a failure. That the bytes are there is nothing
    that the API can tell, so RV(verified) is always V(false), and RV(prove_with) says what would prove it.
  - A copy that fails, stands still or is never heard of is a failure that names it. One that does not end is
    cancelled.
  - Only boxes that carry the project's stamp are copied from or to. One copy at a time is made per box, because its
    one status message would otherwise speak for two.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.vast
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_vast
attributes:
  check_mode:
    support: full
    details:
      - Says what would be copied from where to where. How much that is, nobody knows before the copy.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - A second copy sends only what is missing or differs. It reports no change when the provider says that it sent
        nothing, and a change when the provider does not count.
options:
  project:
    description: The project, usually V(tenant_project).
    type: str
    required: true
  state_dir:
    description: The state store, usually V(tenant_state_dir). A copy of a box at rest is recorded there.
    type: path
    required: true
  source:
    description: Name of the box to copy from.
    type: str
  source_provider_id:
    description: Which instance of O(source), where a superseded one is still there. The current one if not set.
    type: str
  source_path:
    description:
      - What to copy. With a slash at the end the contents of a folder, else the folder itself, as with rsync.
    type: str
    required: true
  dest:
    description: Name of the box to copy to.
    type: str
  dest_path:
    description: The folder to copy into. V(/) and V(/root) are refused, they hold the instance's own ssh folder.
    type: str
    required: true
  connection:
    description:
      - Id or name of a cloud connection of the account, in place of O(source) or O(dest). Its path is then the one
        in the cloud.
    type: str
  at_rest:
    description:
      - Demand that O(source) is stopped before and after the copy and that nobody wants it to run, so that what was
        copied is all that there is. Only then the copy is recorded for M(tenant.gpu.resting_copy).
    type: bool
    default: false
  wait_s:
    description: Deadline for the copy in seconds. It is cancelled then.
    type: int
    default: 3600
  stall_s:
    description: Seconds for which the provider may say the same of a copy under way before it counts as stuck.
    type: int
    default: 600
seealso:
  - module: tenant.gpu.resting_copy
  - module: tenant.gpu.manifest
  - module: tenant.gpu.vast_instance
"""

EXAMPLES = r"""
- name: Bring the records of a stopped box to one that runs
  tenant.gpu.vast_copy:
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
    source: bert-a
    source_path: /workspace/gpu-tenant/
    dest: bert-b
    dest_path: /workspace/gpu-tenant-harvest/bert-a.g2
    at_rest: true
  delegate_to: localhost
  register: resting

- name: Say what would prove it
  ansible.builtin.debug:
    msg: "{{ resting.unproven }}; {{ resting.prove_with }}"

- name: Keep a data set in the team's bucket
  tenant.gpu.vast_copy:
    project: "{{ tenant_project }}"
    state_dir: "{{ tenant_state_dir }}"
    source: bert-b
    source_path: /workspace/data/
    connection: backups
    dest_path: data/2026-11
  delegate_to: localhost
"""

RETURN = r"""
outcome:
  description:
    - V(finished) when the provider said so, V(unsaid) when it stopped speaking of the copy, V(unchanged) when its last
      word is the one of an earlier copy that finished, V(planned) in check mode.
  returned: success
  type: str
  sample: finished
said:
  description: The provider's last word, untrusted text.
  returned: success
  type: str
verified:
  description: Always V(false). No answer of the provider's proves that the bytes arrived.
  returned: success
  type: bool
  sample: false
provider_said_finished:
  description: Whether the provider said of this copy that it finished.
  returned: success
  type: bool
claimed_files:
  description: How many files the provider says it sent; none where it does not count.
  returned: success
  type: int
  sample: 3
claimed_bytes:
  description: How many bytes the provider says it sent; none where it does not count.
  returned: success
  type: int
unproven:
  description: What the provider's word leaves open.
  returned: success
  type: str
  sample: the provider says that it finished; it gives no checksum and no list of what it sent
prove_with:
  description: What proves that the bytes are there.
  returned: success
  type: str
asked_at:
  description: When the copy was asked for, by the controller's clock. What was copied is not older than this.
  returned: success
  type: str
  sample: "2026-11-21T03:38:06Z"
source:
  description: Where it was copied from.
  returned: success
  type: dict
  contains:
    name:
      description: The box, or the cloud connection.
      type: str
    path:
      description: The path there.
      type: str
    provider_id:
      description: The instance, empty for a cloud connection.
      type: str
    generation:
      description: The generation of the box.
      type: int
    state:
      description: Its state after the copy.
      type: str
dest:
  description: Where it was copied to, with the same keys as RV(source). A box is looked at after the copy too.
  returned: success
  type: dict
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.state_store import StateStore
from ..module_utils.vast.actions import Account
from ..module_utils.vast.copy import carry_out, wish_of
from ..module_utils.vast.options import client_of, run_module

SPEC = {
    "project": {"type": "str", "required": True},
    "state_dir": {"type": "path", "required": True},
    "source": {"type": "str"},
    "source_provider_id": {"type": "str"},
    "source_path": {"type": "str", "required": True},
    "dest": {"type": "str"},
    "dest_path": {"type": "str", "required": True},
    "connection": {"type": "str"},
    "at_rest": {"type": "bool", "default": False},
    "wait_s": {"type": "int", "default": 3600},
    "stall_s": {"type": "int", "default": 600},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    store = StateStore(options["state_dir"])
    account = Account(client_of(options), store, read_only=module.check_mode)
    return carry_out(account, wish_of(options), module.check_mode)


def main() -> None:
    run_module(
        act,
        argument_spec=SPEC,
        required_one_of=[("source", "dest")],
        required_by={"source_provider_id": ["source"]},
    )


if __name__ == "__main__":
    main()
