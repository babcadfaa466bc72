#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror_select
short_description: Measure mirrors from a box, use the best of them, and give everything back
version_added: 0.1.0
description:
  - For each class of artifacts, fetches one small file of known hash from the direct source and from each mirror, from
    the box itself and over the routes that a real transfer can take (past the platform's proxy and through it), and
    uses what is fastest. Where a box stands decides nothing.
  - A source whose file has another hash, that lists files and does not give them, or that stalls, is not used. Where no
    mirror works the direct source is used, and the other way round.
  - Writes the user's C(pip.conf), a file for conda, the box's package lists and one environment file,
    C(mirrors.env) below O(tenant_root), which the supervisor loads for its fetcher and for every trainer. Nothing is
    set for the whole box.
  - A measurement is used again until it is O(valid_s) old, the question changes, or a fetch of inputs failed with what
    was chosen. A source that failed so is then used only where nothing else works.
  - Needs nothing on the box but Python (3.8 or newer), and git to measure the class C(git).
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: path
    required: true
  state:
    description:
      - V(present) measures where that is due, and writes what was chosen.
      - V(absent) gives back every file. One that nobody changed since is what it was before, byte by byte; from one
        that somebody changed only what is ours is taken.
    type: str
    choices: [present, absent]
    default: present
  classes:
    description:
      - How each class is measured. The keys are V(pip), V(conda), V(hf), V(git), V(torch) and V(docker).
      - Each has C(direct) (the address that is used without a mirror) and C(probe). The way of a probe is C(file) with
        C(path) below the address (C(direct_path) where the direct source has another) and C(sha256); C(index) with
        C(project), C(file) and C(sha256), as pip finds a wheel; C(git) with C(path), C(ref) and C(commit); or
        C(registry) with C(image) and the C(sha256) of one platform's manifest of it, whose largest layer is fetched
        too.
      - The class V(apt) is measured by a package list of the box's own distribution, and V(modelscope) is not measured,
        because what comes from there counts by the hash that Hugging Face has.
    type: dict
    default: {}
  candidates:
    description:
      - The mirrors, each with C(class), a C(name) of its own within its class, and C(url).
      - One for V(apt) also has C(archive), the address in the package lists that it stands for, and C(suite), by
        default the code name of the distribution, which C({codename}) stands for.
    type: list
    elements: dict
    default: []
  proxy_hook:
    description: Shell file on the box that sets proxy variables, or the URL of a proxy.
    type: str
    default: ""
  proxy_hosts:
    description:
      - The domains that the proxy lets through, where it refuses all others. It is then asked for these and what lies
        below them, by our own fetcher and by git, and no other program of the box is told of it.
    type: list
    elements: str
    default: []
  no_proxy:
    description: Hosts that are never asked for through a proxy. They are added to what the hook and the box exempt.
    type: list
    elements: str
    default: []
  valid_s:
    description: How long a measurement is used again.
    type: float
    default: 86400
  remeasure:
    description: Measure now, however fresh the last measurement is.
    type: bool
    default: false
  margin:
    description: What is used stays unless another source is this many times as fast.
    type: float
    default: 1.5
  stall_s:
    description: A source that sends nothing for this long stalls.
    type: float
    default: 5
  within_s:
    description: A source that has not given its file after this long is too slow.
    type: float
    default: 20
  pip_conf:
    description: The configuration of pip.
    type: path
    default: ~/.config/pip/pip.conf
  conda_file:
    description: The file for conda, in one of the folders that it merges.
    type: path
    default: ~/.conda/condarc.d/gpu-tenant.yml
  apt_dir:
    description: The folder of apt. Without the right to write there, apt is left alone.
    type: path
    default: /etc/apt
  docker_config:
    description:
      - The configuration of the Docker daemon, which reads it at its start. Where its folder is not, or may not be
        written to, the class V(docker) is left alone.
    type: path
    default: /etc/docker/daemon.json
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
    description: Measures where that is due, for nobody can foretell it, and says what would be written.
  diff_mode:
    support: full
  idempotent:
    support: full
    description: A valid measurement is used again, and another one does not change the box for a little more speed.
seealso:
  - module: tenant.gpu.inputs
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Use what is fastest from this box
  tenant.gpu.mirror_select:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    classes:
      pip:
        direct: https://pypi.org/simple
        probe:
          way: index
          project: pip
          file: pip-24.0-py3-none-any.whl
          sha256: ba0d021a166865d2265246961bec0152ff124de910c5cc39f1156ce3fa7c69dc
    candidates:
      - {class: pip, name: office, url: "https://pypi.example.org/simple"}
    proxy_hook: "{{ platform_proxy_hook }}"

- name: Give back what was there before
  tenant.gpu.mirror_select:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    state: absent
"""

RETURN = r"""
mirrors:
  description: What was chosen.
  returned: success
  type: dict
  contains:
    chosen:
      description: For each class that was measured, C(name) (V(direct) or the mirror's), C(url) and C(route).
      type: dict
    environment:
      description: What processes that call out are given, with what the proxy hook sets now.
      type: dict
    pip_args:
      description: What pip needs on its command line, which is where alone it can be told to use no proxy.
      type: str
    samples:
      description: Each source that was measured, with C(outcome), C(seconds), C(bytes) and C(why). The outcome
        is V(good), V(wrong), V(no_file), V(stalled), V(slow), V(unreachable) or V(blocked).
      returned: with O(state=present)
      type: list
      elements: dict
    measured:
      description: Whether this run measured.
      returned: with O(state=present)
      type: bool
    measured_at:
      description: When that was done last, by the clock of the box.
      returned: with O(state=present)
      type: str
    blocked:
      description: Hosts that the proxy does not let through, which says nothing about their speed.
      returned: with O(state=present)
      type: list
      elements: str
    unusable:
      description: Classes for which no source worked. They are left at the direct one.
      returned: with O(state=present)
      type: list
      elements: str
ansible_facts:
  description: C(box_mirrors), with C(chosen), C(environment) and C(pip_args).
  returned: success
  type: dict
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import task


def define_module() -> AnsibleModule:
    return AnsibleModule(
        argument_spec={
            "tenant_root": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "classes": {"type": "dict", "default": {}},
            "candidates": {"type": "list", "elements": "dict", "default": []},
            "proxy_hook": {"type": "str", "default": ""},
            "proxy_hosts": {"type": "list", "elements": "str", "default": []},
            "no_proxy": {"type": "list", "elements": "str", "default": []},
            "valid_s": {"type": "float", "default": 86400},
            "remeasure": {"type": "bool", "default": False},
            "margin": {"type": "float", "default": 1.5},
            "stall_s": {"type": "float", "default": 5},
            "within_s": {"type": "float", "default": 20},
            "pip_conf": {"type": "path", "default": "~/.config/pip/pip.conf"},
            "conda_file": {"type": "path", "default": "~/.conda/condarc.d/gpu-tenant.yml"},
            "apt_dir": {"type": "path", "default": "/etc/apt"},
            "docker_config": {"type": "path", "default": "/etc/docker/daemon.json"},
        },
        supports_check_mode=True,
    )


def main() -> None:
    module = define_module()
    try:
        result = task.act(module.params, module.check_mode)
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
