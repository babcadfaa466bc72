# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module promises: check mode, diff mode, idempotence, action group, where it runs.

A module extends ``tenant.gpu.attributes`` and states its own ``support``; an info module adds
``tenant.gpu.attributes.info_module``; a module of an action group adds ``tenant.gpu.attributes.actiongroup_vast``,
``…_runpod``, ``…_lambda`` or ``…_paperspace``; one with an action plugin adds
``tenant.gpu.attributes.action_plugin``, or ``…rental_action`` where that only saves a process.
"""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and predict what would change without changing it.
  diff_mode:
    description: Shows what changed, or in check mode would change, when run with C(--diff).
  idempotent:
    description: A second run with the same options changes nothing, unless the world changed in between.
"""

    # Together with the standard part.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module only reads.
  diff_mode:
    support: N/A
    details:
      - This module only reads.
  idempotent:
    support: full
    details:
      - This module only reads.
"""

    # Together with the standard part.
    ACTIONGROUP_VAST = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/tenant.gpu.vast) in C(module_defaults) to give every module of the group the same options.
    support: full
    membership:
      - tenant.gpu.vast
"""

    # Together with the standard part.
    ACTIONGROUP_RUNPOD = r"""
options: {}
attributes:
  action_group:
    description: With C(group/tenant.gpu.runpod) in C(module_defaults) every module of the group has the same options.
    support: full
    membership:
      - tenant.gpu.runpod
"""

    # Together with the standard part.
    ACTIONGROUP_LAMBDA = r"""
options: {}
attributes:
  action_group:
    description: With C(group/tenant.gpu.lambda) in C(module_defaults) every module of the group has the same options.
    support: full
    membership:
      - tenant.gpu.lambda
"""

    # Together with the standard part.
    ACTIONGROUP_PAPERSPACE = r"""
options: {}
attributes:
  action_group:
    description: >-
      With C(group/tenant.gpu.paperspace) in C(module_defaults) every module of the group has the same options.
    support: full
    membership:
      - tenant.gpu.paperspace
"""

    # Together with the standard part.
    ACTION_PLUGIN = r"""
options: {}
attributes:
  action:
    description: Has an action plugin of the same name, so a part of it runs on the controller.
    support: full
  async:
    description: Supports the C(async) keyword.
    support: none
"""

    # Together with the standard part.
    RENTAL_ACTION = r"""
options: {}
attributes:
  action:
    description: Has an action plugin of the same name, so a part of it runs on the controller.
    support: full
    details:
      - Where it would run on the controller anyway, it is done in the controller's own process. With C(become),
        C(environment), C(async) or another connection than C(local) it runs as a module.
  async:
    description: Supports the C(async) keyword.
    support: full
"""
