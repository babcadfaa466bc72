# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: runpod_network_volume_info
short_description: Show the network volumes of a project on RunPod
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Lists the network volumes that carry the project's stamp, found from the provider alone, with what they cost and
    which pods mount them.
  - Volumes without a stamp are counted, not shown.
  - A malformed answer is an error, never an empty list.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.runpod
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.actiongroup_runpod
options:
  project:
    description: Only volumes of this project. If not set, the volumes of every project.
    type: str
  name:
    description: Only the volumes of this name. Needs O(project).
    type: str
seealso:
  - module: tenant.gpu.runpod_network_volume
"""

EXAMPLES = r"""
- name: Show every network volume of the project
  tenant.gpu.runpod_network_volume_info:
    project: digits
  delegate_to: localhost
  register: storage

- name: Show what bills although nobody uses it
  ansible.builtin.debug:
    msg: "{{ item.name }} costs ${{ item.price_per_hour }}/h"
  loop: "{{ storage.volumes | rejectattr('pods') }}"
"""

RETURN = r"""
volumes:
  description: The volumes, by project, name and generation, the newest of a name first.
  returned: success
  type: list
  elements: dict
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
unstamped:
  description: Number of network volumes of the account that are not ours. They bill too.
  returned: success
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.runpod.options import client_of, run_module
from ..module_utils.runpod.volumes import list_volumes

SPEC = {"project": {"type": "str"}, "name": {"type": "str"}}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    return list_volumes(client_of(options), options["project"], options["name"])


def main() -> None:
    run_module(act, argument_spec=SPEC, required_by={"name": "project"})


if __name__ == "__main__":
    main()
