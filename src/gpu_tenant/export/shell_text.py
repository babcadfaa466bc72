# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Lines of shell that every exported script needs. Whatever a spec holds is quoted; nothing of it is ever expanded."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from gpu_tenant.export.cells import CellJob

MAKE_FOLDERS = 'mkdir -p -- "$TENANT_CHECKPOINT_DIR"'


def exports(env: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in env.items()]


def the_command(argv: Sequence[str]) -> str:
    return f"set -- {shlex.join(argv)}"


def choice(variable: str, jobs: Iterable[tuple[str, CellJob]], common: Mapping[str, str]) -> list[str]:
    """Environment and command of the one cell whose key ``variable`` has.

    :param jobs: key and cell.
    :param common: what is set for all cells already.
    """
    lines = [f'case "${{{variable}:-}}" in']
    for key, job in jobs:
        own = {name: value for name, value in job.env.items() if common.get(name) != value}
        lines += [f"{shlex.quote(key)})", *(f"  {line}" for line in [*exports(own), the_command(job.argv)]), "  ;;"]
    unknown = f'echo "gpu-tenant: {variable} is \\"${{{variable}:-}}\\", which is no cell of this run" >&2'
    return [*lines, "*)", f"  {unknown}", "  exit 2", "  ;;", "esac"]


def deadline(seconds: int) -> list[str]:
    """Sets ``until_s`` and ``left_s``, counted from the first start of the cell: restarts do not bill for ever."""
    return [
        "# The deadline counts from the cell's first start, however often it is restarted.",
        'started="${TENANT_ATTEMPT}/started"',
        '[ -s "$started" ] || date +%s >"$started"',
        f'until_s=$(($(cat "$started") + {seconds}))',
        "left_s=$((until_s - $(date +%s)))",
        'if [ "$left_s" -le 0 ]; then',
        f'  echo "gpu-tenant: the deadline of {seconds} s is over; checkpoints are in $TENANT_CHECKPOINT_DIR" >&2',
        "  exit 1",
        "fi",
    ]
