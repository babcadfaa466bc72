#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_load
short_description: Prove that results load, without running anything from them
version_added: 0.1.0
description:
  - Opens each file with its loader at one of three levels, each including the one before.
  - V(structure) reads every CRC, header and offset with the standard library alone. V(load) reads the file with its
    library. V(expect) looks inside.
  - Nothing in a file is executed. A checkpoint that needs code to load is refused and the code it wants is named. What
    a user trusts can be listed in O(expect.globals); what runs commands is refused even then.
  - Sharded checkpoints, which are torch distributed checkpoints and the folders of Hugging Face, are complete as their
    index tells it, or the missing file and rank are named. The check of the index (C(.metadata), C(*.index.json))
    speaks for the whole folder.
  - Single flipped bits in plain numbers carry no checksum in safetensors and JSON. Only the hashes of a manifest find
    those, which the receipt of a harvest compares.
  - Files are looked at in as many processes as there are cores, with bounded memory, however large the files are.
  - Runs wherever the files are, on the box or on the controller.
options:
  root:
    description: Folder that the files are in.
    type: path
    required: true
  manifest:
    description:
      - The manifest whose files to check, as a mapping.
      - Without it and without O(files), the C(manifest.json) in O(root) is taken.
      - Mutually exclusive with O(files).
    type: dict
  files:
    description: The files to check.
    type: list
    elements: dict
    suboptions:
      path:
        description: Path relative to O(root).
        type: str
        required: true
      loader:
        description:
          - What reads the file. Files of the folder formats V(hf) and V(dcp) go by their ending.
          - In a folder of V(hf), the C(training_args.bin) of a trainer is checked for structure only, because it needs
            code to load and nobody needs it to have the weights.
        type: str
        choices: [torch, safetensors, npz, json, hf, dcp, none]
        default: none
  missing_library:
    description:
      - What to do with O(level=load) where the Python that runs this lacks a library that the files need, or has a
        torch older than 2.1.
      - V(structure) checks every file for its structure, and RV(why_not_loaded) says why no more was done.
    type: str
    choices: [fail, structure]
    default: fail
  deadline_s:
    description: After this many seconds without an answer the box is unreachable. The checkpoints are loaded for it.
    type: float
    default: 21600
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.load_checks
requirements:
  - torch, for O(level=load) of torch checkpoints (C(pip install 'gpu-tenant[torch]'))
  - safetensors and numpy, for O(level=load) of their formats
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Prove that everything that came home loads
  tenant.gpu.verify_load:
    root: "{{ tenant_results_dir }}/digits/run1/box1/g1"
  delegate_to: localhost

- name: Prove that the last checkpoint can be resumed from
  tenant.gpu.verify_load:
    root: /workspace/gpu-tenant/runs/run1
    files:
      - path: c0/a1/out/checkpoints/step-0000000400.pt
        loader: torch
    level: expect
    expect:
      min_step: 400
      resume_state: true

- name: Prove that every rank's file of a distributed checkpoint is there and belongs to it
  tenant.gpu.verify_load:
    root: /workspace/gpu-tenant/runs/run1
    files:
      - {path: c0/a1/out/step-400/.metadata, loader: dcp}
      - {path: c0/a1/out/step-400/__0_0.distcp, loader: dcp}
      - {path: c0/a1/out/step-400/__1_0.distcp, loader: dcp}
    level: expect
    expect:
      shapes:
        model.embedding.weight: [32000, 4096]

- name: Load what a run will go on from with the Python that trains, if it has torch already
  tenant.gpu.verify_load:
    root: /workspace/gpu-tenant/runs/run1
    files: "{{ __deploy_resume.checkpoints | map(attribute='files') | flatten }}"
    missing_library: structure

- name: Load checkpoints that hold an object of a class that is known to be harmless
  tenant.gpu.verify_load:
    root: results
    files:
      - {path: last.pt, loader: torch}
    expect:
      globals:
        - fractions.Fraction
"""

RETURN = r"""
why_not_loaded:
  description: Why only the structure was checked, with O(missing_library=structure); empty when the files were loaded.
  returned: success
  type: str
  sample: /usr/bin/python3 has no torch
checks:
  description: One check per file. That of an index speaks for its folder.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Path relative to the root.
      type: str
    level:
      description: Level that was checked.
      type: str
    loader:
      description: What read the file.
      type: str
    tensors:
      description: Number of tensors, where that was counted.
      type: int
    step:
      description: Training step, where one is known.
      type: int
    finite:
      description: Whether all numbers are finite, where that was looked at.
      type: bool
    ok:
      description: Whether the check passed.
      type: bool
    error:
      description: Why it did not.
      type: str
"""
