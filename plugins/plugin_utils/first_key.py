# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first contact with a box that has a password and no key yet: the team's public key is put there, once.

The password goes from an environment variable of ssh to its askpass program, which prints it: it is in no argument, no
file and no log. ssh asks for it only after it has proven the pinned host key, and only the box itself, no jump host.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ansible_collections.tenant.gpu.plugins.module_utils import transfer
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.ssh_log import SshLog, refuses_key, was_denied

LET_IN, DENIED, OTHER_KEY, UNSEEN = "let in", "denied", "other key", "unseen"
LONGEST_S = 60.0
_SSH_FAILED = 255
_VARIABLE = "GPU_TENANT_ASKPASS_WORD"
# ssh runs it with the prompt as its argument; without a terminal nothing else can answer.
_ASKPASS = f"#!/bin/sh\nprintf '%s\\n' \"${_VARIABLE}\"\n"
_INSTALL = r"""
umask 077
f="$HOME/.ssh/authorized_keys"
mkdir -p "$HOME/.ssh" && touch "$f" && chmod 700 "$HOME/.ssh" && chmod 600 "$f" || exit 1
if ! grep -v '^[[:space:]]*#' "$f" | grep -qF -- "$b"; then
  [ -z "$(tail -c 1 "$f")" ] || echo >>"$f"
  printf '%s\n' "$k" >>"$f" || exit 1
fi
printf '%s installed\n' "$n"
"""


def variable_of(box: str) -> str:
    """The environment variable of the controller that holds the password of a box; of one box, not of all."""
    return "TENANT_PASSWORD_" + re.sub(r"[^A-Za-z0-9]", "_", box).upper()


def install_script(nonce: str, public_key: str, body: str) -> str:
    """Plain sh that leaves the key in ``authorized_keys`` once, and says ``installed``."""
    names = {"n": nonce, "k": public_key, "b": body}
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in names.items()) + _INSTALL.strip() + "\n"


def password_argv(link: transfer.Link) -> list[str]:
    """ssh up to the host, by password alone: one try, on a connection of its own. What stands first wins in ssh."""
    argv = [link.ssh, "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=no", "-o", "PubkeyAuthentication=no"]
    argv += ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "NumberOfPasswordPrompts=1"]
    argv += ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "PermitLocalCommand=no", "-T", "-x", "-a"]
    argv += transfer.without_multiplexing(link.options)
    return argv + (["-E", link.log] if link.log else [])


def has_jump_host(link: transfer.Link) -> bool:
    """Whether the play's own arguments lead through another host, whose ssh would be given the password as well."""
    words = [word.lower().removeprefix("-o").lstrip() for word in link.options]
    return any(word.startswith("-J") for word in link.options) or any(
        word.startswith(("proxyjump", "proxycommand")) for word in words
    )


def try_key(link: transfer.Link) -> str:
    """Whether the box lets the team's key in, on a connection of its own."""
    return _run(replace(link, become=()), lambda logged: transfer.far_argv(logged, ["true"], True), {})[0]


def install(link: transfer.Link, password: str, nonce: str, public_key: str, body: str) -> tuple[str, bool]:
    """(what became of the login, whether the key is there now)."""
    script = shlex.join(["/bin/sh", "-c", install_script(nonce, public_key, body)])
    with tempfile.TemporaryDirectory(prefix="tenant-askpass-") as folder:
        askpass = os.path.join(folder, "askpass")
        with open(os.open(askpass, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "w", encoding="ascii") as stream:
            stream.write(_ASKPASS)
        # Before OpenSSH 8.4 a display had to be named for the program to be asked.
        how = {"SSH_ASKPASS": askpass, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0", _VARIABLE: password}
        login, said = _run(link, lambda logged: [*password_argv(logged), "--", logged.host, script], how)
    return login, f"{nonce} installed" in said.splitlines()


def _run(
    link: transfer.Link, argv_of: Callable[[transfer.Link], Sequence[str]], more: Mapping[str, str]
) -> tuple[str, str]:
    """(what became of the login, what the command printed)."""
    with SshLog() as log:
        try:
            done = subprocess.run(
                argv_of(replace(link, log=log.path)),
                env={**os.environ, **more},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LONGEST_S,
                check=False,
                # Without a terminal ssh has nobody but the program to ask.
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return UNSEEN, ""
        except OSError as error:
            fix = "install the OpenSSH client"
            what = f"ssh cannot be run on the controller: {error.strerror}"
            raise TenantFailure("config", what, safe="nothing was connected to", fix=fix) from None
        written = log.read()
    if refuses_key(written):
        return OTHER_KEY, ""
    if was_denied(written):
        return DENIED, ""
    return (UNSEEN if done.returncode == _SSH_FAILED else LET_IN), done.stdout.decode("utf-8", "replace")


# --- what is said of it -------------------------------------------------------------------------------------------


def where_to_put(box: str) -> str:
    return (
        "copy the login anew from the provider's console (after each start the port may be another one, and so may "
        "the password): ansible_host and ansible_port into the inventory, the password into the environment variable "
        f"{variable_of(box)} or, from a vault, into provision_password; then run the provision playbook"
    )


def said_by(error: Exception) -> str:
    """What a failed connection of Ansible's says, as a line to show."""
    return printable(" ".join(str(error).split()))[:300]


def says_denied(message: str) -> bool:
    """Whether a failed connection of Ansible's says that the box let nobody in. For a sentence, not for a decision."""
    return "Permission denied" in message or "Invalid/incorrect username/password" in message


def refused(box: str, said: str) -> TenantFailure:
    """The box answers as itself, and lets nobody in."""
    return TenantFailure("unreachable", said, box, safe="nothing was changed on it", fix=where_to_put(box))
