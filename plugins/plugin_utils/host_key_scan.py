# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host keys that an ssh server shows, and those that are pinned: asked from the controller."""

from __future__ import annotations

import os
import subprocess

from ansible_collections.tenant.gpu.plugins.module_utils import host_keys
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

SCAN_S = 5


def scan_once(host: str, port: int) -> list[host_keys.HostKey]:
    """The keys that are shown now; none when no server answers in time."""
    command = ["ssh-keyscan", "-T", str(SCAN_S), "-p", str(port), "--", host]
    try:
        done = subprocess.run(command, capture_output=True, timeout=6 * SCAN_S, check=False)
    except subprocess.TimeoutExpired:
        return []
    except OSError as error:
        raise TenantFailure(
            "config",
            f"ssh-keyscan cannot be run on the controller: {error.strerror}",
            safe="nothing was connected to",
            fix="install the OpenSSH client",
        ) from None
    return host_keys.parse_scan(done.stdout.decode("utf-8", "replace"))


def read_known_hosts(path: str) -> str:
    """The text of a known_hosts file; empty where there is none."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()
