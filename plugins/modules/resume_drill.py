#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: resume_drill
short_description: Prove on the box that a run goes on after a kill, before it is trained
version_added: 0.1.0
description:
  - Starts the command of a registered run under a supervisor of its own, kills everything with SIGKILL in mid-epoch
    after the first checkpoint, starts the same command again, and compares the metrics of both tries.
  - It passes when the first step is the one after the newest whole checkpoint, and the losses of steps that both tries
    made are the same. That is within O(tolerance), or bit for bit where the trainer says that it is deterministic, as
    C(tenant_checkpoint.py) does when torch was told to be.
  - Everything happens in C(drills/) below O(tenant_root), with a copy of the code, and never on the durable mount. The
    real run finds none of it. After a drill that passed only its verdict is left; after another one all of it.
  - The verdict is kept on the box and, on the controller, in the state store. The task fails when the drill does.
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: str
    required: true
  pyz:
    description:
      - The supervisor program on the box.
      - By default the one that the box itself uses at its start, else the newest in C(bin/) of O(tenant_root).
    type: str
  run_id:
    description: The run. It must be deployed, and nothing may train on the box.
    type: str
    required: true
  cell:
    description: The cell to drill, by default the first one.
    type: str
  deadline_s:
    description: Seconds that the whole drill may take. A trainer that has not saved by then has failed it.
    type: float
    default: 900
  tolerance:
    description: How much a loss may differ from the one before the kill, as a share of the larger one.
    type: float
    default: 0.05
  again:
    description: Drill although this very work has passed on this box.
    type: bool
    default: false
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.box_identity
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Says whether it would drill. Nothing is started.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: A drill that has passed for this spec, box and generation is not repeated.
seealso:
  - module: tenant.gpu.supervisor
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Prove that the run goes on after a kill
  tenant.gpu.resume_drill:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    run_id: "{{ ansible_facts['run_spec']['id'] }}"
    deadline_s: 600
    project: "{{ tenant_project }}"
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    state_dir: "{{ tenant_state_dir }}"
"""

RETURN = r"""
drill:
  description: The verdict record, null in check mode when there is none yet.
  returned: always
  type: dict
  contains:
    passed:
      description: Whether the run goes on where it was saved.
      type: bool
    reason:
      description:
        - C(passed), C(started_again), C(steps_skipped), C(loss_differs), C(no_losses), C(no_progress),
          C(no_checkpoint), C(no_metrics), C(ended_early), C(trainer_failed) or C(not_started).
      type: str
    why:
      description: The same in a sentence.
      type: str
    saved_step:
      description: Step of the newest whole checkpoint at the kill, null when its name carries none.
      type: int
    killed_at_step:
      description: The last step that the first try noted.
      type: int
    steps_from:
      description:
        - Where the steps were read, C(metrics), C(tensorboard) or C(regex). Null when nothing was killed.
      type: str
    mid_epoch:
      description: Whether the kill was in mid-epoch, null when the steps do not say.
      type: bool
    resumed_at_step:
      description: The first step of the second try.
      type: int
    compared:
      description: How many losses were compared.
      type: int
    worst_difference:
      description: The largest relative difference among them.
      type: float
    tolerance:
      description: What was allowed, 0 for a deterministic trainer.
      type: float
    losses:
      description: Step, loss before and loss after the kill, of the first steps that both tries made.
      type: list
      elements: list
    seconds:
      description: How long the drill took.
      type: float
    kept:
      description: Folder on the box where a failed drill can be looked at, empty after one that passed.
      type: str
    log_tail:
      description: The last lines of the trainer of a failed drill.
      type: list
      elements: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""

import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.resume_drill import drill_here


def define_module() -> AnsibleModule:
    return AnsibleModule(
        argument_spec={
            "tenant_root": {"type": "str", "required": True},
            "pyz": {"type": "str"},
            "run_id": {"type": "str", "required": True},
            "cell": {"type": "str"},
            "deadline_s": {"type": "float", "default": 900},
            "tolerance": {"type": "float", "default": 0.05},
            "again": {"type": "bool", "default": False},
            "project": {"type": "str", "required": True},
            "box": {"type": "str", "required": True},
            "generation": {"type": "int", "required": True},
            "provider_id": {"type": "str", "required": True},
            "state_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )


def main() -> None:
    module = define_module()
    try:
        answer = drill_here(
            module.params, lambda argv, text: module.run_command(argv, data=text), sys.executable, module.check_mode
        )
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
