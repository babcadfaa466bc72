#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_probe
short_description: Look at everything that matters on a box, and say whether it is what was asked for
version_added: 0.1.0
description:
  - A few lines of POSIX sh find a Python on a box of which nothing is known yet; then one visit gathers GPUs, the
    driver's CUDA, what torch runs on, bytes and inodes of each disk, the cgroup's limits, the clock, tools and what a
    supervisor left.
  - Every question has a time limit, because a broken driver makes nvidia-smi hang.
  - torch is asked in the Python that trains, with a small product on its device.
  - Whether the box meets O(require) is decided on the controller. A refusal is a result, not a failure, unless
    O(fail_on_refusal) is set.
  - An unreachable box is unreachable as in any other task.
options:
  python:
    description: The Python that trains. If not set, the variable C(platform_python).
    type: str
  data_dir:
    description: Folder for code, runs and caches. If not set, the variable C(platform_data_dir).
    type: str
  durable_kind:
    description: How results outlive the box. If not set, the variable C(platform_durable_kind).
    type: str
    choices: [mount, object, pull, none, ""]
  durable_path:
    description: Path or URI of the durable place. If not set, the variable C(platform_durable_path).
    type: str
  durable_shared:
    description:
      - Whether several boxes see the durable mount. If not set, the variable C(platform_shared_fs).
      - A disk of the machine itself is refused then, and the disk gets a name that every box reads.
    type: bool
  durable_cap_gb:
    description:
      - The quota of the durable mount in units of 10^9 bytes, V(0) for none. If not set, the variable
        C(platform_durable_cap_gb).
    type: float
  durable_inode_cap:
    description:
      - The most files that the durable mount may hold, whatever its file system tells, V(0) for no such cap. If not
        set, the variable C(platform_inode_cap).
    type: int
  hf_home:
    description: Folder of the model cache. If not set, the variable C(platform_hf_home).
    type: str
  require:
    description: What was asked for. A value that is not named asks for nothing.
    type: dict
    default: {}
    suboptions:
      gpu_name:
        description:
          - Name of the card, as the market or as nvidia-smi writes it. Form factor and size are not compared where only
            one side names them; Ti, Super, D, Ada and Laptop always are.
        type: str
      num_gpus:
        description: Least number of GPUs.
        type: int
      min_gpu_ram_gb:
        description: Least memory of each GPU. Seven percent less are admitted, which ECC may take.
        type: float
      cuda:
        description: Whether torch must run on a GPU.
        type: bool
      min_free_gb:
        description: Least free space at the data folder, in units of 10^9 bytes.
        type: float
      min_free_inodes:
        description: Least free inodes at the data folder. File systems that count none are admitted.
        type: int
  fail_on_refusal:
    description: Fail when the box is refused.
    type: bool
    default: false
  torch:
    description: Whether torch is asked at all.
    type: bool
    default: true
  torch_timeout_s:
    description: Seconds that torch may take. Its first import on a slow disk takes long.
    type: float
    default: 120
  nvidia_timeout_s:
    description: Seconds that nvidia-smi may take.
    type: float
    default: 20
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.action_plugin
notes:
  - Outside check mode, a durable mount is proven by a small file that is written, read back and removed at once.
  - A shared one keeps a file C(.gpu-tenant-disk.json) of 100 bytes, which names the disk.
author: The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Probe the box
  tenant.gpu.box_probe:
    require:
      gpu_name: RTX 4090
      min_gpu_ram_gb: 24
      cuda: true
      min_free_gb: 20
  register: probed

- name: Bail out
  ansible.builtin.fail:
    msg: "{{ probed.refusals | join('; ') }}"
  when: not probed.admitted
"""

RETURN = r"""
admitted:
  description: Whether the box meets every wish.
  returned: success
  type: bool
refusals:
  description: One sentence for each wish that it does not meet.
  returned: success
  type: list
  elements: str
  sample: ["offered 24 GB, nvidia-smi reports 16 GB"]
shared_disk:
  description:
    - Other boxes of the project on the same platform that read the same name from their shared durable mount (C(with)),
      and those that read another one (C(apart)) and so do not see what this box writes there.
    - Compared with the boxes that were admitted, by the records of C(tenant_state_dir).
  returned: when the box was looked at
  type: dict
  sample: {"with": ["bert-cn-1"], "apart": ["bert-cn-2"]}
probe:
  description:
    - What the box is. When no usable Python was found, only what plain sh could tell.
  returned: success
  type: dict
  contains:
    statement:
      description: One sentence about what torch runs on.
      type: str
      sample: "torch 2.13.0 runs on the CPU: CUDA is not available"
    python:
      description: The Python that the probe ran in, C(path) and C(version).
      type: dict
    training_python:
      description: The Python that trains, C(path), C(version) and C(why) there is none.
      type: dict
    gpus:
      description: For each GPU C(index), C(name), C(memory_mb), C(memory_used_mb), C(driver), C(uuid).
      type: list
      elements: dict
    nvidia_smi:
      description: Whether nvidia-smi works (C(ok)), else C(why) not.
      type: dict
    cuda:
      description: C(driver_max), the highest CUDA that the driver runs.
      type: dict
    torch:
      description: C(version), C(cuda_built), C(cuda_available), C(device), C(device_name), C(capability), C(error).
      type: dict
    mounts:
      description:
        - For the places C(data), C(durable), C(hf), C(root) and C(shm) their C(role), C(path), C(mount_point),
          C(fstype), C(total_bytes), C(free_bytes), C(total_inodes), C(free_inodes), C(writable).
      type: list
      elements: dict
    durable:
      description:
        - C(kind), C(path), whether a mount is C(real), else C(why) not and C(others), the network disks of the box.
        - C(disk) is the name of a shared disk. C(use) says what of a known quota is used, C(files) the same
          of a known cap on files.
      type: dict
    cgroup:
      description: C(memory_max) and C(memory_used) in bytes, C(cpus), C(oom_kill); none where nobody limits.
      type: dict
    boot:
      description: C(boot_id) and C(pid1_start), which tell a restart of the container.
      type: dict
    clock_skew_s:
      description: Seconds by which the box's clock is ahead of the controller's; none when it does not say.
      type: float
    clock_uncertainty_s:
      description: How far the skew may be off.
      type: float
    login:
      description: C(user), C(auto_tmux) (V(on), V(off), V(absent)) and C(noise) that the login prints.
      type: dict
    endpoint_kind:
      description: V(direct), or V(proxy) where large transfers are slow.
      type: str
    sftp:
      description: Whether an sftp server was found.
      type: bool
    arch:
      description: Architecture of the processor.
      type: str
    tools:
      description: Path of each tool; empty when it is not there.
      type: dict
    supervisor:
      description: What a supervisor left and whether one lives; none where none ever was.
      type: dict
"""
