# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_logs
short_description: Read the log of a box on vast.ai
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Has the provider collect the log of a box, of its container or of the host's daemon, and returns its end. The box
    may be stopped, and need not be reachable by ssh.
  - Waiting and size are bounded. A log that is longer loses its beginning, because the end tells what happened.
  - Secrets are masked - the account's key, what O(secrets) names, and what looks like one (tokens of known services,
    values of variables called token, key, secret or password, private keys). A secret that looks like nothing is not
    recognised, so a log is still not for everybody's eyes.
  - The text is a stranger's. Control sequences are taken out of it, and Ansible never templates it.
  - Only boxes that carry the project's stamp are asked for.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.vast
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.actiongroup_vast
  - tenant.gpu.attributes.rental_action
options:
  project:
    description: The project, usually V(tenant_project).
    type: str
    required: true
  name:
    description: The box.
    type: str
    required: true
  provider_id:
    description: Which instance of O(name), where a superseded one is still there. The current one if not set.
    type: str
    default: ''
  of:
    description: V(instance) for what the container wrote, V(daemon) for what the host says about it.
    type: str
    choices: [instance, daemon]
    default: instance
  tail:
    description: Only so many lines from the end, counted by the provider; V(0) for all.
    type: int
    default: 1000
  filter:
    description: Only lines that hold this text.
    type: str
    default: ''
  secrets:
    description: Texts to mask wherever they stand. Shorter ones than four characters are not masked.
    type: list
    elements: str
    default: []
  max_bytes:
    description: At most so many bytes from the end.
    type: int
    default: 1048576
  wait_s:
    description: Seconds to wait for the log to appear.
    type: int
    default: 30
  state_dir:
    description:
      - The state store, usually V(tenant_state_dir). It knows which boxes were destroyed, so that a list of the
        provider's that lags behind does not bring one of them back.
    type: path
seealso:
  - module: tenant.gpu.vast_instance_info
"""

EXAMPLES = r"""
- name: See why the container ended
  tenant.gpu.vast_logs:
    project: "{{ tenant_project }}"
    name: "{{ inventory_hostname }}"
    tail: 100
    secrets: ["{{ lookup('ansible.builtin.env', 'WANDB_API_KEY') }}"]
  delegate_to: localhost
  register: log

- name: See what the host says of a box that does not come up
  tenant.gpu.vast_logs:
    project: "{{ tenant_project }}"
    name: "{{ inventory_hostname }}"
    of: daemon
  delegate_to: localhost
"""

RETURN = r"""
log:
  description: The end of the log, masked. Untrusted text.
  returned: success
  type: str
lines:
  description: Number of its lines.
  returned: success
  type: int
truncated:
  description: Whether its beginning was left out because of O(max_bytes). What O(tail) leaves out does not count.
  returned: success
  type: bool
of:
  description: Whose log it is, as in O(of).
  returned: success
  type: str
provider_id:
  description: The instance.
  returned: success
  type: str
generation:
  description: The generation of the box.
  returned: success
  type: int
state:
  description: The state of the box when it was asked.
  returned: success
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.vast.logs import Wish, read_log
from ..module_utils.vast.options import client_of, run_module, store_of

SPEC = {
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "provider_id": {"type": "str", "default": ""},
    "of": {"type": "str", "choices": ["instance", "daemon"], "default": "instance"},
    "tail": {"type": "int", "default": 1000},
    "filter": {"type": "str", "default": ""},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "max_bytes": {"type": "int", "default": 1048576},
    "wait_s": {"type": "int", "default": 30},
    "state_dir": {"type": "path"},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    wish = Wish(
        project=options["project"],
        name=options["name"],
        provider_id=options["provider_id"],
        daemon=options["of"] == "daemon",
        tail=options["tail"],
        wanted=options["filter"],
        wait_s=float(options["wait_s"]),
        max_bytes=options["max_bytes"],
        secrets=options["secrets"],
    )
    return read_log(client_of(options), wish, store_of(options))


def main() -> None:
    run_module(act, argument_spec=SPEC)


if __name__ == "__main__":
    main()
