#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_job
short_description: Apply, judge or delete a run as a Kubernetes Job beside its volume claim
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Takes the manifests that C(gpu-tenant export RUN --to kubernetes) rendered, and nothing else. They stand under names
    of their own, so that applying them twice makes one Job.
  - Whatever is done, RV(verdict) says what has become of the Job, RV(evidence) what proves it, and RV(next) what to do.
  - What a Job runs cannot be changed. A Job that is there with another spec or other code is left at work, and the task
    fails.
  - With O(state=absent) the Job and its pods are deleted, which asks nobody, because the claim keeps the checkpoints
    and the Job can be applied again. O(claim=absent) deletes the claim too, through the teardown gate. Nobody can look
    into it from outside, so that takes a person's consent to the loss, given for this very claim. No option opens it.
  - What does not carry our label is never touched.
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
    details:
      - The API server checks the manifests, quotas and admission included, and makes nothing.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  manifests:
    description: File of the controller with the manifests.
    type: path
    required: true
  state:
    description: Whether the Job is there.
    type: str
    choices: [present, absent]
    default: present
  claim:
    description: With O(state=absent), what becomes of the volume claim that the manifests bring along.
    type: str
    choices: [kept, absent]
    default: kept
  project:
    description: The project that the run belongs to.
    type: str
    required: true
  state_dir:
    description: The state store (C(tenant_state_dir)), where journal and approvals are.
    type: path
    required: true
  namespace:
    description: Where the Job is.
    type: str
    default: default
  api_url:
    description:
      - Address of the API server. C(kubectl proxy) offers one on this machine, C(http://127.0.0.1:8001), whatever way
        the cluster knows you.
    type: str
    default: ''
  api_key:
    description: A token. Prefer O(api_key_file). None is needed for C(kubectl proxy).
    type: str
  api_key_file:
    description:
      - File on the controller that holds a token and nothing else. The environment variable E(KUBERNETES_TOKEN) is used
        when neither is set.
    type: path
  ca_file:
    description: Certificates that the server's is signed with. Those of the system when empty.
    type: path
    default: ''
  api_timeout_s:
    description: Seconds that one request may take before it counts as unanswered.
    type: int
    default: 30
  wait_s:
    description: Seconds to wait for what was deleted to be gone; pods save once more, so give them their grace.
    type: int
    default: 300
notes:
  - Runs where the manifests and the token are, so delegate it to C(localhost).
  - Tried against an API server made for the tests, not on a real cluster.
seealso:
  - module: tenant.gpu.vast_volume
"""

EXAMPLES = r"""
- name: Apply a run, or see what has become of it
  tenant.gpu.kubernetes_job:
    manifests: digits.yml
    project: vision
    state_dir: ~/.local/state/gpu-tenant
    namespace: training
    api_url: http://127.0.0.1:8001
  delegate_to: localhost
  register: job

- name: Say what to do
  ansible.builtin.debug:
    msg: "{{ job.verdict }}: {{ job.evidence }}. Next: {{ job.next }}"

- name: End it, and keep its checkpoints
  tenant.gpu.kubernetes_job:
    manifests: digits.yml
    project: vision
    state_dir: ~/.local/state/gpu-tenant
    namespace: training
    api_url: http://127.0.0.1:8001
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
verdict:
  description: >-
    What has become of the Job - running, loading, scheduling, loading-stuck, scheduling-stuck, finished, failed,
    stopped, outbid (preempted), exited (evicted), host-offline, zero-gpu, unreachable or gone.
  returned: success
  type: str
  sample: running
reason:
  description: The cluster's own word for it.
  returned: success
  type: str
  sample: Unschedulable
evidence:
  description: What proves it, in one line.
  returned: success
  type: str
  sample: "pod digits-x has no node: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
next:
  description: What to do.
  returned: success
  type: str
pod:
  description: The pod whose word decided; empty where the Job's own did.
  returned: success
  type: str
job:
  description: Name of the Job.
  returned: success
  type: str
claim:
  description: Name of the volume claim that the manifests bring along; empty for none.
  returned: success
  type: str
clocks:
  description:
    - What ends the Job by itself - its own deadline, with C(effect), C(text), C(at), C(left_s) (none before the server
      started it), C(left) and C(is_alarm), which is true in the last hour. Empty for a Job without one.
  returned: success
  type: list
  elements: dict
gate:
  description: For a claim that went through the gate, the C(rule) that opened it and the C(approval_id).
  returned: success
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ..module_utils.box.names import check_name
from ..module_utils.kubernetes.api import KubernetesClient
from ..module_utils.kubernetes.job import KEPT, STATES, Desire, converge, read_manifests
from ..module_utils.kubernetes.manifest_file import documents_in
from ..module_utils.rental_key import api_key_of
from ..module_utils.rental_options import run_module
from ..module_utils.state_store import StateStore

SPEC: dict[str, dict[str, Any]] = {
    "manifests": {"type": "path", "required": True},
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "claim": {"type": "str", "choices": [KEPT, "absent"], "default": KEPT},
    "project": {"type": "str", "required": True},
    "state_dir": {"type": "path", "required": True},
    "namespace": {"type": "str", "default": "default"},
    "api_url": {"type": "str", "default": "", "fallback": (env_fallback, [KubernetesClient.URL_VARIABLE])},
    "api_key": {"type": "str", "no_log": True},
    "api_key_file": {"type": "path", "no_log": False},
    "ca_file": {"type": "path", "default": ""},
    "api_timeout_s": {"type": "int", "default": 30},
    "wait_s": {"type": "int", "default": 300},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    manifests = read_manifests(documents_in(options["manifests"]))
    token = api_key_of(options, KubernetesClient.KEY_VARIABLE)
    client = KubernetesClient(
        token,
        options["api_url"],
        options["namespace"],
        options["ca_file"],
        timeout_s=float(options["api_timeout_s"]),
    )
    project = check_name("project", options["project"])
    desire = Desire(project, options["state"], manifests, options["claim"], float(options["wait_s"]))
    return converge(client, StateStore(options["state_dir"]), desire, module.check_mode)


def main() -> None:
    run_module(act, SPEC, argument_spec={})


if __name__ == "__main__":
    main()
