# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a box is asked, as the one shell command that its ssh session runs.

The newest supervisor on the box answers. Its interpreter is told not to look for what was installed there, which halves
its start; and for a look at a run at work there may be no need of one: see :func:`status_question`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import check_name

from gpu_tenant.hosts import BoxHost

NO_SUPERVISOR = 66
_ASK = (
    'p=$(ls -t "$d"/bin/supervisor-*.pyz 2>/dev/null | head -n 1); [ -n "$p" ] || exit {absent}; '
    'exec {python} -I -S "$p" --root "$d" {words}'
)
# The answer that a living supervisor keeps ready (module_utils/box/ready_answer.py), by what every shell has in itself.
# It is told only where all of it holds: this form and this life of the box; pid 1, supervisor and trainer have begun
# when they had, and are neither dead nor, the supervisor, stopped; it is neither old nor of the future, by a clock that
# nobody sets; and no other program lies there that is as new. Everything else falls through to the question itself,
# failures of reading too: for that the file is no redirection of `exec`, at which a shell would end.
_READY = """
begun() { read -r l </proc/$1/stat || return; set -- ${l##*)}; case $1 in [ZXx]) return 1;; esac; s=$1 b=${20}; }
ready() {
read -r form boot first pid start trainer since at until name && read -r answer || return
read -r life </proc/sys/kernel/random/boot_id && read -r up rest </proc/uptime || return
[ "$form" = FORM ] && [ "$life" = "$boot" ] && [ "$at" -le "${up%.*}" ] && [ "${up%.*}" -le "$until" ] || return
begun 1 && [ "$b" = "$first" ] && begun "$trainer" && [ "$b" = "$since" ] || return
begun "$pid" && [ "$b" = "$start" ] || return
case $s in [Tt]) return 1;; esac
n=$d/bin/$name
[ -f "$n" ] || return
for p in "$d"/bin/supervisor-*.pyz; do [ "$p" = "$n" ] || [ "$n" -nt "$p" ] || return; done
case $answer in {*}) printf '%s\\n' "$answer";; *) return 1;; esac
}
ready 2>/dev/null <"$d/answer" && exit
"""


@dataclass(frozen=True)
class Asked:
    """What a supervisor is asked for its status.

    :param run_id: of the one run that is wanted; empty for all.
    :param ready: whether an answer to all will do that is some seconds old, but proven to hold otherwise.
    """

    run_id: str = ""
    ready: bool = False


def question(host: BoxHost, words: Sequence[str]) -> str:
    """The command that has the newest supervisor of a box answer a verb."""
    return f"d={shlex.quote(_tenant_root(host))}; {_asked(host, words)}"


def status_question(host: BoxHost, asked: Asked) -> str:
    """The command that tells the status of a box."""
    words = ["status", *(["--run", check_name("run", asked.run_id)] if asked.run_id else [])]
    if asked.run_id or not asked.ready:
        return question(host, words)
    first = _READY.strip().replace("FORM", records.schema("answer"))
    return f"d={shlex.quote(_tenant_root(host))}\n{first}\n{_asked(host, words)}"


def _asked(host: BoxHost, words: Sequence[str]) -> str:
    python = shlex.quote(host.text("platform_python", "python3"))
    return _ASK.format(python=python, words=shlex.join(words), absent=NO_SUPERVISOR)


def _tenant_root(host: BoxHost) -> str:
    return f"{host.required('platform_data_dir').rstrip('/')}/gpu-tenant"
