# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What goes on with a deployed run when the machine starts again: a unit of systemd, or a line of cron.

Runs on the box. A platform with an onstart of its own needs none of it; a container, where neither systemd nor cron
lives, has none, and that is an answer.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, List, Mapping

from .box import records
from .box.bounded import Apart, run_apart, search_path
from .box.detach import unit_name
from .failures import TenantFailure

NONE, AUTO, CRON, SYSTEMD = "", "auto", "cron", "systemd"
_WITHIN_S = 30.0
_MARK = "#gpu-tenant "

# How cron says that a user has no crontab yet; with any other word there may be one. The second is BusyBox's.
_NO_CRONTAB = re.compile(r"no crontab for |can't open '[^'/]+': No such file or directory")

Run = Callable[[List[str]], Apart]


@dataclass(frozen=True)
class Machine:
    """``systemd``: it is the init. ``lingers``: units of this user live without a login. ``units``: where they lie."""

    root: bool
    systemd: bool
    lingers: bool
    cron: bool
    units: str


def act(
    params: Mapping[str, Any], check: bool, machine: Machine | None = None, run: Run | None = None
) -> dict[str, Any]:
    """The module's result. :raises TenantFailure: the hook that is asked for cannot be set here."""
    ask = run or command
    warnings: list[str] = []
    known = machine or survey(ask)
    wanted = "" if params["state"] == "absent" else chosen(str(params["hook"]), known)
    program = os.path.join(str(params["tenant_root"]), "bin", "resume-all")
    name = unit_name(str(params["tenant_root"]))
    # Read before anything is written, so that what cannot be read changes nothing.
    crontab = None
    if known.cron:
        try:
            crontab = read_crontab(ask)
        except TenantFailure as failure:
            if wanted != SYSTEMD:
                raise
            warnings.append(f"{failure.what}; it was left as it is")
    differences = [
        _unit(program, name, known, wanted == SYSTEMD, check, ask),
        None if crontab is None else _cron(crontab, program, name, wanted == CRON, check, ask),
    ]
    found = [each for each in differences if each]
    why = "" if wanted or params["state"] == "absent" else "this machine starts neither systemd nor cron"
    result = {"changed": bool(found), "hook": wanted, "why": why, "diff": found}
    return dict(result, warnings=warnings) if warnings else result


def chosen(hook: str, machine: Machine) -> str:
    """The hook to set; empty where nothing starts anything and nothing certain was asked for."""
    able = machine.systemd and (machine.root or machine.lingers)
    if hook == AUTO:
        return SYSTEMD if able else CRON if machine.cron else NONE
    if hook == SYSTEMD and not able:
        what = "systemd is not its init" if not machine.systemd else "units of this user end with its last login"
        raise _cannot(what, "run 'loginctl enable-linger' there, or set platform_reboot_hook to cron or auto")
    if hook == CRON and not machine.cron:
        raise _cannot("there is no crontab", "install cron there, or set platform_reboot_hook to systemd or auto")
    return hook


def _cannot(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", f"nothing can be run at a reboot: {what}", safe="nothing was changed", fix=fix)


def survey(ask: Run) -> Machine:
    root = os.geteuid() == 0
    systemd = os.path.isdir("/run/systemd/system") and shutil.which("systemctl", path=search_path()) is not None
    units = "/etc/systemd/system" if root else os.path.expanduser("~/.config/systemd/user")
    lingers = systemd and not root and _lingers(ask)
    return Machine(root, systemd, lingers, shutil.which("crontab", path=search_path()) is not None, units)


def _lingers(ask: Run) -> bool:
    return ask(["loginctl", "show-user", str(os.geteuid()), "--property=Linger", "--value"]).out.strip() == b"yes"


def command(words: list[str]) -> Apart:
    return run_apart(words, _WITHIN_S)


# --- systemd ------------------------------------------------------------------------------------------------------


def unit_text(program: str, root: bool) -> str:
    """The unit. What it starts outlives it: ending it must leave the supervisor and its trainers alone, and a trainer's
    process that the kernel kills for memory must not end it."""
    word = program.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f"""\
[Unit]
Description=Goes on with what gpu-tenant deployed
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=process
OOMPolicy=continue
ExecStart="{word}"

[Install]
WantedBy={"multi-user" if root else "default"}.target
"""


def _unit(program: str, name: str, machine: Machine, present: bool, check: bool, ask: Run) -> dict[str, str] | None:
    path = os.path.join(machine.units, f"{name}.service")
    before, after = _read(path), unit_text(program, machine.root) if present else ""
    scope = [] if machine.root else ["--user"]
    enabled = machine.systemd and bool(before) and ask(["systemctl", *scope, "is-enabled", f"{name}.service"]).rc == 0
    if before == after and enabled == present:
        return None
    if not check:
        if present:
            records.write_bytes(path, after.encode(), 0o644)
            _must(ask, ["systemctl", *scope, "daemon-reload"])
            _must(ask, ["systemctl", *scope, "enable", f"{name}.service"])
        else:
            if enabled:
                _must(ask, ["systemctl", *scope, "disable", f"{name}.service"])
            os.unlink(path)
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def _must(ask: Run, words: list[str]) -> None:
    answer = ask(words)
    if answer.rc != 0:
        what = f"{' '.join(words)} {_ended(answer)}"
        raise TenantFailure(
            "config", what, safe="the run is as it was; nothing runs at a reboot yet", fix="see its words"
        )


def _ended(answer: Apart) -> str:
    if answer.rc is None:
        return f"did not end: {answer.why}"
    said = answer.said.strip() or answer.out.decode("utf-8", "replace").strip()
    return f"ended with {answer.rc}: {said[:200]}"


# --- cron ---------------------------------------------------------------------------------------------------------


def cron_line(program: str, name: str) -> str:
    """cron takes a bare % for a new line."""
    escaped = shlex.quote(program).replace("%", "\\%")
    return f"@reboot {escaped} >/dev/null 2>&1 {_MARK}{name}"


def read_crontab(ask: Run) -> str:
    """The user's crontab, every byte of it; empty where cron says that there is none. TenantFailure else.

    What is not known to be all of it must not be written back: it would be in the place of a person's own lines.
    """
    answer = ask(["crontab", "-l"])
    if answer.rc == 1 and _NO_CRONTAB.search(answer.said):
        return ""
    if answer.rc == 0 and not answer.is_cut:
        return answer.out.decode("utf-8", "surrogateescape")
    why = "is longer than 256 KiB" if answer.rc == 0 else f"cannot be read: crontab -l {_ended(answer)}"
    raise TenantFailure(
        "config",
        f"the user's crontab {why}",
        safe="it was not touched",
        fix="see what crontab -l says there, or set platform_reboot_hook to systemd or to ''",
    )


def _cron(before: str, program: str, name: str, present: bool, check: bool, ask: Run) -> dict[str, str] | None:
    # A line ends at \n alone: what Python takes for an end beside it may stand in a command.
    listed = before.split("\n")
    listed = listed if listed[-1] else listed[:-1]
    kept = [line for line in listed if not line.endswith(f"{_MARK}{name}")]
    lines = [*kept, *([cron_line(program, name)] if present else [])]
    if lines == listed or (not lines and not before.strip()):
        return None
    after = "".join(f"{line}\n" for line in lines)
    if not check:
        _install(after, ask)
    shown = {"before": _printable(before), "after": _printable(after)}
    return {"before_header": "crontab", "after_header": "crontab", **shown}


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _install(text: str, ask: Run) -> None:
    """crontab reads it from a file: what is on a command line is for everybody to see, and may be long."""
    descriptor, path = tempfile.mkstemp(prefix="gpu-tenant-crontab-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))
        _must(ask, ["crontab", path])
    finally:
        os.unlink(path)
