# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The play's own way to a box, for what speaks ssh itself."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import transfer

_ARGUMENTS = ("ssh_args", "ssh_common_args", "ssh_extra_args")


def play_link(connection: Any, become: tuple[str, ...] = ()) -> transfer.Link:
    """From the options of a connection ``ssh``."""
    return transfer.Link(
        host=transfer.check_host(str(connection.get_option("host"))),
        ssh=connection.get_option("ssh_executable"),
        options=transfer.play_options(
            connection.get_option("port"),
            connection.get_option("remote_user"),
            os.path.expanduser(connection.get_option("private_key_file") or ""),
            connection.get_option("timeout"),
            [connection.get_option(name) for name in _ARGUMENTS],
        ),
        control_path=_control_path(connection),
        become=become,
    )


def _control_path(connection: Any) -> str:
    """Where the play's connection listens; empty when it does not share one."""
    texts = [connection.get_option(name) or "" for name in _ARGUMENTS]
    if not any("ControlPersist" in text for text in texts) or any("ControlPath" in text for text in texts):
        return ""
    where = [connection.get_option(name) for name in ("host", "port", "remote_user")]
    path = connection.get_option("control_path") or connection._create_control_path(*where)
    folder = os.path.abspath(os.path.expanduser(connection.get_option("control_path_dir")))
    return str(path % {"directory": folder})
