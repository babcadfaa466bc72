# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.tenant.gpu.plugins.module_utils.vast.options import shared_options
from ansible_collections.tenant.gpu.plugins.modules import vast_superseded
from ansible_collections.tenant.gpu.plugins.plugin_utils.rental_action import RentalAction


class ActionModule(RentalAction):
    ACT = vast_superseded.act
    SPEC = {**vast_superseded.SPEC, **shared_options()}
