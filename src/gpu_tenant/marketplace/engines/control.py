# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The control directory of a box: scripts and facts of one start, which the box sees read-only at ``/.box``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from . import box_root
from .account import ROOT, Account
from .base import BoxSpec, EngineError

SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


def write_control(
    directory: Path,
    spec: BoxSpec,
    scripts: dict[str, str],
    control: PurePosixPath = box_root.CONTROL_IN_BOX,
    home: str = "",
    variables: dict[str, str] | None = None,
    account: Account = ROOT,
) -> None:
    """Fill a control directory for one start.

    :param scripts: what the engine adds to the files that every box has.
    :param control: where the box sees the directory.
    :param home: of the account, where it is another folder than the box's own.
    :param variables: of the engine's; the instance's own win.
    """
    shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    environment = {**(variables or {}), **spec.environment}
    files = {
        "environment": box_root.render_environment(environment, home or account.home, control, shell, account.name),
        "onstart.sh": spec.onstart,
        "card.json": json.dumps({**spec.card.as_dict(), "serial": spec.box_id}),
        "nvidia_smi.py": Path(__file__).with_name("nvidia_smi.py").read_text(encoding="utf-8"),
        **scripts,
    }
    # Whatever the market's own umask is: a user of the box reads them.
    directory.chmod(0o755)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
        (directory / name).chmod(0o644)
    python = shlex.quote(sys.executable)
    stand_ins = dict.fromkeys(_python_names(), f'exec {python} "$@"')
    stand_ins["nvidia-smi"] = f'exec {python} -I -S {shlex.quote(str(control))}/nvidia_smi.py "$@"'
    (directory / "bin").mkdir(exist_ok=True)
    (directory / "bin").chmod(0o755)
    for name, command in stand_ins.items():
        write_program(directory / "bin" / name, f"#!/bin/sh\n{command}\n")


def write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def write_keys(path: Path, keys: Iterable[str]) -> None:
    """An authorized_keys file, replaced whole."""
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(f"{key.strip()}\n" for key in keys), encoding="utf-8")
    # sshd reads it as the user that it lets in. The folder around it is the market's alone.
    fresh.chmod(0o644)
    fresh.replace(path)


def give(folders: Iterable[Path], account: Account) -> None:
    """Have the account own folders that outlive its box. For root only."""
    for folder in () if account.is_root else folders:
        os.chown(folder, account.number, account.number)


def make_host_key(path: Path, box_id: int) -> None:
    """An sshd's own key, made once: a box keeps its face for life."""
    if path.exists():
        return
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"box-{box_id}", "-f", str(path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise EngineError(f"ssh-keygen: {made.stderr.strip()}")


def renew_host_key(path: Path, box_id: int) -> None:
    """Another face for a box that had one. EngineError without one."""
    if not path.exists():
        raise EngineError(f"box {box_id} has no host key yet")
    path.unlink()
    path.with_suffix(".pub").unlink(missing_ok=True)
    make_host_key(path, box_id)


def sftp_server() -> str:
    return next((path for path in SFTP_SERVERS if Path(path).exists()), SFTP_SERVERS[0])


def openssh_version() -> tuple[int, int]:
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def delete_tree(directory: Path) -> None:
    """Delete a box's directory, also where the box took away its own permissions. Missing is no error."""

    def make_way(_function: Any, path: str, _error: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            if os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, 0o700)

    for _attempt in range(8):
        shutil.rmtree(directory, onerror=make_way)
        if not directory.exists():
            return
    raise EngineError(f"could not delete {directory}")


def python_prefixes() -> list[Path]:
    """Where this Python and its packages lie, by the names that links use and by the real ones."""
    named = [Path(sys.prefix), Path(sys.base_prefix)]
    return named + [path.resolve() for path in named]


def _python_names() -> tuple[str, ...]:
    major, minor = sys.version_info[:2]
    return ("python", f"python{major}", f"python{major}.{minor}")
