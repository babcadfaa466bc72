# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of everything that looks into results."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  level:
    description: How far to look into each file.
    type: str
    choices: [structure, load, expect]
    default: load
  expect:
    description: What must be inside, with O(level=expect).
    type: dict
    default: {}
    suboptions:
      finite:
        description: No NaN and no infinity in any tensor. True when not given.
        type: bool
      min_tensors:
        description: The fewest tensors in a checkpoint. V(1) when not given.
        type: int
      required_keys:
        description: Top-level keys of every checkpoint.
        type: list
        elements: str
      min_step:
        description: The step that the newest checkpoint of every cell must have reached.
        type: int
      resume_state:
        description: The newest checkpoint of every cell must hold the optimizer's and the random state.
        type: bool
      metrics:
        description: Metrics that some JSON file of every cell must have, as finite numbers. A dot leads into mappings.
        type: list
        elements: str
"""
