#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tracker
short_description: Check the experiment tracker of a run before it starts, and recover what it kept afterwards
version_added: 0.1.0
description:
  - Before the launch, the interpreter that trains must have the tracker's package, wandb must have its key, and
    TensorBoard's files are linked into the folder that the platform's own panel shows. What the panel says by its own
    API is returned.
  - After the end, runs that wandb kept on the box only are sent to its server with C(wandb sync), one folder at a time
    and each within its time. Copies are sent, so that no result changes. A run counts as sent only when wandb has
    marked it. TensorBoard has nothing to recover; its panel is asked once more, as only now our run can be listed.
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: path
    required: true
  pyz:
    description: The supervisor program on the box, by default the one that the box itself uses at its start.
    type: path
  state:
    description: V(ready) before the launch, V(recovered) after the end.
    type: str
    choices: [ready, recovered]
    required: true
  run:
    description: The run record, with O(state=ready), as the filter P(tenant.gpu.run_record#filter) makes it.
    type: dict
  run_id:
    description: The run, with O(state=recovered).
    type: str
  logdir:
    description:
      - The folder that the platform's TensorBoard shows, usually C(platform_tensorboard_logdir). Empty for none.
    type: str
    default: ""
  timeout_s:
    description: How long one run may take to be sent.
    type: float
    default: 300
  env:
    description: Environment for sending, besides the run's own.
    type: dict
    default: {}
  proxy_hook:
    description: Shell file on the box that sets proxy variables, or the URL of a proxy.
    type: str
    default: ""
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: partial
    description: Shows the link with O(state=ready).
  idempotent:
    support: full
    description: A run that was sent is not sent again.
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Send what wandb kept on the box
  tenant.gpu.tracker:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    state: recovered
    run_id: digits
"""

RETURN = r"""
package:
  description: The package that was found.
  returned: with O(state=ready)
  type: str
panel:
  description:
    - What a TensorBoard on the box says, C(url), C(logdir), C(shown) (whether it shows this run's folder), C(runs)
      (those of ours that it lists), C(why), and C(told), which is all of it in one sentence. Null for other trackers,
      and with O(state=recovered) where O(logdir) is empty.
  returned: success
  type: dict
runs:
  description:
    - Each run that wandb kept on the box, with C(path), C(state) (V(synced), V(failed), V(timeout), or V(unsent) in
      check mode) and C(why).
  returned: with O(state=recovered)
  type: list
  elements: dict
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""

import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils import tracker_task
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure


def define_module() -> AnsibleModule:
    return AnsibleModule(
        argument_spec={
            "tenant_root": {"type": "path", "required": True},
            "pyz": {"type": "path"},
            "state": {"type": "str", "choices": ["ready", "recovered"], "required": True},
            "run": {"type": "dict"},
            "run_id": {"type": "str"},
            "logdir": {"type": "str", "default": ""},
            "timeout_s": {"type": "float", "default": 300},
            "env": {"type": "dict", "default": {}},
            "proxy_hook": {"type": "str", "default": ""},
        },
        required_if=[("state", "ready", ["run"]), ("state", "recovered", ["run_id"])],
        supports_check_mode=True,
    )


def main() -> None:
    module = define_module()
    try:
        result = tracker_task.act(
            module.params,
            lambda argv, text: module.run_command(argv, data=text),
            sys.executable,
            module.check_mode,
        )
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
