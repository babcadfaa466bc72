# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of everything that speaks of one generation of one box."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  project:
    description: The project of the box, usually V(tenant_project).
    type: str
    required: true
  box:
    description: The box, usually V(inventory_hostname).
    type: str
    required: true
  generation:
    description: The generation of the box, from the fact C(box_endpoint).
    type: int
    required: true
  provider_id:
    description: The provider's own id of the machine, from the fact C(box_endpoint).
    type: str
    required: true
  state_dir:
    description: The state store, usually V(tenant_state_dir).
    type: path
    required: true
"""
