# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.tenant.gpu.plugins.module_utils.endpoint import is_ssh_word


def ssh_word(value: Any) -> str:
    """The value as it came, if ssh can take it for nothing but a host or the name of a host key."""
    if not is_ssh_word(value):
        raise AnsibleFilterError(
            f"ssh_word: {ascii(value)[:80]} is no host name, no address and no name of a box: ssh could take it for an "
            "option. Nothing was connected to. See who gave the box its name, or set the fact box_endpoint"
        )
    return str(value)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"ssh_word": ssh_word}
