# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.tenant.gpu.plugins.module_utils import young_daly as arithmetic


def young_daly(mu_s: Any, c_s: Any, sec_per_step: Any = None, workers: Any = 1) -> float:
    """Seconds between two checkpoints, by Young and Daly."""
    try:
        return arithmetic.checkpoint_interval_s(mu_s, c_s, sec_per_step, workers)
    except ValueError as error:
        raise AnsibleFilterError(f"young_daly: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"young_daly": young_daly}
