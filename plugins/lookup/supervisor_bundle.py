# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402 - ansible-test wants the documentation before the imports

from __future__ import annotations

DOCUMENTATION = r"""
name: supervisor_bundle
short_description: Build the program that runs on the box
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Builds C(supervisor-<sha>.pyz) from this collection's own sources and keeps it in the state store. The same sources
    give the same bytes on every machine.
  - It needs nothing but the standard library, and runs on Python 3.8 and newer.
  - Says where it lies, so that a role can name the file before it brings it to a box.
options:
  _terms:
    description: Not used.
    type: list
    elements: str
  state_dir:
    description: The state store, usually V(tenant_state_dir). The file lies below C(cache).
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Bring the supervisor
  tenant.gpu.box_files:
    files:
      - path: "{{ platform_data_dir }}/gpu-tenant/bin/{{ bundle.name }}"
        src: "{{ bundle.path }}"
        mode: "0755"
  vars:
    bundle: "{{ lookup('tenant.gpu.supervisor_bundle', state_dir=tenant_state_dir) }}"
"""

RETURN = r"""
_raw:
  description: One file.
  type: list
  elements: dict
  contains:
    name:
      description: Its name, which carries the first 12 hex digits of its hash.
      type: str
    path:
      description: Where it lies on the controller.
      type: str
    sha256:
      description: Its hash.
      type: str
"""

import functools
import os
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import sha256_file, write_bytes
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_pyz import build


class LookupModule(LookupBase):
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, str]]:
        self.set_options(var_options=variables, direct=kwargs)
        return [dict(bundle(self.get_option("state_dir")))]


# Once in a process: several variables of one task name the program.
@functools.lru_cache(maxsize=4)
def bundle(state_dir: str) -> dict[str, str]:
    """Name, path and hash of the program, which lies in the cache of this state store afterwards."""
    data, sha256 = build()
    name = f"supervisor-{sha256[:12]}.pyz"
    path = StateStore(state_dir).path("cache", name)
    # A cache of what the installed collection already says: making it changes nothing of the user's.
    if not os.path.exists(path) or sha256_file(path) != sha256:
        write_bytes(path, data, mode=0o644)
    return {"name": name, "path": path, "sha256": sha256}
