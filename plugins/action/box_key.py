# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import secrets
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.module_utils import public_keys, transfer
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import first_key
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.play_link import play_link
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S


class ActionModule(ControllerAction):
    """Speaks ssh itself, because what comes after it does too: by the key, and never by a password."""

    ARGUMENT_SPEC = {
        "password": {"type": "str", "default": "", "no_log": True},
        "public_key_file": {"type": "path", "required": True},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._box = str(task_vars.get("inventory_hostname", ""))
        if self.check_mode or self._connection.transport != "ssh":
            return {"changed": False, "skipped": True}
        password = params["password"] or os.environ.get(first_key.variable_of(self._box), "")
        if not password:
            self._refuse_denied()
            return {"changed": False}
        link = play_link(self._connection)
        login = first_key.try_key(link)
        if login != first_key.DENIED:
            # Whatever else is wrong, no password mends; the next task says it.
            return {"changed": False}
        self._refuse_jump_host(link, task_vars)
        self._install(link, password, os.path.expanduser(params["public_key_file"]))
        return {"changed": True}

    def _refuse_denied(self) -> None:
        """Over the connection that the next tasks use, so that it costs nothing where the key is let in."""
        try:
            with self.answered_within(ANSWER_S, self._box):
                self._low_level_execute_command("true", executable="/bin/sh")
        except AnsibleConnectionFailure as error:
            said = first_key.said_by(error)
            if first_key.says_denied(said):
                what = f"it does not let your key in, and no password of it is known here: {said}"
                raise first_key.refused(self._box, what) from None

    def _refuse_jump_host(self, link: transfer.Link, task_vars: dict[str, Any]) -> None:
        endpoint = (task_vars.get("ansible_facts") or {}).get("box_endpoint") or {}
        if endpoint.get("proxy") or first_key.has_jump_host(link):
            raise TenantFailure(
                "config",
                "it does not let your key in, and stands behind a jump host, which could ask for its password instead",
                self._box,
                safe="the password was not sent",
                fix="put your public key on the box by ssh-copy-id, or by the provider's console",
            )

    def _install(self, link: transfer.Link, password: str, path: str) -> None:
        text = public_keys.read_public_key(path)
        kind, body = public_keys.parse_public_key(text)
        if not password.isprintable():
            what, fix = "its password holds a line end or a control character", "copy it again, without what follows it"
            raise TenantFailure("config", what, self._box, "nothing was sent to it", fix)
        nonce = f"tenant-{secrets.token_hex(8)}"
        login, is_there = first_key.install(link, password, nonce, f"{kind} {body} gpu-tenant", body)
        if login == first_key.DENIED:
            raise first_key.refused(self._box, "it lets in neither your key nor the password that is known here")
        if not is_there:
            raise TenantFailure(
                "unreachable",
                f"your key could not be put on it by its password: the login was {login}",
                self._box,
                safe="nothing but its authorized_keys was written to",
                fix="log in by hand with the password, and see whether ~/.ssh/authorized_keys can be written to",
            )
        if first_key.try_key(link) != first_key.LET_IN:
            raise TenantFailure(
                "unreachable",
                f"the key of {path} is in its authorized_keys now, and it does not let you in by it",
                self._box,
                safe="nothing but its authorized_keys was written to",
                fix="see that ssh offers the private key of that file (ansible_ssh_private_key_file, or the agent), "
                "and that the box's sshd allows keys",
            )
