#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: receipt
short_description: Record that the results of a run are home, whole, and load
version_added: 0.1.0
description:
  - Works on the controller and touches no box. It withdraws the old receipt, hashes every file of the manifest where it
    lies, loads every file that has a loader, and only then writes the new receipt.
  - A standing receipt for the same manifest, level and run state is kept when every file still hashes right.
  - The gate asks for a complete receipt of every run before anything irreversible. A receipt is complete when the
    run is done, the manifest is not a snapshot and lists files, and its files were loaded, not only looked at.
  - A run over several boxes (O(parts)) has a receipt for each. Where it has sharded files (loader V(dcp) or V(hf)),
    none of them is complete before all parts are home and were loaded as one in O(whole_root).
  - What is not given of O(copies), O(parts), O(provenance) and O(not_pulled) stays as a receipt for the same files
    says it.
  - Nothing in the files is executed.
options:
  run_id:
    description: The run.
    type: str
    required: true
  root:
    description: Folder on the controller that the manifest's files lie in.
    type: path
    required: true
  manifest:
    description: The manifest's file on the controller. C(manifest.json) in O(root) when not given.
    type: path
  run_state:
    description: The supervisor's word for the run. Only V(done) makes a receipt complete.
    type: str
    default: unknown
  snapshot:
    description: Whether this is a copy of a live run. Such a receipt is never complete.
    type: bool
    default: false
  how:
    description: How the copy was made.
    type: str
    choices: [pulled, reread]
    default: pulled
  copies:
    description:
      - Further copies of the same files, such as the C(copy) that M(tenant.gpu.checked_sync) returns for an object
        store. Each is read again where it lies before the receipt names it.
    type: list
    elements: dict
  parts:
    description: Names of all boxes that hold a part of the run, this one among them.
    type: list
    elements: str
  whole_root:
    description:
      - Folder on the controller where the sharded files of all parts are put together, by reflink or hard link.
      - C(whole) two folders above O(root) when not given.
    type: path
  provenance:
    description:
      - What is known of how the results were made, usually what M(tenant.gpu.manifest) returns. It is completed from
        the record of the box. What nobody knows is recorded as V(unknown). Never a secret.
    type: dict
  not_pulled:
    description:
      - What was left on the box, with C(files), C(bytes) and the list C(listed) of C(path), C(bytes) and C(why), as
        M(tenant.gpu.manifest) returns it.
    type: dict
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.box_identity
  - tenant.gpu.attributes.action_plugin
  - tenant.gpu.load_checks
attributes:
  check_mode:
    support: full
    description: Verifies everything and writes nothing.
  diff_mode:
    support: full
    description: Shows what the old and the new receipt say.
  idempotent:
    support: full
    description: A standing receipt whose files hash right is kept as it is.
seealso:
  - module: tenant.gpu.checked_sync
  - module: tenant.gpu.teardown_gate
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Record that the run is home
  tenant.gpu.receipt:
    project: "{{ tenant_project }}"
    run_id: digits-1
    box: "{{ inventory_hostname }}"
    generation: "{{ ansible_facts['box_endpoint']['generation'] }}"
    provider_id: "{{ ansible_facts['box_endpoint']['provider_id'] }}"
    state_dir: "{{ tenant_state_dir }}"
    root: "{{ tenant_results_dir }}/{{ tenant_project }}/digits-1/{{ inventory_hostname }}/g1"
    run_state: done
    provenance: "{{ digits_manifest.provenance }}"
    not_pulled: "{{ digits_manifest.not_pulled }}"
"""

RETURN = r"""
receipt:
  description: The receipt in force, or in check mode the one that would be written.
  returned: success
  type: dict
  contains:
    home:
      description: Whether everything of this box is home and verified.
      type: bool
    complete:
      description: Whether the gate may rely on it; for a part of a sharded run, whether the whole is home and loads.
      type: bool
    incomplete_because:
      description: What it lacks, in words.
      type: list
      elements: str
    waits_for:
      description: Parts of a sharded run that are not home yet.
      type: list
      elements: str
    whole:
      description: Where the sharded whole lies, its digest, files, bytes and checks; none before all parts are home.
      type: dict
    copies:
      description: Where the files are, each with C(uri), C(version_id), C(sha256), C(how) and C(at).
      type: list
      elements: dict
    checks:
      description: How each file with a loader loaded.
      type: list
      elements: dict
    not_pulled:
      description: The largest files that stayed on the box, each with C(path), C(bytes) and C(why).
      type: list
      elements: dict
    not_pulled_totals:
      description: How many files, and bytes, stayed on the box in all.
      type: dict
    provenance:
      description:
        - C(code_sha256), C(spec_sha256), C(seeds), C(platform), C(machine_id), C(gpus), C(driver), C(cuda), C(torch),
          C(python), C(packages_sha256), C(supervisor_sha256) and C(cost); V(unknown) where nobody knows.
      type: dict
"""
