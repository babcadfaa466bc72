#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_files
short_description: Put folders and small files on a box, all in one go
version_added: 0.1.0
description:
  - Makes folders and brings files from the controller, in one question and one answer where nothing differs, and one
    more of each where something does. A task for each file costs several round trips and a start of Python apiece.
  - A file is compared by its SHA-256, replaced whole (written beside it, flushed to disk, renamed) and read again.
    Whoever holds the old one open keeps it. A link in its place is replaced, not followed.
  - Contents pass through a module's arguments, so this is for programs, never for secrets (M(tenant.gpu.secrets)), and
    for some hundred kilobytes, not for data (M(tenant.gpu.checked_sync)).
options:
  folders:
    description: Folders that shall be there, parents first.
    type: list
    elements: path
    default: []
  folder_mode:
    description: Mode of each of O(folders), in octal digits.
    type: str
    default: "0700"
  files:
    description: Files that shall be there.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it shall lie on the box.
        type: path
        required: true
      mode:
        description: Its mode, four octal digits.
        type: str
        default: "0644"
      src:
        description: The file on the controller. Either this or O(files[].content).
        type: path
      content:
        description: Its content.
        type: str
  send:
    description:
      - V(differing) asks the box first, and sends what it does not have.
      - V(all) sends every content with the question, which saves a round trip on a box that has none of them. What it
        has all the same is left alone.
    type: str
    choices: [differing, all]
    default: differing
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    description: Shows the text of files below 8 KiB, and mode and hash of others.
  idempotent:
    support: full
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Bring the programs
  tenant.gpu.box_files:
    folders:
      - "{{ platform_data_dir }}/gpu-tenant"
      - "{{ platform_data_dir }}/gpu-tenant/bin"
    files:
      - path: "{{ platform_data_dir }}/gpu-tenant/bin/{{ bundle.name }}"
        src: "{{ bundle.path }}"
        mode: "0755"
      - path: "{{ platform_data_dir }}/gpu-tenant/bin/resume-all"
        content: "{{ lookup('ansible.builtin.template', 'resume-all.j2') }}"
        mode: "0755"
"""

RETURN = r"""
paths:
  description: The folders and files that were not as wanted, and now are (in check mode, would be).
  returned: success
  type: list
  elements: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
