# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  volumes:
    description:
      - Volumes that the box is rented with, see M(tenant.gpu.vast_volume). They outlive the box. A volume
        lies on one machine, so only offers of that machine fit.
    type: list
    elements: dict
    default: []
    suboptions:
      volume:
        description: The volume's id (V(31000007) or V(V.31000007)), or the name that it has in O(project).
        type: str
        required: true
      path:
        description: Where the box shall see it, for example V(/data).
        type: str
        required: true
"""
