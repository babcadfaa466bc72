# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every inventory plugin that lists the boxes of a rental market."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_timeout_s:
    description: Seconds that one request may take before it counts as unanswered.
    type: int
    default: 30
  api_retry_s:
    description: Seconds for which a question without a usable answer is asked again, before that is an error.
    type: int
    default: 90
  project:
    description:
      - The project of the declared hosts.
      - If not set, each host's own C(tenant_project), as far as the sources that were read before this one say it.
    type: str
  state_dir:
    description:
      - The state store (C(tenant_state_dir)). With it, the runs that a box was last known to hold are said
        (C(runs) of the variable) and grouped, and undeclared boxes are reached by their pinned host keys.
    type: path
  unstamped:
    description:
      - Also list boxes without our stamp, in the group C(tenant_unstamped), to see what else the account pays for.
      - They get no address, and no module of this collection touches them.
    type: bool
    default: false
  allow_empty:
    description: Accept that the account has no instance at all, once two answers agree.
    type: bool
    default: false
"""
