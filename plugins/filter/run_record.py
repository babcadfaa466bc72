# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import run_record


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"run_record": run_record}
