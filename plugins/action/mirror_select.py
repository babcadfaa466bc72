# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.tenant.gpu.plugins.plugin_utils.box_module import BoxModule
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import WORK_S


class ActionModule(BoxModule):
    """Runs the module of this name, and believes no fact that it is not there to tell."""

    # As many sources as the inventory names are measured, each for as long as it may take.
    WITHIN_S = WORK_S

    FACTS = ("box_mirrors",)
