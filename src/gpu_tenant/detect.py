# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ``gpu-tenant init`` need not ask, because this machine tells it: keys, the training script, what it uses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName, check_name

# Where the official client of a market keeps the key and nothing beside it, its newer place first.
API_KEY_FILES = {"vast": ("~/.config/vastai/vast_api_key", "~/.vast_api_key")}
_SSH_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
SCRIPTS = ("train.py", "main.py", "finetune.py", "run.py")
_MOST_BYTES = 1024 * 1024
_IMPORTS = re.compile(r"^[ \t]*(?:import|from)[ \t]+([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE)


@dataclass(frozen=True)
class Detected:
    """Paths are as they go into files: ``~`` stands for the home folder. Empty is not found."""

    project: str = ""
    api_key_file: str = ""
    ssh_key: str = ""
    script: Path | None = None
    requirements: bool = False
    tracker: str = "none"
    wandb_key: bool = False
    uses_helper: bool = False


def detect(folder: Path, environment: Mapping[str, str], script: Path | None = None, driver: str = "") -> Detected:
    """Look round ``folder`` and the home folder. Reads names, and of the training script its imports; runs nothing.

    :param script: the training script, where somebody named it.
    :param driver: of the market whose key is wanted; empty for none.
    """
    found = script or _script(folder)
    imports = _imports(found)
    return Detected(
        project=project_of(folder),
        api_key_file=_first(API_KEY_FILES.get(driver, ())),
        ssh_key=_first(tuple(f"~/.ssh/{name}" for name in _SSH_KEYS), beside=".pub"),
        script=found,
        requirements=found is not None and (found.parent / "requirements.txt").is_file(),
        tracker=next((name for name in ("wandb", "trackio", "tensorboard") if name in imports), "none"),
        wandb_key=bool(environment.get("WANDB_API_KEY")),
        uses_helper="tenant_checkpoint" in imports,
    )


def project_of(folder: Path) -> str:
    """The folder's name as a project; empty where none can be made of it."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    try:
        return check_name("project", name)
    except UnsafeName:
        return ""


def _script(folder: Path) -> Path | None:
    """The training script in the new folder, else in the one where we are."""
    places = [place / name for place in dict.fromkeys((folder, Path.cwd())) for name in SCRIPTS]
    return next((path for path in places if path.is_file()), None)


def _imports(script: Path | None) -> frozenset[str]:
    if script is None:
        return frozenset()
    try:
        with script.open("rb") as stream:
            text = stream.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return frozenset()
    found = set(_IMPORTS.findall(text))
    # As torch spells it.
    return frozenset(found | ({"tensorboard"} if "SummaryWriter" in text else set()))


def _first(paths: tuple[str, ...], beside: str = "") -> str:
    """The first of ``paths`` that is a file, as is the one with ``beside`` added to its name."""
    for path in paths:
        whole = os.path.expanduser(path)
        if os.path.isfile(whole) and os.path.isfile(whole + beside):
            return path
    return ""
