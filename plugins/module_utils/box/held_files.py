# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The files of a snapshot, held by hard links while they are copied: a trainer that lives on removes old checkpoints,
and a copy that takes longer than two saves would never end whole."""

from __future__ import annotations

import os
import shutil
from typing import Any

from .layout import Layout
from .names import check_relative_path


class Gone(Exception):
    """A listed file was removed before it could be held."""


def hold(layout: Layout, run_id: str, files: list[dict[str, Any]]) -> None:
    """Hold the files of a manifest in place of those of the last one. Nothing is held where links are not possible.

    :raises Gone: one of them is not there any more.
    """
    release(layout, run_id)
    root = layout.held(run_id)
    try:
        os.makedirs(root, mode=0o700)
        for line in files:
            path = check_relative_path(line["path"])
            target = os.path.join(root, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(os.path.join(layout.run_dir(run_id), path), target, follow_symlinks=False)
    except FileNotFoundError as error:
        release(layout, run_id)
        raise Gone(str(error)) from error
    except OSError:
        # A file system without hard links, or one that is full: then the files are copied from where they are.
        release(layout, run_id)


def release(layout: Layout, run_id: str) -> None:
    """Let go of whatever is held of a run; a file that was removed meanwhile gives its space back."""
    shutil.rmtree(layout.held(run_id), ignore_errors=True)


def root_of(layout: Layout, run_id: str, snapshot: bool) -> str:
    """The folder below which the files of the manifest just made lie."""
    held = layout.held(run_id)
    return held if snapshot and os.path.isdir(held) else layout.run_dir(run_id)
