# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.tenant.gpu.plugins.module_utils import danger_clocks as arithmetic


def danger_clocks(clocks: Any, state: str = "", since: Any = None, now: Any = None) -> list[dict[str, Any]]:
    """The clocks of a platform that concern a box, the most urgent first."""
    try:
        return arithmetic.countdown(clocks, state, since, now)
    except ValueError as error:
        raise AnsibleFilterError(f"danger_clocks: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"danger_clocks": danger_clocks}
