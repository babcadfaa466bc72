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
    description:
      - What must be inside, with O(level=expect). O(expect.globals) also serves O(level=load).
      - A sharded checkpoint keeps these promises as one, not file by file.
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
      shapes:
        description:
          - Shapes of tensors in every checkpoint, a list of sizes by the name of the tensor.
          - A name is made of the keys that lead to the tensor, joined by dots, such as C(model.layer1.weight).
        type: dict
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
      globals:
        description:
          - Names of classes and functions that a pickle may use, such as C(mypackage.Config), as
            C(torch.serialization.add_safe_globals) takes them.
          - Danger. A file from the box calls what is listed here, with any arguments it likes, on the machine that
            loads it. List only classes whose construction does nothing, and never what opens files, runs commands or
            imports.
          - They are imported from the Python that runs the check, never from the folder of the file. Names that lead
            to a shell, to files or to other names, such as C(os.system), C(builtins.getattr) or
            C(functools.partial), are refused even when listed.
          - Needs torch 2.5 or newer.
        type: list
        elements: str
"""
