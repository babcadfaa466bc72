# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The preflight: a few lines of POSIX sh that find a Python on a box of which nothing is known yet.

What a login shell prints by itself (a banner, an auto-tmux) comes before, after or between our lines; every line of
ours carries a nonce, so the rest is recognised as noise. No answer at all means that the endpoint gives a shell to
people but runs no commands.
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple, Tuple

Version = Tuple[int, ...]

_PATH = re.compile(r"/[A-Za-z0-9._/+@-]{1,250}\Z")
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\Z")
_NAMES = "python3 python python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8"
_PLACES = (
    "/usr/bin/python3 /usr/local/bin/python3 /opt/*/bin/python3 /opt/*/*/bin/python3 /venv/*/bin/python3 "
    '"$HOME"/*conda*/bin/python "$HOME"/.venv/bin/python'
)
_MAX_NOISE = 400

# Every candidate is asked for its version under a time limit, with stdin closed: a poll that reads stdin never returns.
# The first one that is new enough is the one: a far box with many of them has to start no other.
_SCRIPT = r"""
say() { printf '%s %s\n' "$n" "$*"; }
say begin
say now "$(date +%s 2>/dev/null)"
say user "$(id -un 2>/dev/null)"
limit=
command -v timeout >/dev/null 2>&1 && limit='timeout 10'
tmux_state=absent
for f in "$HOME/.bashrc" "$HOME/.bash_profile" "$HOME/.profile" "$HOME/.zshrc" /etc/profile /etc/bash.bashrc; do
  if [ -r "$f" ] && grep -q tmux "$f" 2>/dev/null; then tmux_state=on; fi
done
[ "$tmux_state" = on ] && [ -e "$HOME/.no_auto_tmux" ] && tmux_state=off
say auto_tmux "$tmux_state"
for f in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/ssh/sftp-server /usr/libexec/sftp-server
do [ -x "$f" ] && say sftp "$f"; done
for p in PREFERRED NAMES PLACES; do
  found=$(command -v "$p" 2>/dev/null) || continue
  case $found in /*) ;; *) continue ;; esac
  v=$($limit "$found" -c 'import sys; v = sys.version_info[:3]; print("%d.%d.%d" % v); sys.exit(3 * (v < FLOOR))' \
    </dev/null 2>/dev/null)
  rc=$?
  [ $rc = 0 ] || [ $rc = 3 ] || continue
  case $v in '' | *[!0-9.]*) continue ;; esac
  say python "$v" "$found"
  case $found in *[!A-Za-z0-9._/+@-]*) continue ;; esac
  [ $rc = 3 ] || break
done
say end
"""


class Preflight(NamedTuple):
    """What the box said.

    :param pythons: path and version, the wanted one first if it is there, none after the first that is new enough.
    :param box_now: the box's clock, epoch seconds, None when it has no ``date``.
    :param auto_tmux: ``on``, ``off`` (switched off by ~/.no_auto_tmux) or ``absent``.
    :param noise: what the login printed beside our lines, shortened.
    """

    pythons: list[tuple[str, Version]]
    box_now: int | None
    user: str
    auto_tmux: str
    sftp: bool
    noise: str


class NoAnswer(Exception):
    """The command's output does not hold our lines; ``noise`` is what came instead."""

    def __init__(self, noise: str) -> None:
        super().__init__(noise)
        self.noise = noise


def script(nonce: str, preferred: str, floor: Version) -> str:
    """The script for ``/bin/sh -c``. ``preferred`` is an absolute path, or empty; no Python after one of ``floor`` or
    newer is asked for its version."""
    body = _SCRIPT.replace("PREFERRED", shlex.quote(preferred) if preferred else "")
    body = body.replace("NAMES", _NAMES).replace("PLACES", _PLACES).replace("FLOOR", str(tuple(floor)))
    return f"n={shlex.quote(nonce)}\n{body.strip()}\n"


def parse(output: str, nonce: str) -> Preflight:
    """What the script said; :class:`NoAnswer` unless its first and last line are there."""
    ours: list[list[str]] = []
    noise: list[str] = []
    for line in output.splitlines():
        before, found, after = line.partition(nonce + " ")
        if found:
            ours.append(after.split())
        if before.strip() and (found or nonce not in line):
            noise.append(before.strip())
    words = [line[0] for line in ours if line]
    shown = " / ".join(noise)[:_MAX_NOISE]
    if "begin" not in words or "end" not in words:
        raise NoAnswer(shown)
    said: dict[str, str] = {line[0]: " ".join(line[1:]) for line in ours if line}
    return Preflight(
        pythons=_pythons(ours),
        box_now=int(said["now"]) if re.match(r"[0-9]{9,11}\Z", said.get("now", "")) else None,
        user=said.get("user", "")[:64],
        auto_tmux=said["auto_tmux"] if said.get("auto_tmux") in ("on", "off") else "absent",
        sftp="sftp" in said,
        noise=shown,
    )


def _pythons(lines: list[list[str]]) -> list[tuple[str, Version]]:
    """Only paths of plain characters count: this one becomes the interpreter of a command line."""
    found: list[tuple[str, Version]] = []
    for line in lines:
        if len(line) == 3 and line[0] == "python" and _VERSION.match(line[1]) and _PATH.match(line[2]):
            entry = (line[2], tuple(int(part) for part in line[1].split(".")))
            if entry not in found:
                found.append(entry)
    return found


def choose(pythons: list[tuple[str, Version]], floor: Version) -> tuple[str, Version] | None:
    """The first Python that is at least ``floor``; None when there is none."""
    for path, version in pythons:
        if version >= floor:
            return path, version
    return None
