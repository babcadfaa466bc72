# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether what a login starts outlives the logout: systemd-logind decides it, where a box has one.

Two things may end it. A user's own systemd, and with it every unit of its, ends with the last login unless the user
lingers. And where KillUserProcesses= is set, whatever a login left in its session's scope is killed, however it
detached, and lingering keeps nothing of it.
"""

from __future__ import annotations

import os
import pwd
import re

from .refusal import SYSTEM, Refused
from .tool import run_tool

_MEMBERSHIP = "/proc/self/cgroup"
# The owner of the session, whoever this process has become since: sudo stays in the scope of its login.
_SESSION = re.compile(r"/user-(?P<uid>[0-9]+)\.slice/session-[^/\n]+\.scope(?:/|$)", re.MULTILINE)
_SETTINGS = ("KillUserProcesses", "KillExcludeUsers", "KillOnlyUsers")
_OWN_SYSTEMD = "run 'loginctl enable-linger' on the box once"


def refuse_what_ends(method: str) -> None:
    """Refused(SYSTEM) when what ``method`` starts from here would end with this login.

    Where it cannot be asked, nothing is known, and the start shows what it can.
    """
    if method == "systemd":
        if os.geteuid() != 0:
            _refuse_without_linger(os.geteuid())
    elif method in ("setsid", "onstart", "tmux"):
        _refuse_killed(method)


def _refuse_without_linger(uid: int) -> None:
    words = ["loginctl", "show-user", str(uid), "--property=Linger", "--value"]
    try:
        answer = run_tool(words, "say whether your processes outlive the login").strip()
    except Refused:
        return
    if answer == "no":
        raise Refused(
            SYSTEM,
            f"systemd-run --user would end the supervisor with the last login of uid {uid}: lingering is off",
            f"{_OWN_SYSTEMD}, or detach by setsid or tmux",
        )


def _refuse_killed(method: str) -> None:
    uid = _session_owner()
    if uid is None:
        return
    name = _name_of(uid)
    # Without a user named it tells the settings of logind itself.
    words = ["loginctl", "show-user", *(f"--property={setting}" for setting in _SETTINGS)]
    try:
        answer = run_tool(words, "say whether your processes outlive the login")
    except Refused:
        return
    if not _kills(dict(line.split("=", 1) for line in answer.splitlines() if "=" in line), name):
        return
    lingering = "" if os.geteuid() == 0 else f" and {_OWN_SYSTEMD}: that alone does not help {method}"
    raise Refused(
        SYSTEM,
        f"this box kills what a login of {name} leaves behind (KillUserProcesses= in its logind.conf): {method} would"
        " lose the supervisor at the logout; nothing was started",
        f"set platform_detach to systemd{lingering}; or set KillUserProcesses=no there",
    )


def _session_owner() -> int | None:
    """Whose login this process is in; None when it is in none, as in most containers and at a boot."""
    try:
        with open(_MEMBERSHIP, encoding="utf-8") as stream:
            found = _SESSION.search(stream.read())
    except OSError:
        return None
    return int(found["uid"]) if found else None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _kills(settings: dict[str, str], name: str) -> bool:
    """As logind.conf(5) orders them: who is excluded, then those named, then everybody."""
    excluded, named = settings.get("KillExcludeUsers", "").split(), settings.get("KillOnlyUsers", "").split()
    if name in (excluded or ["root"]):
        return False
    return name in named if named else settings.get("KillUserProcesses") == "yes"
