#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: manifest
short_description: Build or compare the manifest of a run where its files are
version_added: 0.1.0
description:
  - A manifest is the roster of a run's artifacts with path, bytes, SHA-256 and role; every byte is read for it.
  - Refused are symlinks, unsafe names, files that change while they are read, damaged files, and artifacts that are no
    longer what was verified when their cell finished.
  - Works on the box with O(tenant_root), or on any folder with O(path) and O(globs).
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: path
  run_id:
    description: The run, required with O(tenant_root). With O(path) the name that the manifest carries.
    type: str
  snapshot:
    description:
      - Take a manifest while cells live. Of those it lists the newest sound checkpoint and the metrics so far, of which
        a copy is kept in the attempt's folder because the file itself grows.
      - A snapshot never leads to a complete receipt.
    type: bool
    default: false
  roles:
    description:
      - With O(snapshot), roles of artifacts that this snapshot lists. The choice in force stays as it is.
      - An empty list is the choice in force, see M(tenant.gpu.harvest_policy).
    type: list
    elements: str
    default: []
  exclude:
    description: With O(snapshot), globs of files that it leaves out, as M(tenant.gpu.harvest_policy) takes them.
    type: list
    elements: str
    default: []
  versions:
    description:
      - With O(tenant_root), whether the Python that trains is started to ask it for its version and that of torch.
      - Say V(false) for a folder that was copied from another box, because nothing from there may be executed.
    type: bool
    default: true
  path:
    description: A folder to list instead of a run.
    type: path
  globs:
    description: What to list below O(path).
    type: list
    elements: dict
    suboptions:
      glob:
        description: Relative pattern. V(*) stays within a folder, V(**) spans folders.
        type: str
        required: true
      role:
        description: What the files are.
        type: str
        choices: [checkpoint, metrics, log, other]
        default: other
      loader:
        description: How their structure is checked.
        type: str
        choices: [torch, safetensors, npz, json, none, dcp, hf]
        default: none
  project:
    description: With O(path), the project that the manifest carries.
    type: str
    default: ""
  generation:
    description: With O(path), the generation that the manifest carries.
    type: int
    default: 0
  compare:
    description: A manifest to compare the files with.
    type: dict
  dest:
    description: Where to write the manifest on the box. Nothing is written there without it.
    type: path
  deadline_s:
    description: After this many seconds without an answer the box is unreachable. Every byte is read for it.
    type: float
    default: 21600
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
    description: Builds and compares, and writes neither O(dest) nor the copy of the metrics.
  diff_mode:
    support: full
    description: Shows the digest in O(dest) before and after.
  idempotent:
    support: full
    description: O(dest) is left alone while the digest is the same.
seealso:
  - module: tenant.gpu.harvest_policy
  - module: tenant.gpu.checked_sync
  - module: tenant.gpu.verify_load
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Take the manifest of a finished run
  tenant.gpu.manifest:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    run_id: digits
  register: run_manifest

- name: Compare a folder with it
  tenant.gpu.manifest:
    path: /mnt/durable/vision/digits
    globs:
      - glob: "**"
    compare: "{{ run_manifest.manifest }}"
  register: durable_copy
  failed_when: not durable_copy.comparison.equal
"""

RETURN = r"""
manifest:
  description: The manifest.
  returned: success
  type: dict
  contains:
    files:
      description: C(path), C(bytes), C(sha256), C(role) and C(loader) of each file, sorted by path.
      type: list
      elements: dict
    totals:
      description: Number of files and bytes.
      type: dict
    digest:
      description: SHA-256 over project, run_id, generation and files in canonical JSON.
      type: str
    snapshot:
      description: Whether cells may have been alive.
      type: bool
    state:
      description: State of the run.
      type: str
    policy:
      description: The roles and globs that it was made under, see M(tenant.gpu.harvest_policy).
      type: dict
root:
  description:
    - The folder below which the listed files lie. Those of a snapshot are held by hard links in a folder of their own,
      so that a trainer that removes its old checkpoints takes none from a copy that is under way; the next manifest of
      the run lets go of them.
  returned: with O(tenant_root)
  type: str
not_pulled:
  description:
    - What lies in the run's folders on the box and is not in the manifest, so that leaving it is a decision. The
      supervisor's own records are not counted.
  returned: with O(tenant_root)
  type: dict
  contains:
    files:
      description: How many files.
      type: int
    bytes:
      description: How many bytes they have together.
      type: int
    listed:
      description: The largest of them, each with C(path), C(bytes) and C(why) it is not in the manifest.
      type: list
      elements: dict
    summary:
      description: All of it in one sentence, empty when nothing stays.
      type: str
provenance:
  description:
    - What the box says of how the run was made, C(code_sha256), C(spec_sha256), C(seeds) of the cells, C(python) and
      C(torch) that train, C(packages_sha256) of the packages beside them, and C(supervisor_sha256). Empty values are
      unknown.
  returned: with O(tenant_root)
  type: dict
comparison:
  description: How the files differ from O(compare).
  returned: with O(compare)
  type: dict
  contains:
    equal:
      description: Whether they are the same.
      type: bool
    missing:
      description: Promised and not there.
      type: list
      elements: str
    extra:
      description: There and not promised.
      type: list
      elements: str
    different:
      description: There with other content.
      type: list
      elements: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
